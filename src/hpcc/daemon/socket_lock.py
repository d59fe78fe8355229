"""The daemon's socket on Linux: which process may bind and remove it.

Only the process that holds the lock of `daemon.lock` may bind the socket or remove it. The kernel
releases the lock when its holder dies, so that the next daemon can safely replace a socket that a
killed daemon left.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import threading
from pathlib import Path
from typing import Final

from hpcc.config.paths import Paths
from hpcc.core import CallerError
from hpcc.wire.address import daemon_socket

LOCK_NAME: Final = "daemon.lock"
# The kernel lowers it to its own limit. Launchers that find the queue full wait and try again.
_BACKLOG: Final = 4096


def socket_path(paths: Paths) -> str:
    """Return the path of the socket of this user's daemon."""
    return os.fsdecode(daemon_socket(os.fsencode(paths.run), os.getuid()))


def prepare_private_directory(directory: Path) -> None:
    """Make a directory with mode 0700, or check that only we can write to the existing one.

    Raises:
        CallerError: it belongs to another user, others can write to it, or it cannot be made
            (reason `run-dir`).
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise CallerError(f"cannot make {directory}: {error.strerror}", reason="run-dir") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise CallerError(
            f"{directory} must be a directory of yours that only you can write to; "
            "remove it, or set HPCC_DIR to another place",
            reason="run-dir",
        )


class SocketLock:
    """The lock that allows a process to bind the socket, with that socket; an `EndpointLock`."""

    def __init__(self, lock: int, listener: socket.socket, path: str) -> None:
        self._lock, self.listener, self.path = lock, listener, path
        self._id = _socket_id(path)
        self._guard = threading.Lock()

    @classmethod
    def open(cls, paths: Paths) -> SocketLock:
        """Take the lock and bind.

        Raises:
            CallerError: a daemon runs already (reason `already-running`), or the directory or
                path is not usable (reason `run-dir`).
        """
        path = socket_path(paths)
        prepare_private_directory(paths.run)
        prepare_private_directory(Path(path).parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(paths.run / LOCK_NAME, flags, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise CallerError("a daemon runs already", reason="already-running") from error
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _unlink(path)
            listener.bind(path)
            os.chmod(path, 0o600)
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            os.close(lock)
            raise CallerError(f"cannot listen on {path}: {error}", reason="run-dir") from error
        return cls(lock, listener, path)

    def is_reachable(self) -> bool:
        """Report whether the path still leads to this socket."""
        return self._id is not None and _socket_id(self.path) == self._id

    def close_copies(self) -> None:
        """Close the lock, but not the listener, in a forked process. The daemon keeps the lock."""
        os.close(self._lock)
        self._lock = -1

    def leave(self) -> None:
        """Remove the socket, then release the lock. May be called again."""
        with self._guard:
            if self._lock >= 0:
                # If a cleaner removed our socket, the path may be another daemon's now.
                if self.is_reachable():
                    _unlink(self.path)
                os.close(self._lock)
                self._lock = -1


def _socket_id(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
