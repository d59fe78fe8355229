"""Deduplicates local compiles: one at a time per request key.

The others wait and look up again. If the compile left no result, one of them compiles. Requests of
one content key, such as one source in two targets, wait once for the first of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from hpcc.cache.base.counters import Counters

_POLL_SECONDS: Final = 0.1


class Flight:
    """The right to compile some keys; compared by identity, so that a late release is ignored."""

    __slots__ = ("keys",)

    def __init__(self, key: bytes) -> None:
        self.keys = [key]


class Inflight:
    """The keys that are being compiled. A waiter gets no result: it looks up again."""

    def __init__(self, *, wait_seconds: float) -> None:
        self._wait_seconds = wait_seconds
        self._condition = threading.Condition()
        self._flights: dict[bytes, Flight] = {}

    def lead(self, key: bytes) -> Flight | None:
        """Take the key; None if another request is compiling it."""
        with self._condition:
            if key in self._flights:
                return None
            flight = Flight(key)
            self._flights[key] = flight
            return flight

    def waits(
        self,
        flight: Flight | None,
        is_cancelled: Callable[[], bool],
        counters: Counters,
        key: bytes,
    ) -> bool:
        """Take a content key, too; else wait for the request that has it, and return True.

        Who has a content key does not wait, and the others wait once. So no two requests wait for
        each other, and a result that the others cannot use costs them the time of one compile.
        """
        with self._condition:
            if flight is None:
                return False
            if key not in self._flights:
                self._flights[key] = flight
                flight.keys.append(key)
                return False
        counters.add("dedup.waited")
        self.wait(key, is_cancelled)
        return True

    def wait(self, key: bytes, is_cancelled: Callable[[], bool]) -> bool:
        """Wait until the key is free; False on a cancel or after `wait_seconds`."""
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
        """Free the keys and wake the waiters; idempotent."""
        if flight is None:
            return
        with self._condition:
            for key in flight.keys:
                if self._flights.get(key) is flight:
                    del self._flights[key]
            self._condition.notify_all()
