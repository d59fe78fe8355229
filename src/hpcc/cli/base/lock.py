"""The lock that shows whether `hpcc up` is running, and in which process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpcc.config.paths import Paths
from hpcc.core import CallerError
from hpcc.files import lock_now, open_file


def lock_file(paths: Paths) -> Path:
    """Return the file that the supervisor of `hpcc up` keeps locked while it runs."""
    return paths.state / "up.lock"


@contextmanager
def held_lock(path: Path) -> Iterator[None]:
    """Hold the lock while the block runs; the file contains the pid.

    Raises:
        CallerError: another process holds it (reason `already-up`).
    """
    fd = open_file(path, os.O_RDWR | os.O_CREAT)
    try:
        try:
            lock_now(fd)
        except BlockingIOError as error:
            raise CallerError("hpcc is already up", reason="already-up") from error
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(fd)


def holder_or_none(path: Path) -> int | None:
    """Return the pid of the process that holds the lock, 0 if unreadable, None if it is free."""
    try:
        fd = open_file(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        lock_now(fd)
    except BlockingIOError:
        text = os.read(fd, 32).decode("ascii", "replace").strip()
        return int(text) if text.isdigit() else 0
    else:
        return None
    finally:
        os.close(fd)
