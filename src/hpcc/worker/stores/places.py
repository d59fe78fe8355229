"""Places for compiles at once, given in the order of arrival."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import Final

from hpcc.core import InfrastructureError
from hpcc.rpc.base.errors import BusyError

# Compiles that wait for one kind of place; each holds its action in memory.
MAX_WAITING: Final = 256
_RETRY_SECONDS: Final = 5.0


class PlaceQueue(ABC):
    """Decides without awaiting; only `enter` waits. A subclass says how many there are."""

    def __init__(self) -> None:
        self.running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    @abstractmethod
    def limit(self) -> int | None:
        """How many compiles may run at once; None for any number."""

    @property
    def waiting(self) -> int:
        """How many compiles wait for a place."""
        return sum(not place.done() for place in self._waiting)

    @abstractmethod
    def must_wait(self) -> None:
        """Note that a compile has to wait."""

    async def enter(self) -> None:
        """Wait for a place, in the order of arrival.

        Raises:
            BusyError: too many wait already.
            InfrastructureError: the worker takes no compiles any more.
        """
        if self._has_room() and not self._waiting:
            self.running += 1
            return
        if len(self._waiting) >= MAX_WAITING:
            raise BusyError(
                "too many compiles of the tenant wait here",
                retry_after_seconds=_RETRY_SECONDS,
                reason="quota-execs",
            )
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self.must_wait()
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled() or not place.done():
                # A waiter that left must neither count nor delay later ones.
                self._waiting.remove(place)
            elif place.exception() is None:
                self.leave()  # the place was granted at the same moment
            raise

    def leave(self) -> None:
        self.running -= 1
        self.wake()

    def refuse(self) -> None:
        """End all waits, because the worker takes no compiles."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_exception(closed())

    def wake(self) -> None:
        """Grant free places to waiters."""
        while self._waiting and (self._waiting[0].done() or self._has_room()):
            place = self._waiting.popleft()
            if not place.done():
                self.running += 1
                place.set_result(None)

    def _has_room(self) -> bool:
        limit = self.limit
        return limit is None or self.running < limit


def closed() -> InfrastructureError:
    """Return the error of compiles that a draining worker does not take; they go elsewhere."""
    return InfrastructureError("the worker takes no compiles", reason="draining")
