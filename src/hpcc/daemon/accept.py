"""Accepting launchers: threads that replay known requests and give every other one away.

Threads block in accept() and each serves a connection from request to answer, so that a hit costs
no hand-over. Used by the daemon and by its helper processes.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from hpcc.cache.replay.engine import Outcome
from hpcc.cache.replay.replay import Replay, Replays
from hpcc.daemon.front_io import send_frame
from hpcc.ports import Clock
from hpcc.wire import launcher as wire

_log: Final = logging.getLogger("hpcc.daemon.accept")
_ANSWERED: Final = frozenset({Outcome.DONE, Outcome.UNSENT})
_PAUSE_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptLimits:
    """What the accepting side of one process allows itself."""

    # A thread is needed only while a request is worked at; hits need one or two at any core count.
    threads: int = 64
    idle_threads: int = 4
    receive_seconds: float = 10.0
    # The launcher gives up after 2 s, then 10 s, of silence.
    tick_seconds: float = 0.5
    # Longer than any remote compile may take: then WAIT stops and the launcher helps itself.
    begin_seconds: float = 900.0


class Acceptor:
    """Serves one listening socket until it is closed. Thread-safe.

    `on_other` gets a connection with the bytes read so far, and whether nobody else is left to
    accept, so that it must not block; the connection is then its own.
    """

    def __init__(
        self,
        listener: socket.socket,
        replays: Replays,
        *,
        clock: Clock,
        limits: AcceptLimits,
        on_other: Callable[[socket.socket, bytes, bool], None],
        count: Callable[[str], None],
    ) -> None:
        self._listener, self._replays, self._clock = listener, replays, clock
        self._limits, self._on_other, self._count = limits, on_other, count
        self._uid = os.getuid()
        self._lock = threading.Lock()
        self._threads = self._idle = 0
        self._is_closed = False
        # Since when a launcher waits, by descriptor, which is open until it is taken out.
        self._waiting: dict[int, float] = {}

    # ---- life ----

    def start(self) -> None:
        """Begin to serve, on threads of its own."""
        with self._lock:
            for _ in range(self._limits.idle_threads):
                self._add_thread()

    def close(self) -> None:
        """Accept nobody any more; what is under way goes on."""
        self._is_closed = True
        with contextlib.suppress(OSError):  # it is closed already
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the threads in accept()
        self._listener.close()

    def adopt(self, connection: socket.socket, data: bytes, done: Callable[[], None]) -> None:
        """Serve a connection that somebody else accepted, then call `done`."""
        with self._lock:
            is_busy = self._threads >= self._limits.threads
            self._threads += 1

        def serve() -> None:
            try:
                self._serve(number, data, is_busy)
                done()
            finally:
                with self._lock:
                    self._threads -= 1

        number = connection.detach()
        threading.Thread(target=serve, name="hpcc-adopted", daemon=True).start()

    # ---- who waits ----

    @contextmanager
    def waiting(self, connection: socket.socket) -> Iterator[None]:
        """Let the launcher be told that we live, inside the block."""
        number = connection.fileno()
        with self._lock:
            self._waiting[number] = self._clock.monotonic()
        try:
            yield
        finally:
            # Under the lock, as WAIT is sent: it never lands inside an answer.
            with self._lock:
                del self._waiting[number]

    def waiting_count(self) -> int:
        return len(self._waiting)

    def send_waits(self) -> None:
        """Tell launchers that we live. Short frames, never blocking."""
        now, limits = self._clock.monotonic(), self._limits
        with self._lock:
            for number, started in self._waiting.items():
                age = now - started
                # Each tick, but for what is young (a hit in the making) or older than can be.
                if limits.tick_seconds / 2 <= age <= limits.begin_seconds:
                    connection = _connection_of(number)
                    # Gone, or not reading: whoever answers finds out.
                    with contextlib.suppress(OSError):
                        connection.send(wire.WAIT_FRAME, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                    connection.detach()

    # ---- threads ----

    def _add_thread(self) -> None:
        self._threads += 1
        self._idle += 1
        threading.Thread(target=self._run, name="hpcc-front", daemon=True).start()

    def _run(self) -> None:
        is_surplus = False
        # Closed before we came: no dup, no work.
        with contextlib.suppress(OSError), self._listener.dup() as own:
            # The thread's own, so that the number in its hands stays this socket's.
            is_surplus = self._run_on(self._replays.engine.receiver(own, self._uid))
        if not is_surplus:
            with self._lock:
                self._idle -= 1
                self._threads -= 1

    def _run_on(self, receive: Callable[[], tuple[int, bytes]]) -> bool:
        """Serve until the door closes; true if the thread ends because there are enough."""
        while not self._has_closed():
            try:
                number, data = receive()
            except OSError as error:
                if error.errno == errno.EINVAL:
                    break  # shut down, by us or by the process we help
                self._note_refusal(error)
                continue
            is_busy = self._become_busy()
            self._serve(number, data, is_busy)
            if not self._become_idle():
                return True
        return False

    def _has_closed(self) -> bool:
        return self._is_closed

    def _note_refusal(self, error: OSError) -> None:
        if isinstance(error, PermissionError):
            self._count("refused.foreign-user")
        elif not self._has_closed():
            # EMFILE and its like: without a pause this would spin.
            _log.warning("accept: %s", error)
            threading.Event().wait(_PAUSE_SECONDS)

    def _become_busy(self) -> bool:
        """Leave accept(); true if nobody else is there and the caller must not block."""
        with self._lock:
            self._idle -= 1
            if self._idle:
                return False
            if self._threads >= self._limits.threads:
                return True
            self._add_thread()
            return False

    def _become_idle(self) -> bool:
        """Go back to accept(); false if enough are there, and the caller ends."""
        with self._lock:
            if self._idle >= 2 * self._limits.idle_threads:
                self._threads -= 1
                return False
            self._idle += 1
            return True

    # ---- one connection ----

    def _serve(self, number: int, data: bytes, is_busy: bool) -> None:
        """Answer on a descriptor, or give it away; it is not ours any more then."""
        try:
            replay = self._replays.find(data)
            if replay is not None and self._replay(number, replay):
                return
        except Exception:  # noqa: BLE001 - a thread's root: logged, and the long way may still work
            _log.exception("a replay failed")
        self._on_other(_connection_of(number), data, is_busy)

    def _replay(self, number: int, replay: Replay) -> bool:
        """Answer as last time; false if that does not hold any more, and nothing is answered.

        A hit needs no socket object: two more calls and as much Python as the rest of this.
        """
        now = self._clock.monotonic()
        if now >= replay.renew_at:
            return False
        with self._lock:
            self._waiting[number] = now
        try:
            outcome = self._replays.engine.replay(replay.prepared, number)
        finally:
            # As in `waiting`. The engine sends an answer in one piece, or none.
            with self._lock:
                del self._waiting[number]
        if outcome not in _ANSWERED:
            return False
        self._note(replay, outcome)
        if replay.is_answered_apart and outcome == Outcome.DONE:
            self._answer_apart(number, replay.answer)
        else:
            os.close(number)
        return True

    def _answer_apart(self, number: int, answer: bytes) -> None:
        with contextlib.suppress(OSError), _connection_of(number) as connection:
            # It may be gone, and has its files.
            send_frame(connection, answer, self._limits.receive_seconds)

    def _note(self, replay: Replay, outcome: int) -> None:
        if outcome == Outcome.UNSENT:
            self._count("lost.launcher")
            return
        self._count("requests")
        self._count("replayed")
        try:
            replay.on_hit()
        except Exception:  # noqa: BLE001 - the answer is given; only its note is lost
            _log.exception("a replayed hit could not be noted")


def _connection_of(number: int) -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=number)
