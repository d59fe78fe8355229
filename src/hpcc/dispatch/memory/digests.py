"""Digests of input files by stat, so that a header is hashed once and not once per unit."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Final, NamedTuple

from hpcc.core import MAX_OUTPUT_BYTES, Blob, CallerError, Digest
from hpcc.core.memo import LruMemo
from hpcc.core.reasons.fallback import FallbackReason

_MAX_ENTRIES: Final = 200_000
# A file that changed this recently may change again within one tick of its clock.
_RACY_NS: Final = 2_000_000_000
_CHUNK: Final = 1 << 20
# Windows has neither flag, and no path in a directory opens a pipe there.
_FLAGS: Final = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
# It is not proved that a `stat` on Windows shows every change, so files are read each time there.
_REMEMBERS: Final = os.name == "posix"


class _Entry(NamedTuple):
    stat: tuple[int, ...]
    digest: Digest


class DigestMemo:
    """Digests of files by path and stat, bounded. Used by one thread at a time."""

    def __init__(self) -> None:
        self._entries: LruMemo[str, _Entry] = LruMemo(_MAX_ENTRIES)

    def digest(self, path: str, now_ns: int) -> Digest:
        """Return the digest of a file's content; `now_ns` is the wall time in nanoseconds.

        Raises:
            CallerError: it is not a regular file, cannot be read, or changes while it is read.
        """
        try:
            with open(path, "rb", buffering=0, opener=_open) as file:
                before = os.fstat(file.fileno())
                if not stat.S_ISREG(before.st_mode) or before.st_size > MAX_OUTPUT_BYTES:
                    raise CallerError(
                        "an input is not a regular file", reason=FallbackReason.INPUT_KIND
                    )
                key = _key(before)
                known = self._entries.get(path)
                if known is not None and known.stat == key:
                    self._entries.move_to_end(path)
                    return known.digest
                digest = _hash(file.fileno())
                after = os.fstat(file.fileno())
        except OSError as error:
            raise CallerError(
                f"cannot read an input: {error.strerror}", reason=FallbackReason.INPUT
            ) from error
        if _key(after) != key or digest.size_bytes != after.st_size:
            raise CallerError(
                "an input changes while it is read", reason=FallbackReason.INPUT_CHANGED
            )
        if _REMEMBERS and now_ns - max(after.st_mtime_ns, after.st_ctime_ns) > _RACY_NS:
            self._entries[path] = _Entry(key, digest)
        return digest

    def forget(self, path: str) -> None:
        """Drop what is stored for a path."""
        self._entries.pop(path, None)


def read_blob(path: str, digest: Digest) -> Blob:
    """Read a file to be sent, and check it against the digest that is in the action.

    Raises:
        CallerError: the file is gone or has other content now.
    """
    try:
        with open(path, "rb", buffering=0, opener=_open) as file:
            data = file.read(digest.size_bytes + 1)
            while data and len(data) <= digest.size_bytes and (more := file.read(_CHUNK)):
                data += more
    except OSError as error:
        raise CallerError(
            f"cannot read an input: {error.strerror}", reason=FallbackReason.INPUT
        ) from error
    blob = Blob.of(data)
    if blob.digest != digest:
        raise CallerError(
            "an input changed before it was sent", reason=FallbackReason.INPUT_CHANGED
        )
    return blob


def _open(path: str, flags: int) -> int:
    """Open without waiting: a named pipe in place of a header must not stop everything."""
    return os.open(path, flags | _FLAGS)


def _key(status: os.stat_result) -> tuple[int, ...]:
    return (
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
    )  # fmt: skip


def _hash(descriptor: int) -> Digest:
    total = hashlib.sha256()
    size = 0
    while chunk := os.read(descriptor, _CHUNK):
        total.update(chunk)
        size += len(chunk)
    return Digest(total.hexdigest(), size)
