"""Gives compiles their places at workers, in the order of arrival."""

from __future__ import annotations

import asyncio
from collections import deque

from hpcc.dispatch.routes import OPENING_SECONDS, Lane, RouteBook
from hpcc.ports import Clock

type Place = asyncio.Future[Lane | None]


class LaneQueue:
    """Compiles that wait until one of the workers has room."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: deque[Place] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def wanted(self, book: RouteBook) -> int:
        """How many compiles could be under way now."""
        return book.in_flight + len(self._waiting)

    def is_short(self, book: RouteBook) -> bool:
        """Whether compiles wait, here or at a worker, because all workers are full."""
        return self.wanted(book) > book.limits

    def join(self, book: RouteBook) -> Place:
        """Take a place, or wait for one; `wait` has to follow."""
        place: Place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self.wake(book)
        return place

    def retry(self, book: RouteBook) -> Lane | None:
        """Take a place for a compile that failed elsewhere; None if no worker has shown to live."""
        now = self._clock.monotonic()
        lane = book.proven(now)
        if lane is not None:
            lane.enter(now)
        return lane

    async def wait(self, book: RouteBook, place: Place) -> Lane | None:
        """Wait for the place; None if there is no route any more, so that one must be asked for."""
        try:
            return await place
        except asyncio.CancelledError:
            if not place.done():
                self._waiting.remove(place)
            elif not place.cancelled() and (lane := place.result()) is not None:
                self.leave(book, lane)
            raise

    def leave(self, book: RouteBook, lane: Lane) -> None:
        """Give a place back."""
        book.leave(lane)
        self.wake(book)

    def wake(self, book: RouteBook) -> None:
        """Give free places to those who wait; call it whenever there may be more room."""
        while self._waiting:
            now = self._clock.monotonic()
            lane = book.choose(now, len(self._waiting))
            if lane is None and book.lanes:
                if book.opens(now) and self._timer is None:
                    loop = asyncio.get_running_loop()
                    self._timer = loop.call_later(OPENING_SECONDS, self._wake_late, book)
                return
            place = self._waiting.popleft()
            if place.done():
                continue
            if lane is not None:
                lane.enter(now)
            place.set_result(lane)

    def _wake_late(self, book: RouteBook) -> None:
        """Hold back no compile any more for a worker that is slow to open."""
        self._timer = None
        self.wake(book)
