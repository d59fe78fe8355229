"""A lock that a process takes only if no other holds it. It ends with its holder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def tried_lock(path: Path) -> Iterator[bool]:
    """Yield whether this call holds the lock of that file, which it makes; its directory exists.

    Raises:
        OSError: the file cannot be opened, or is a link.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)
