"""What the daemon remembers of files: digests, scans and directory listings, all checked by stat.

A stat answers for content only when the file was quiet for a while before it was read: two writes
within one tick of the file system's clock leave the same times ("racily clean").
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from typing import Final, NamedTuple

from hpcc.compilers import Scan, scan_alias_uses, scan_source

# Two seconds is the coarsest time stamp of a common file system (FAT).
RACY_WINDOW_NS: Final = 2_000_000_000
MAX_SOURCE_BYTES: Final = 256 << 20
_MAX_REMEMBERED: Final = 200_000
_MAX_LISTING: Final = 200_000
_CHUNK: Final = 1 << 20

Signature = tuple[int, int, int, int, int]
"""Device, inode, size, mtime and ctime in nanoseconds."""


def signature_of(status: os.stat_result) -> Signature:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


class Listing(NamedTuple):
    """The names in a directory, directories apart. `is_quiet`: its stat may answer for them."""

    signature: Signature
    files: frozenset[bytes]
    directories: frozenset[bytes]
    is_quiet: bool


class FileMemo:
    """Digests by path and stat, scans by digest, listings by path and stat.

    Thread-safe because each step is one dict operation and a lost update only costs work.
    """

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._digests: dict[bytes, tuple[Signature, bytes]] = {}
        self._scans: dict[bytes, Scan] = {}
        self._alias_uses: dict[tuple[bytes, tuple[bytes, ...]], Scan] = {}
        self._listings: dict[bytes, Listing] = {}

    def digest(self, path: bytes) -> bytes | None:
        """Return the SHA-256 of a regular file; None when there is none or it is changing."""
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return None
        known = self._digests.get(path)
        # Spelled out, not through `signature_of`: this line runs once per header of every hit.
        if known is not None and known[0] == (
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        ):
            return known[1]
        return self._hash(path)

    def signature(self, path: bytes, digest: bytes) -> Signature | None:
        """Return the stat that answers for this content of a file; None when none does.

        It is the one remembered, not the file's of now.
        """
        known = self._digests.get(path)
        return known[0] if known is not None and known[1] == digest else None

    def scan(self, path: bytes) -> tuple[bytes, Scan] | None:
        """Return digest and scan of a source file, from the same bytes."""
        found = self.examine(path)
        return None if found is None else found[:2]

    def examine(self, path: bytes) -> tuple[bytes, Scan, os.stat_result] | None:
        """Return digest, scan and a stat that was taken after the file was read, or remembered."""
        try:
            status = os.stat(path)
            known = self._digests.get(path)
            if known is not None and known[0] == signature_of(status):
                scan = self._scans.get(known[1])
                if scan is not None:
                    return known[1], scan, status
            if status.st_size > MAX_SOURCE_BYTES:
                return None
            chunks: list[bytes] = []
            digest = self._hash(path, chunks)
            status = os.stat(path)
        except (OSError, ValueError):
            return None
        if digest is None:
            return None
        scan = self._scans.get(digest)
        if scan is None:
            scan = scan_source(b"".join(chunks))
            if len(self._scans) >= _MAX_REMEMBERED:
                self._scans.clear()
            self._scans[digest] = scan
        return digest, scan, status

    def alias_uses(self, path: bytes, digest: bytes, aliases: tuple[bytes, ...]) -> Scan | None:
        """Return what a file asks through these macros; None when it is not that content now."""
        known = self._alias_uses.get((digest, aliases))
        if known is not None:
            return known
        chunks: list[bytes] = []
        if self._hash(path, chunks) != digest:
            return None
        found = scan_alias_uses(b"".join(chunks), aliases)
        if len(self._alias_uses) >= _MAX_REMEMBERED:
            self._alias_uses.clear()
        self._alias_uses[digest, aliases] = found
        return found

    def listing(self, path: bytes) -> Listing | None:
        """Return the names in a directory; None when it is none or is too large to watch."""
        try:
            signature = signature_of(os.stat(path))
        except (OSError, ValueError):
            return None
        known = self._listings.get(path)
        if known is not None and known.is_quiet and known.signature == signature:
            return known
        return self._list(path, signature)

    def quiet_signature(self, path: bytes) -> Signature | None:
        """Return the stat of a file or directory if it may answer for it later, else None."""
        try:
            signature = signature_of(os.stat(path))
        except (OSError, ValueError):
            return None
        return signature if self.is_quiet(signature) else None

    def is_quiet(self, signature: Signature) -> bool:
        """Tell whether a stat taken now may answer for content later."""
        return self._now_ns() - max(signature[3], signature[4]) > RACY_WINDOW_NS

    def _hash(self, path: bytes, chunks: list[bytes] | None = None) -> bytes | None:
        """Read and hash a file, and put what was read into `chunks`."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                return None
            hasher = hashlib.sha256()
            # A buffer of the file's size: a larger one is mapped and unmapped for each read.
            while chunk := os.read(fd, min(before.st_size + 1, _CHUNK)):
                hasher.update(chunk)
                if chunks is not None:
                    chunks.append(chunk)
            signature = signature_of(before)
            if signature_of(os.fstat(fd)) != signature:
                return None
        except OSError:
            return None
        finally:
            os.close(fd)
        digest = hasher.digest()
        if self.is_quiet(signature):
            if len(self._digests) >= _MAX_REMEMBERED:
                self._digests.clear()
            self._digests[path] = (signature, digest)
        return digest

    def _list(self, path: bytes, signature: Signature) -> Listing | None:
        files: list[bytes] = []
        directories: list[bytes] = []
        is_quiet = self.is_quiet(signature)
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    (directories if _is_directory(entry) else files).append(entry.name)
                    if len(files) + len(directories) > _MAX_LISTING:
                        return None
            if signature_of(os.stat(path)) != signature:
                is_quiet = False
        except OSError:
            return None
        listing = Listing(signature, frozenset(files), frozenset(directories), is_quiet)
        if len(self._listings) >= _MAX_REMEMBERED // 10:
            self._listings.clear()
        self._listings[path] = listing
        return listing


def _is_directory(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link that leads to itself
