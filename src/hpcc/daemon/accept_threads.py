"""What both transports share: the number of accepting threads, and WAIT for slow answers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hpcc.ports import Clock


class AcceptThreads:
    """The threads that accept, and their number. Thread-safe.

    `run` accepts and serves until the listener closes or `become_idle` returns False. It returns
    True in the second case.
    """

    def __init__(self, run: Callable[[], bool], *, most: int, idle: int) -> None:
        self._run, self._most, self._wanted_idle = run, most, idle
        self._lock = threading.Lock()
        self._threads = self._idle = 0

    def start(self) -> None:
        """Start as many threads as should wait in accept()."""
        with self._lock:
            for _ in range(self._wanted_idle):
                self._add()

    def become_busy(self) -> bool:
        """Leave accept(); True if no thread is left there and the caller must not block."""
        with self._lock:
            self._idle -= 1
            if self._idle:
                return False
            if self._threads >= self._most:
                return True
            self._add()
            return False

    def become_idle(self) -> bool:
        """Go back to accept(); False if enough threads are there and the caller must end."""
        with self._lock:
            if self._idle >= 2 * self._wanted_idle:
                self._threads -= 1
                return False
            self._idle += 1
            return True

    def run_apart(self, serve: Callable[[bool], None]) -> None:
        """Run `serve` on a new thread that counts; its argument is whether it must not block."""
        with self._lock:
            is_busy = self._threads >= self._most
            self._threads += 1

        def run() -> None:
            try:
                serve(is_busy)
            finally:
                with self._lock:
                    self._threads -= 1

        threading.Thread(target=run, name="hpcc-adopted", daemon=True).start()

    def _add(self) -> None:
        self._threads += 1
        self._idle += 1
        threading.Thread(target=self._accept, name="hpcc-front", daemon=True).start()

    def _accept(self) -> None:
        if not self._run():
            with self._lock:
                self._idle -= 1
                self._threads -= 1


class Waits:
    """Launchers that wait for an answer; each gets WAIT once per tick. Thread-safe.

    `since` maps the number of a connection to the time from which its launcher waits. `lock`
    guards it and is held while WAIT is sent, so that WAIT never lands inside an answer: an entry
    is removed before its answer is sent. The hit path uses both without a call in between.

    `send` sends WAIT to one connection without blocking. It may raise OSError.
    """

    def __init__(
        self, send: Callable[[int], None], clock: Clock, *, tick_seconds: float, most_seconds: float
    ) -> None:
        self._send, self._clock = send, clock
        self._tick_seconds, self._most_seconds = tick_seconds, most_seconds
        self._has_ended = threading.Event()
        self.lock = threading.Lock()
        self.since: dict[int, float] = {}

    def start(self) -> None:
        """Begin to send, on a thread of this object."""
        threading.Thread(target=self._watch, name="hpcc-watch", daemon=True).start()

    def end(self) -> None:
        """Stop sending."""
        self._has_ended.set()

    @contextmanager
    def waiting(self, number: int) -> Iterator[None]:
        """Send WAIT to this connection while the block runs."""
        with self.lock:
            self.since[number] = self._clock.monotonic()
        try:
            yield
        finally:
            with self.lock:
                del self.since[number]

    def count(self) -> int:
        """Return how many launchers wait."""
        return len(self.since)

    def _watch(self) -> None:
        while not self._has_ended.wait(self._tick_seconds):
            if self.since:
                self._send_all()

    def _send_all(self) -> None:
        now = self._clock.monotonic()
        with self.lock:
            for number, started in self.since.items():
                # No WAIT for a young request (often a hit) or one older than any compile may be.
                if self._tick_seconds / 2 <= now - started <= self._most_seconds:
                    # Gone or not reading: the thread that answers will notice.
                    with contextlib.suppress(OSError):
                        self._send(number)
