"""File operations with POSIX calls; `hpcc.files.on_windows` has the same functions."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from hpcc.core import CallerError
from hpcc.files.access import FileAccess

# Opening a pipe or a device must not block.
NONBLOCK: Final = os.O_NONBLOCK


def open_file(path: Path | str, flags: int, mode: int = 0o600) -> int:
    """Return a descriptor opened by `flags` of `os.open`. Links and inheritance are excluded.

    Raises:
        OSError: see `os.open`; ELOOP: it is a link.
    """
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode)


def own_uid() -> int:
    """Return what `st_uid` is of this user's files."""
    return os.getuid()


def make_own_directory(directory: Path | str) -> None:
    """Create a directory, or check that it is this user's, and close it to all others.

    Raises:
        CallerError: it belongs to another user (reason `foreign-directory`).
        OSError: it cannot be created, or is a link.
    """
    Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if status.st_uid != os.getuid():
            raise CallerError(
                f"{directory} belongs to user {status.st_uid}; remove it, or set HPCC_DIR",
                reason="foreign-directory",
            )
        if status.st_mode & 0o077:
            os.fchmod(fd, 0o700)
    finally:
        os.close(fd)


def open_shared(path: Path | str) -> int:
    """Return a descriptor to read a file, also behind a link. A pipe or a device does not block."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)


def lock_now(descriptor: int, *, exclusive: bool = True) -> None:
    """Lock an open file without waiting. The lock ends when the descriptor or the process does.

    A lock does not prevent reads or writes. Two descriptors of one process count as two owners.

    Raises:
        BlockingIOError: another owner has the lock.
        OSError: it cannot be locked.
    """
    fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)


def sync_file(descriptor: int) -> None:
    """Make written data durable.

    Raises:
        OSError: it may not be durable.
    """
    os.fdatasync(descriptor)


def sync_directory(directory: Path) -> None:
    """Make created, changed and removed names durable.

    Raises:
        OSError: they may not be durable.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def access_of(descriptor: int) -> FileAccess:
    """Return the type, owner and access of an open file.

    Raises:
        OSError: the system cannot report them.
    """
    status = os.fstat(descriptor)
    return FileAccess(
        is_regular=stat.S_ISREG(status.st_mode),
        is_own=status.st_uid == os.geteuid(),
        is_private=not status.st_mode & 0o077,
    )


def privacy_remedy(path: Path) -> str:
    """Return how to close a file to others, as text after a colon."""
    del path
    return "chmod 600 it"
