"""The Unix socket as a `Listener`, with what exists only on Unix: replays and hit processes.

`accept` answers requests seen before and passes all others here as a `UnixConnection`. Launchers
that run a compiler hold no thread: an epoll set watches them. A hit process runs `serve_replays`.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import threading
from collections.abc import Callable
from typing import Final

from hpcc.cache.replay.replay import Replay, Replays
from hpcc.daemon.accept import Acceptor
from hpcc.daemon.accept_threads import Waits
from hpcc.daemon.hit_processes import Helpers
from hpcc.daemon.transport import Connection, FrontLimits, Serve
from hpcc.daemon.unix_connection import UnixConnection
from hpcc.ports import Clock, SystemClock
from hpcc.wire import launcher as wire

_FINISHERS: Final = 4
_MOUNT_NAMESPACE: Final = "/proc/self/ns/mnt"
_MOUNT_ID: Final = re.compile(rb"^mnt_id:\t(\d+)$", re.MULTILINE)
# A replay takes far less than this (2 s), unless its file system hangs.
_STOP_POLLS: Final = 100
_STOP_POLL_SECONDS: Final = 0.02


class UnixListener:
    """A listening Unix socket. `daemon.transport.Listener` has the contract."""

    is_windows = False

    def __init__(
        self,
        listener: socket.socket,
        replays: Replays,
        *,
        clock: Clock,
        limits: FrontLimits | None = None,
        helpers: Helpers | None = None,
    ) -> None:
        self.limits = limits or FrontLimits()
        self._replays, self._helpers = replays, helpers or Helpers({})
        self._root_id, self._mount_ids = _stat_id(b"/"), _mount_ids()
        self._gid = os.getegid()
        self._serve: Serve
        self._count: Callable[[str], None]
        self._lock = threading.Lock()
        self._parked: dict[int, Callable[[], None]] = {}
        self._epoll = select.epoll()
        self._acceptor = Acceptor(
            listener,
            replays,
            clock=clock,
            limits=self.limits,
        )

    @property
    def waits(self) -> Waits:
        """Return the launchers that wait for an answer, replays among them."""
        return self._acceptor.waits

    @property
    def helpers(self) -> list[int]:
        """Return the pids of the hit processes."""
        return self._helpers.pids

    def start(self, serve: Serve, count: Callable[[str], None]) -> None:
        """Begin to accept; see `Listener.start`."""
        self._serve, self._count = serve, count
        for _ in range(_FINISHERS):
            threading.Thread(target=self._resume_all, name="hpcc-finish", daemon=True).start()
        self._acceptor.start(self._serve_socket, count)
        self._helpers.start(self._adopt, self._count_replayed)

    def close(self) -> None:
        """Stop accepting. May be called again."""
        self._acceptor.close()

    def end(self) -> None:
        """End the hit processes and stop sending WAIT."""
        self._helpers.close()
        self.waits.end()

    def park(self, connection: Connection, resume: Callable[[], None]) -> None:
        """Watch a connection without a thread; see `Listener.park`."""
        with self._lock:
            self._parked[connection.number] = resume
        try:
            self._epoll.register(connection.number, select.EPOLLIN | select.EPOLLONESHOT)
        except BaseException:
            with self._lock:
                self._parked.pop(connection.number, None)
            raise

    def reason_not_ours(self, request: wire.LauncherRequest) -> str:
        """Return why a file that we read or write is not what the launcher's would be, or ""."""
        # Files that we make have our group: another one could read, or write, the user's object.
        if request.gid != self._gid:
            return "other-group"
        if request.mount_id not in self._mount_ids or request.root_id != self._root_id:
            return "other-mount-namespace"
        try:
            if _stat_id(request.cwd) != request.cwd_id:
                return "other-directory"
        except OSError:
            return "other-directory"
        return ""

    def _serve_socket(self, connection: socket.socket, data: bytes, is_busy: bool) -> None:
        self._serve(UnixConnection(connection), data, is_busy)

    def _resume_all(self) -> None:
        """Wait for reports and serve each on this thread: a hand-over would cost a wake-up."""
        while True:
            for number, _ in self._epoll.poll(maxevents=1):
                with self._lock:
                    resume = self._parked.pop(number, None)
                if resume is not None:
                    resume()  # it closes the descriptor, which removes it from the set

    def _adopt(
        self, connection: socket.socket, data: bytes, done: Callable[[Replay | None], None]
    ) -> None:
        """Serve a connection that a hit process gave away; `done` gets its replay, if any."""
        key, _ = wire.split_request(data)
        self._acceptor.adopt(connection, data, lambda: done(self._replays.find(key)))

    def _count_replayed(self) -> None:
        self._count("requests")
        self._count("replayed")


def serve_replays(
    listener: socket.socket, replays: Replays, give_away: Callable[[socket.socket, bytes], None]
) -> Callable[[], None]:
    """Start the accepting half of a listener in a hit process; return what stops it.

    `give_away` gets each connection that no replay answers, with the bytes read so far.
    """
    acceptor = Acceptor(listener, replays, clock=SystemClock(), limits=FrontLimits())
    acceptor.start(
        lambda connection, data, _is_busy: give_away(connection, data), lambda _name: None
    )

    def stop() -> None:
        acceptor.close()
        pause = threading.Event()
        for _ in range(_STOP_POLLS):
            if not acceptor.waits.count():
                return
            pause.wait(_STOP_POLL_SECONDS)

    return stop


def _stat_id(path: bytes | str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _mount_ids() -> frozenset[tuple[int, int]]:
    """Return what a launcher of our mount namespace may send; see `put_places` in launcher/hpcc.c.

    That is the id of the mount at `/`, or device and inode of the namespace where the launcher's
    kernel does not report the former. Without /proc the set is empty and no launcher matches.
    """
    found = []
    with contextlib.suppress(OSError):
        found.append(_stat_id(_MOUNT_NAMESPACE))
    with contextlib.suppress(OSError):
        # This mount exists as long as the daemon, so that no other mount gets its id.
        root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        try:
            with open(f"/proc/self/fdinfo/{root}", "rb") as file:
                match = _MOUNT_ID.search(file.read())
        finally:
            os.close(root)
        if match is not None:
            found.append((wire.MOUNT_IS_ID, int(match[1])))
    return frozenset(found)
