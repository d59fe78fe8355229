"""The named pipe as a `Listener`. Not yet run on Windows.

A thread serves a launcher from its request to its last answer, also while the launcher runs a
compiler: Windows has nothing like epoll for pipes, and a build has as many launchers as the
machine has processors. Every request goes to the front: a hit that is kept for launchers
(`cache.windows.kept_hits`) makes none.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections.abc import Callable
from typing import Final, Protocol

from hpcc.core import HpccError
from hpcc.daemon.accept_threads import AcceptThreads, Waits
from hpcc.daemon.transport import Connection, FrontLimits, Serve
from hpcc.ports import Clock
from hpcc.windows.library import WindowsError
from hpcc.wire import launcher as wire

_log: Final = logging.getLogger("hpcc.daemon.pipe")
# Each launcher holds a thread from its request to its end. The last one only answers `daemon-busy`.
PIPE_LIMITS: Final = FrontLimits(threads=256)
# The system discards an answer that was not read when its pipe closes. The reader gets this long.
_LINGER_SECONDS: Final = 2.0
# What a launcher sends for root and namespaces, which Windows does not have.
_NO_PLACE: Final = (0, 0)
_PAUSE_SECONDS: Final = 0.1


class SystemPipeEnd(Protocol):
    """One end of a pipe; see `hpcc.windows.pipes.LauncherPipe`."""

    def receive(self, size: int, wait_ms: int | None) -> bytes: ...
    def send(self, data: bytes, wait_ms: int) -> None: ...
    def client(self) -> str: ...
    def is_gone(self) -> bool: ...
    def cancel(self) -> None: ...
    def close(self) -> None: ...


class Pipe(Protocol):
    """A pipe's name and its clients; see `hpcc.windows.pipes.LauncherPipeListener`."""

    def accept(self) -> SystemPipeEnd | None: ...
    def close(self) -> None: ...


class LauncherPipe:
    """One end of a pipe. `daemon.transport.Connection` has the contract.

    `owner` is the user whose clients are served; a client's own end has none.
    """

    _numbers = itertools.count(1)

    def __init__(self, end: SystemPipeEnd, owner: str = "") -> None:
        self._end, self._owner = end, owner
        self.number = next(self._numbers)
        self.is_gone, self.cancel, self.close = end.is_gone, end.cancel, end.close

    def receive(self, size: int, timeout_seconds: float | None) -> bytes:
        """Read some bytes; see `Connection.receive`."""
        wait_ms = None if timeout_seconds is None else int(timeout_seconds * 1000)
        return self._end.receive(size, wait_ms)

    def send(self, data: bytes, timeout_seconds: float) -> None:
        """Send all of `data`; the timeout starts anew with each part that the peer reads."""
        self._end.send(data, int(timeout_seconds * 1000))

    def send_last(self, data: bytes, timeout_seconds: float) -> None:
        """Send all of `data`, and wait until the peer has read it and closed."""
        self.send(data, timeout_seconds)
        with contextlib.suppress(OSError):
            self.receive(1, _LINGER_SECONDS)

    def is_ours(self) -> bool:
        """Report whether the peer is the owner. The system knows it only after the first read."""
        try:
            return self._end.client() == self._owner
        except WindowsError as error:
            raise ConnectionResetError(f"the peer is unknown: {error}") from error


class LauncherPipeListener:
    """A named pipe. `daemon.transport.Listener` has the contract.

    `owner` is the user whose launchers are served. `directory_id` returns what a launcher must
    have seen as its working directory: drive letters belong to a session, so the same path may be
    another directory here.
    """

    is_windows = True

    def __init__(
        self,
        pipe: Pipe,
        *,
        owner: str,
        directory_id: Callable[[str], tuple[int, int]],
        clock: Clock,
        limits: FrontLimits = PIPE_LIMITS,
    ) -> None:
        self._pipe, self._owner, self._directory_id = pipe, owner, directory_id
        self.limits = limits
        self.helpers: list[int] = []
        self._serve: Serve
        self._threads = AcceptThreads(self._run, most=limits.threads, idle=limits.idle_threads)
        self._open: dict[int, LauncherPipe] = {}
        self.waits = Waits(
            self._send_wait,
            clock,
            tick_seconds=limits.tick_seconds,
            most_seconds=limits.begin_seconds,
        )

    def start(self, serve: Serve, count: Callable[[str], None]) -> None:
        """Begin to accept; see `Listener.start`."""
        del count  # the front counts what is refused on a pipe
        self._serve = serve
        self.waits.start()
        self._threads.start()

    def close(self) -> None:
        """Stop accepting. May be called again."""
        self._pipe.close()

    def end(self) -> None:
        """Stop sending WAIT."""
        self.waits.end()

    def park(self, connection: Connection, resume: Callable[[], None]) -> None:
        """Continue on this thread; see `Listener.park`."""
        del connection
        resume()

    def reason_not_ours(self, request: wire.LauncherRequest) -> str:
        """Return why the launcher's file names mean other files here, or ""."""
        if request.mount_id != _NO_PLACE or request.root_id != _NO_PLACE:
            return "other-mount-namespace"
        try:
            is_same = self._directory_id(request.cwd.decode()) == request.cwd_id
        except (HpccError, ValueError):
            is_same = False
        return "" if is_same else "other-directory"

    def _run(self) -> bool:
        while True:
            try:
                end = self._pipe.accept()
            except HpccError as error:
                _log.warning("accept: %s", error)  # too many handles: without a pause this spins
                threading.Event().wait(_PAUSE_SECONDS)
                continue
            if end is None:
                return False
            is_busy = self._threads.become_busy()
            self._serve_end(end, is_busy)
            if not self._threads.become_idle():
                return True

    def _serve_end(self, end: SystemPipeEnd, is_busy: bool) -> None:
        connection = LauncherPipe(end, self._owner)
        self._open[connection.number] = connection
        try:
            self._serve(connection, b"", is_busy)
        finally:
            del self._open[connection.number]

    def _send_wait(self, number: int) -> None:
        self._open[number].send(wire.WAIT_FRAME, 0)
