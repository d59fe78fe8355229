"""The user's output files: read back after a compile, put in place on a hit."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Final, NamedTuple

from hpcc.daemon._closure import is_fresh

_CHUNK: Final = 1 << 20
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class OutputFile(NamedTuple):
    """One file to put in place.

    `keeps_mode`: an existing file keeps its mode, as one does that a compiler truncates.
    """

    path: bytes
    data: bytes
    keeps_mode: bool = False


def is_special(path: bytes) -> bool:
    """Tell whether something that is not a regular file is in the way (/dev/null, a directory)."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def read_output(path: bytes, *, started_ns: int, limit: int) -> bytes | None:
    """Return what the compiler wrote; None unless it is a whole, new, regular file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode) or before.st_size > limit:
            return None
        if not is_fresh(before, started_ns):
            return None
        data = bytearray()
        while chunk := os.read(fd, _CHUNK):
            data += chunk
            if len(data) > limit:
                return None
        after = os.fstat(fd)
    except OSError:
        return None
    finally:
        os.close(fd)
    unchanged = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    return bytes(data) if unchanged and len(data) == after.st_size else None


def place(outputs: tuple[OutputFile, ...], *, source: bytes, umask: int) -> bool:
    """Write all files in order; False when the compiler has to do it.

    Only a new file, or a regular one of ours with one link that is not the source, is written;
    everything else is left to the compiler, who knows what it does then. After a failure no file
    that was touched is left.
    """
    touched: list[bytes] = []
    mode = 0o666 & ~umask
    try:
        for output in outputs:
            if not _write(output, source, mode, touched):
                _remove(touched)
                return False
    except OSError:
        _remove(touched)
        return False
    return True


def _write(output: OutputFile, source: bytes, mode: int, touched: list[bytes]) -> bool:
    is_new = False
    try:
        fd = os.open(output.path, _OLD)
    except FileNotFoundError:
        # 0600 until the bytes are there; a dangling symbolic link fails here, as it should.
        fd = os.open(output.path, _NEW, 0o600)
        is_new = True
        touched.append(output.path)
    try:
        if not is_new:
            status = os.fstat(fd)
            if not _is_ours(status, source):
                return False
            touched.append(output.path)
            os.ftruncate(fd, 0)
        view = memoryview(output.data)
        while view:
            view = view[os.write(fd, view) :]
        if is_new or not output.keeps_mode:
            os.fchmod(fd, mode)
    finally:
        os.close(fd)
    return True


def _is_ours(status: os.stat_result, source: bytes) -> bool:
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_uid != os.geteuid():
        return False
    original = os.stat(source)
    return (original.st_dev, original.st_ino) != (status.st_dev, status.st_ino)


def _remove(paths: list[bytes]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)
