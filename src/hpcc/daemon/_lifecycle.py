"""The life of the daemon: one per user, found by its socket, gone without traces.

Who holds the lock of `daemon.lock` may bind the socket and remove it; the kernel gives the lock
back when its holder dies, so that a socket left by a killed daemon is safely replaced.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc import __version__
from hpcc.config import Paths
from hpcc.core import CallerError, InfrastructureError
from hpcc.daemon._api import CacheHandler, RemoteClient
from hpcc.daemon._front import Front, FrontLimits
from hpcc.daemon._helpers import Helpers
from hpcc.ports import Clock
from hpcc.wire import launcher as wire

_log: Final = logging.getLogger("hpcc.daemon")

LOCK_NAME: Final = "daemon.lock"
BACKOFF_NAME: Final = "backoff"
# As many as the kernel allows; launchers that find the queue full wait and try again.
_BACKLOG: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class LifecycleLimits:
    """Times of one daemon's life."""

    # Two builds of hpcc used side by side must not spend their time replacing each other's daemon.
    min_age_seconds: float = 10.0
    # A remote compile may take this long; whoever drains us has a new daemon already.
    drain_seconds: float = 900.0
    # `stop --now`: launchers compile by themselves once their connection is gone.
    stop_seconds: float = 5.0
    poll_seconds: float = 0.05
    # /tmp is swept on some machines: a daemon nobody can reach any more must not stay.
    check_seconds: float = 15.0


def socket_path(paths: Paths) -> str:
    """Return where the daemon of these paths listens."""
    return os.fsdecode(wire.daemon_socket(os.fsencode(paths.run), os.getuid()))


def prepare_private_directory(directory: Path) -> None:
    """Make the directory, 0700, or check that the one that is there is ours alone.

    Raises:
        CallerError: it is somebody else's, writable for others, or cannot be made.
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


class Door:
    """The locked right to a socket, and the socket."""

    def __init__(self, lock: int, listener: socket.socket, path: str) -> None:
        self._lock, self.listener, self.path = lock, listener, path
        self._id = _socket_id(path)
        self._guard = threading.Lock()

    @classmethod
    def open(cls, paths: Paths) -> Door:
        """Take the lock and bind.

        Raises:
            CallerError: a daemon runs already (reason `already-running`), or the place is not ours.
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
        """Whether the path still leads to this socket."""
        return self._id is not None and _socket_id(self.path) == self._id

    def close_copies(self) -> None:
        """Close the right, but not the listener, in a process that was forked off."""
        os.close(self._lock)
        self._lock = -1

    def leave(self) -> None:
        """Remove the socket, then give up the right to it. May be called again."""
        with self._guard:
            if self._lock >= 0:
                # Where the directory was swept, another daemon may have its own there.
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


class Daemon:
    """One running daemon: door, front, cache handler and remote side."""

    def __init__(
        self,
        door: Door,
        handler: CacheHandler,
        remote: RemoteClient | None,
        *,
        clock: Clock,
        build_id: str = wire.BUILD_ID,
        limits: LifecycleLimits | None = None,
        front_limits: FrontLimits | None = None,
        helpers: Helpers | None = None,
    ) -> None:
        self._door, self._handler, self._remote, self._clock = door, handler, remote, clock
        self._build_id, self._limits = build_id, limits or LifecycleLimits()
        self._helpers = helpers or Helpers({})
        self._started = clock.monotonic()
        self._stopping = threading.Event()
        self._hurry = threading.Event()
        self._front = Front(
            door.listener,
            handler,
            clock=clock,
            on_admin=self._on_admin,
            on_version=self._on_version,
            limits=front_limits,
            build_id=build_id,
        )

    def serve(self, on_ready: Callable[[], None]) -> None:
        """Serve until told to stop, then until nothing is under way; leaves nothing behind."""
        self._front.start()
        self._helpers.start(self._front.adopt, self._front.count_replayed)
        on_ready()
        try:
            while not self._stopping.wait(self._limits.check_seconds):
                if not self._door.is_reachable():
                    _log.warning("the socket is gone: ending")
                    break
            self._drain()
        finally:
            self._door.leave()
            self._front.close_door()
            self._helpers.close()
            self._handler.close()
            if self._remote is not None:
                self._remote.close()

    def stop(self, *, now: bool) -> None:
        """Ask `serve` to end; with `now` without waiting for what is under way."""
        if now:
            self._hurry.set()
        self._stopping.set()

    def _drain(self) -> None:
        self._stopping.set()
        self._door.leave()
        self._front.close_door()
        deadline = self._clock.monotonic() + self._limits.drain_seconds
        while any(self._front.in_flight()) and self._clock.monotonic() < deadline:
            if self._hurry.wait(self._limits.poll_seconds):
                break
        self._front.cancel()
        deadline = self._clock.monotonic() + self._limits.stop_seconds
        pause = threading.Event()
        while any(self._front.in_flight()) and self._clock.monotonic() < deadline:
            pause.wait(self._limits.poll_seconds)

    def _on_version(self) -> bool:
        if self._clock.monotonic() - self._started < self._limits.min_age_seconds:
            return False
        self._door.leave()  # before the answer: whoever gets it starts the next daemon
        self.stop(now=False)
        return True

    def _on_admin(self, body: bytes) -> bytes:
        match body:
            case b"status":
                answer = self._status()
            case b"stats":
                answer = self._stats()
            case b"stop" | b"stop-now":
                answer = {"pid": os.getpid()}
                self._door.leave()
                self.stop(now=body == b"stop-now")
            case _:
                raise CallerError("unknown question to the daemon", reason="malformed-frame")
        return json.dumps(answer).encode()

    def _status(self) -> dict[str, object]:
        waiting, running = self._front.in_flight()
        farm = self._farm()
        return {
            "pid": os.getpid(),
            "socket": self._door.path,
            "version": __version__,
            "build_id": self._build_id,
            "engine": self._handler.replays.engine.name,
            "helpers": self._helpers.pids,
            "uptime_seconds": self._clock.monotonic() - self._started,
            "waiting": waiting,
            "running": running,
            "is_stopping": self._stopping.is_set(),
            "farm": farm,
        }

    def _farm(self) -> dict[str, str] | None:
        try:
            farm = self._remote.farm() if self._remote is not None else None
        except (CallerError, InfrastructureError) as error:
            return {"error": str(error)}
        if farm is None:
            return None
        # Never the secret.
        return {
            "scheduler": farm.scheduler,
            "tenant": farm.tenant,
            "image": farm.image,
            "isolation": farm.isolation,
        }

    def _stats(self) -> dict[str, object]:
        return {
            "counters": self._handler.counters(),
            "front": self._front.snapshot(),
            "pid": os.getpid(),
            "uptime_seconds": self._clock.monotonic() - self._started,
        }
