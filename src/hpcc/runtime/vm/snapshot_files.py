"""A snapshot's two files: copied with their holes, and named by a digest of their content."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from hpcc.core import IntegrityError

BLOCK_BYTES: Final = 64 << 10
# The state of devices, not memory: QEMU's takes 64 kB, Firecracker's less.
MAX_STATE_BYTES: Final = 64 << 20
_MODE: Final = 0o444
type IsStopped = Callable[[], bool]


def never() -> bool:
    """Return False: nothing asked to stop."""
    return False


def seal(source: Path, target: Path, *, max_bytes: int, is_stopped: IsStopped = never) -> str:
    """Copy a VMM's file to a new read-only one, with holes for zeros; returns its digest.

    It is a copy, because a process that has the VMM's file open could still change that file.

    Raises:
        IntegrityError: the source is not a regular file, or is larger than `max_bytes`.
        InterruptedError: `is_stopped` returned True.
        OSError: the copy failed, or `target` exists.
    """
    source_fd = _open_regular(source, max_bytes)
    try:
        target_fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            digest = _digest(source_fd, is_stopped, copy_to=target_fd)
            os.fchmod(target_fd, _MODE)
            os.fsync(target_fd)
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)
    return digest


def digest_of(path: Path, *, max_bytes: int, is_stopped: IsStopped = never) -> str:
    """Return the digest of a sealed file: SHA-256 of its size and of each block that is not zero.

    Raises:
        IntegrityError: it is not a regular file, or is larger than `max_bytes`.
        InterruptedError: `is_stopped` returned True.
        OSError: it does not exist.
    """
    fd = _open_regular(path, max_bytes)
    try:
        return _digest(fd, is_stopped)
    finally:
        os.close(fd)


def _open_regular(path: Path, max_bytes: int) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
        os.close(fd)
        raise IntegrityError(
            f"{path.name} of a snapshot is not what it should be", reason="snapshot"
        )
    return fd


def _digest(fd: int, is_stopped: IsStopped, *, copy_to: int | None = None) -> str:
    size = os.fstat(fd).st_size
    total = hashlib.sha256(b"hpcc-snapshot-1 %d\n" % size)
    for at, data in _blocks(fd, size, is_stopped):
        total.update(b"%d %d\n" % (at, len(data)) + data)
        if copy_to is not None:
            os.pwrite(copy_to, data, at)
    if copy_to is not None:
        os.ftruncate(copy_to, size)
    return "sha256:" + total.hexdigest()


def _blocks(fd: int, size: int, is_stopped: IsStopped) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks that are neither hole nor zero, at multiples of the block size."""
    at = 0
    while at < size:
        if is_stopped():
            raise InterruptedError(errno.EINTR, "a snapshot is not needed any more")
        try:
            at = os.lseek(fd, at, os.SEEK_DATA) // BLOCK_BYTES * BLOCK_BYTES
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        data = os.pread(fd, min(BLOCK_BYTES, size - at), at)
        if not data:
            return
        if data.strip(b"\0"):
            yield at, data
        at += len(data)
