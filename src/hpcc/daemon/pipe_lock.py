"""The daemon's pipe on Windows: the right to it, its name, and how a command connects.

Only the process that has `daemon.lock` open may make the pipe; the system closes the lock when its
holder ends. While an older daemon still drains connections under the same name, the new one joins
the existing pipe. Not yet run on Windows.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

from hpcc.config.paths import DIR_VARIABLE, Paths
from hpcc.core import CallerError
from hpcc.windows.files import WindowsLock
from hpcc.windows.library import Library, WindowsError
from hpcc.windows.pipes import PipeConnection, PipeListener, dial_pipe
from hpcc.windows.users import own_sid
from hpcc.wire.pipe import daemon_pipe, pipe_sddl

_LOCK_NAME: Final = "daemon.lock"
_DIAL_MS: Final = 2000


def dial_daemon(library: Library) -> PipeConnection:
    """Connect to this user's daemon.

    Raises:
        NotFoundError: no daemon is running (reason `no-daemon`).
        CallerError: the pipe is another user's (reason `foreign-daemon`).
        InfrastructureError: it is busy (reason `daemon-busy`), or cannot be reached.
    """
    owner = own_sid(library)
    name = daemon_pipe(owner, os.environ.get(DIR_VARIABLE, ""))
    return dial_pipe(library, name, owner, _DIAL_MS)


def prepare_directory(directory: Path) -> None:
    """Make a directory in the user's profile; it inherits the profile's access rights.

    Raises:
        CallerError: it cannot be made (reason `run-dir`).
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CallerError(f"cannot make {directory}: {error.strerror}", reason="run-dir") from error


class PipeLock:
    """The lock that allows a process to make the pipe, and the pipe; an `EndpointLock`."""

    def __init__(self, lock: WindowsLock, listener: PipeListener, name: str, owner: str) -> None:
        self._lock, self.listener = lock, listener
        self.path, self.owner = name, owner
        self._guard = threading.Lock()

    @classmethod
    def open(cls, library: Library, paths: Paths, hpcc_dir: str) -> PipeLock:
        """Take the lock and make the pipe.

        Raises:
            CallerError: a daemon runs already (reason `already-running`), another user has the
                pipe (`pipe-taken`), or the directory cannot be made (`run-dir`).
            WindowsError: a call failed.
        """
        prepare_directory(paths.run)
        owner = own_sid(library)
        lock = WindowsLock.take(library, str(paths.run / _LOCK_NAME))
        try:
            name = daemon_pipe(owner, hpcc_dir)
            listener = PipeListener.open(library, name, pipe_sddl(owner), owner)
        except (CallerError, WindowsError):
            lock.release()
            raise
        return cls(lock, listener, name, owner)

    def is_reachable(self) -> bool:
        """Return True: no other process can take the name while this one has it."""
        return True

    def leave(self) -> None:
        """Stop accepting, then release the lock. May be called again."""
        with self._guard:
            self.listener.close()
            self._lock.release()
