"""The calls of POSIX; `hpcc.files.on_windows` has the same functions."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from hpcc.files.access import FileAccess

# Opening a pipe or a device must not hold us up.
NONBLOCK: Final = os.O_NONBLOCK


def open_file(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a file by `flags` of `os.open`; a link is not followed, no child inherits it.

    Raises:
        OSError: as `os.open` does; ELOOP: it is a link.
    """
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode)


def lock_now(descriptor: int, *, exclusive: bool = True) -> None:
    """Lock an open file now or not at all; closing the descriptor ends it, and so does our end.

    A lock keeps nobody from reading or writing; two descriptors of one process are as of two.

    Raises:
        BlockingIOError: another has it.
        OSError: it cannot be locked.
    """
    fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)


def sync_file(descriptor: int) -> None:
    """Make what was written durable.

    Raises:
        OSError: it is not.
    """
    os.fdatasync(descriptor)


def sync_directory(directory: Path) -> None:
    """Make names durable that were made, changed or removed.

    Raises:
        OSError: they are not.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def access_of(descriptor: int) -> FileAccess:
    """Return what an open file is.

    Raises:
        OSError: the system does not tell.
    """
    status = os.fstat(descriptor)
    return FileAccess(
        is_regular=stat.S_ISREG(status.st_mode),
        is_own=status.st_uid == os.geteuid(),
        is_private=not status.st_mode & 0o077,
    )


def privacy_remedy(path: Path) -> str:
    """Return what closes a file to others, as words that follow a colon."""
    del path
    return "chmod 600 it"
