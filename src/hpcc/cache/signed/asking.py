"""Who asks the remote cache, and how often: one request per name at a time, and not again at once.

Compiles of one name wait for the first of them. An answer, also "absent", is remembered for a short
time, and a breaker stops all requests while the service does not work.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hpcc.core.breaker import CircuitBreaker
from hpcc.core.memo import LruMemo

_MAX_REMEMBERED: Final = 65_536
# One of these is enough: the next caller would wait as long, or get the same refusal.
_AT_ONCE: Final = frozenset({"store-timeout", "store-denied", "store-config"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingLimits:
    """How long an answer is remembered, and when the breaker opens for how long."""

    # A colleague's CI needs longer for a build; a person who compiles again does not wait again.
    again_seconds: float = 60.0
    # For the answer to another caller's request, which has its own time limit.
    wait_seconds: float = 10.0
    failures: int = 3
    open_seconds: float = 30.0


class Turn(enum.Enum):
    """What a caller does next."""

    ASK = enum.auto()
    # An answer is remembered, and the next one would be the same.
    KNOWN = enum.auto()
    # Another caller asked meanwhile: look again.
    WAITED = enum.auto()


class Asking:
    """Decides which requests are sent. Thread-safe."""

    def __init__(self, limits: AskingLimits, monotonic: Callable[[], float]) -> None:
        self._limits, self._monotonic = limits, monotonic
        self._lock = threading.Lock()
        self._asked: LruMemo[object, float] = LruMemo(_MAX_REMEMBERED)
        self._running: dict[object, threading.Event] = {}
        self._breaker = CircuitBreaker(
            failures=limits.failures, open_seconds=limits.open_seconds, tries_one=True
        )

    def begin(self, what: object) -> Turn:
        """Return whether to ask; after `Turn.ASK` the caller owes one call of `end`.

        While another caller asks the same, this waits for it.
        """
        with self._lock:
            running = self._running.get(what)
            if running is None:
                asked, now = self._asked.get(what), self._monotonic()
                if asked is not None and now - asked < self._limits.again_seconds:
                    return Turn.KNOWN
                self._running[what] = threading.Event()
                return Turn.ASK
        running.wait(self._limits.wait_seconds)
        return Turn.WAITED

    def end(self, what: object, *, is_answered: bool) -> None:
        """Wake those who wait; an answer is remembered."""
        with self._lock:
            if is_answered:
                self._asked[what] = self._monotonic()
            event = self._running.pop(what, None)
        if event is not None:
            event.set()

    def admits(self) -> bool:
        """Return whether the service may be called; then the caller owes `worked` or `failed`."""
        with self._lock:
            return self._breaker.admits(self._monotonic())

    def worked(self) -> None:
        """Note that the service answered."""
        with self._lock:
            self._breaker.succeeded(self._monotonic())

    def failed(self, reason: str) -> bool:
        """Note that it did not; return whether calls stop from now on."""
        with self._lock:
            return self._breaker.failed(self._monotonic(), at_once=reason in _AT_ONCE)
