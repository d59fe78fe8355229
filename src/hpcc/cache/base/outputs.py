"""Reads the user's output files after a compile, and writes them on a hit."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from typing import Final, NamedTuple

from hpcc.cache.base.uncacheable import is_fresh

_CHUNK: Final = 1 << 20
# Windows has none of these flags. There this module is loaded, and writes no output.
_NOFOLLOW: Final[int] = getattr(os, "O_NOFOLLOW", 0)
_CLOEXEC: Final[int] = getattr(os, "O_CLOEXEC", 0)
_NONBLOCK: Final[int] = getattr(os, "O_NONBLOCK", 0)
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _CLOEXEC
_OLD: Final = os.O_WRONLY | _NOFOLLOW | _CLOEXEC | _NONBLOCK


# A directory has it if its new files get their permissions from a list, whatever the umask is.
_DEFAULT_ACL: Final = "system.posix_acl_default"
_OWN_ACL: Final = "system.posix_acl_access"
_NO_ACL: Final = frozenset({errno.ENODATA, errno.EOPNOTSUPP, errno.ENOSYS})


class OutputFile(NamedTuple):
    """One file to put in place.

    `keeps_mode`: an existing file keeps its mode, as it does when a compiler truncates it.
    """

    path: bytes
    data: bytes
    keeps_mode: bool = False


def is_special(path: bytes) -> bool:
    """Tell whether the path exists and is not a regular file (/dev/null, a directory)."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def read_output(path: bytes, *, started_ns: int, limit: int) -> bytes | None:
    """Return what the compiler wrote.

    None unless it is a regular file of at most `limit` bytes that was written since `started_ns`
    and did not change during the read.
    """
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
        data = b""
        # Nearly always one read: the file's size plus one byte, to see the end.
        while chunk := os.read(fd, min(before.st_size + 1, _CHUNK)):
            data = data + chunk if data else chunk
            if len(data) > limit:
                return None
        after = os.fstat(fd)
    except OSError:
        return None
    finally:
        os.close(fd)
    unchanged = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    return data if unchanged and len(data) == after.st_size else None


def place(outputs: tuple[OutputFile, ...], *, source: tuple[int, int], mode: int) -> bool:
    """Write all files in order; return False if the compiler has to write them.

    Writes only new files, and regular files with one link that this user owns and that are not the
    source (device, inode). In other cases the compiler's behaviour is the right one, so it has to
    run. After a failure every file that was touched is removed. New files get `mode`, or what a
    default ACL of their directory gives them.
    """
    touched: list[bytes] = []
    try:
        for output in outputs:
            if not _write(output, source, mode, touched):
                _remove(touched)
                return False
    except OSError:
        _remove(touched)
        return False
    return True


def _write(output: OutputFile, source: tuple[int, int], mode: int, touched: list[bytes]) -> bool:
    is_new, is_listed, is_for_others = False, False, False
    try:
        # Check before opening: an open wakes a process that waits at a FIFO, and rewinds a tape.
        found = os.lstat(output.path)
        if not _is_ours(found, source):
            return False
        if not output.keeps_mode:
            is_for_others = found.st_gid != os.getegid() or _has_acl(output.path, _OWN_ACL)
    except FileNotFoundError:
        is_new = True
    if is_new or not output.keeps_mode:
        is_listed = _has_acl(os.path.dirname(output.path), _DEFAULT_ACL)
    if not is_new and (is_listed or is_for_others):
        # Assemblers make a new file, too. The old one may be for people for whom a new one is not.
        os.unlink(output.path)
        is_new = True
    if is_new:
        # Without a list `mode` is set after the bytes are written.
        fd = os.open(output.path, _NEW, 0o666 if is_listed else 0o600)
    else:
        fd = os.open(output.path, _OLD)
    try:
        old = None if is_new else os.fstat(fd)
        if old is not None and not _is_ours(old, source):
            return False
        touched.append(output.path)
        _fill(fd, old, output.data)
        if not is_listed:
            _set_mode(fd, old, output, mode)
    finally:
        os.close(fd)
    return True


def _set_mode(fd: int, old: os.stat_result | None, output: OutputFile, mode: int) -> None:
    if old is None or (not output.keeps_mode and stat.S_IMODE(old.st_mode) != mode):
        os.fchmod(fd, mode)


def _has_acl(path: bytes, name: str) -> bool:
    """Tell whether a file has this access control list.

    Raises:
        OSError: the kernel does not say.
    """
    if sys.platform != "linux":
        return False
    try:
        os.getxattr(path, name)
    except OSError as error:
        if error.errno in _NO_ACL:
            return False
        raise
    return True


def _fill(fd: int, old: os.stat_result | None, data: bytes) -> None:
    """Overwrite the old bytes and truncate afterwards.

    If a file is truncated to nothing first, ext4 flushes it on close (auto_da_alloc), which costs
    more than everything else here.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    if old is not None and old.st_size > len(data):
        os.ftruncate(fd, len(data))
    elif old is not None and not data:
        os.utime(fd)  # nothing was written, but the file must get a new mtime


def _is_ours(status: os.stat_result, source: tuple[int, int]) -> bool:
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_nlink == 1
        and status.st_uid == os.geteuid()
        and (status.st_dev, status.st_ino) != source
    )


def _remove(paths: list[bytes]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)
