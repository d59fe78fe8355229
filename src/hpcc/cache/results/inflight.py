"""One compile at a time per request key; the others wait, look again, and take over if it died."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

_POLL_SECONDS: Final = 0.1


class Flight:
    """The right to compile one key. `generation` guards against a late release."""

    __slots__ = ("key",)

    def __init__(self, key: bytes) -> None:
        self.key = key


class Inflight:
    """Keys being compiled. A waiter is only ever told to look again, never handed a result."""

    def __init__(self, *, wait_seconds: float) -> None:
        self._wait_seconds = wait_seconds
        self._condition = threading.Condition()
        self._flights: dict[bytes, Flight] = {}

    def lead(self, key: bytes) -> Flight | None:
        """Take the key; None when somebody else has it."""
        with self._condition:
            if key in self._flights:
                return None
            flight = Flight(key)
            self._flights[key] = flight
            return flight

    def wait(self, key: bytes, is_cancelled: Callable[[], bool]) -> bool:
        """Wait until the key is free; False on a cancel or when the wait became too long."""
        polls = max(1, int(self._wait_seconds / _POLL_SECONDS))
        with self._condition:
            for _ in range(polls):
                if key not in self._flights:
                    return True
                if is_cancelled():
                    return False
                self._condition.wait(_POLL_SECONDS)
            return key not in self._flights

    def release(self, flight: Flight | None) -> None:
        """Give the key back and wake the waiters; idempotent."""
        if flight is None:
            return
        with self._condition:
            if self._flights.get(flight.key) is flight:
                del self._flights[flight.key]
                self._condition.notify_all()
