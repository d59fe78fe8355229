"""Gives compiles their places at workers, in the order of arrival, and asks for more workers."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from hpcc.core import RunHere
from hpcc.dispatch.calls import ended
from hpcc.dispatch.local_slots import PATIENCE_SECONDS, Chance, Overflow, Place, RunHereError
from hpcc.dispatch.routes import OPENING_SECONDS, Lane, RouteBook
from hpcc.ports import Clock

# Pauses between two requests for more routes; each one that brought nothing doubles the pause.
_MORE_SECONDS: Final = 1.0
_MAX_MORE_SECONDS: Final = 8.0
# The compiles of a build begin within this time of each other, and are counted together.
_GATHER_SECONDS: Final = 0.05
# Daemons that hear of a new worker at the same moment ask within this time.
_JITTER_SECONDS: Final = 0.5


class LaneQueue:
    """Compiles that wait until one of the workers has room, or until this machine has."""

    def __init__(self, clock: Clock, is_asking: Callable[[], bool] = lambda: False) -> None:
        """`is_asking` tells whether a request for more routes is pending."""
        self._clock = clock
        self._waiting: deque[Place] = deque()
        self._overflow = Overflow(clock, is_asking)
        self._timer: asyncio.TimerHandle | None = None
        self._overflow_timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many compiles wait for a place."""
        return len(self._waiting)

    def wanted(self, book: RouteBook) -> int:
        """How many compiles could be under way now."""
        return book.in_flight + len(self._waiting)

    def is_short(self, book: RouteBook) -> bool:
        """Whether compiles wait, here or at a worker, because all workers are full."""
        return self.wanted(book) > book.limits

    def join(self, book: RouteBook, chance: Chance | None = None) -> Place:
        """Take a place, or wait for one; `wait` has to follow. `chance`: it may run here."""
        place: Place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self.wake(book)
        if chance is not None and not place.done():
            self._overflow.join(place, chance)
            self._look_later(book)
        return place

    def retry(self, book: RouteBook) -> Lane | None:
        """Take a place for a compile that failed elsewhere; None if no worker has shown to live."""
        now = self._clock.monotonic()
        lane = book.proven(now)
        if lane is not None:
            lane.enter(now)
        return lane

    async def wait(self, book: RouteBook, place: Place) -> Lane | None:
        """Wait for the place; None if there is no route any more, so that one must be asked for.

        Raises:
            RunHereError: the compile gets a local slot.
        """
        try:
            lane = await place
        except asyncio.CancelledError:
            if not place.done() or place.cancelled():
                with suppress(ValueError):  # it was passed over already
                    self._waiting.remove(place)
            elif isinstance(given := place.result(), RunHere):
                given.give_back()
            elif given is not None:
                self.leave(book, given)
            raise
        if isinstance(lane, RunHere):
            raise RunHereError(lane)
        return lane

    def leave(self, book: RouteBook, lane: Lane) -> None:
        """Give a place back."""
        book.leave(lane)
        self._overflow.left()
        self.wake(book)

    def ran(self, seconds: float) -> None:
        """Note how long a compile ran at a worker."""
        self._overflow.ran(seconds)

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

    def _look_later(self, book: RouteBook) -> None:
        if self._overflow_timer is None and self._overflow:
            loop = asyncio.get_running_loop()
            self._overflow_timer = loop.call_later(PATIENCE_SECONDS, self.overflow, book)

    def overflow(self, book: RouteBook) -> None:
        """Give local slots to some of those who wait, and look again a moment later."""
        self._overflow_timer = None
        self.wake(book)
        for place in self._overflow.give(self._waiting, book):
            self._waiting.remove(place)
        self._look_later(book)


class MoreRoutes:
    """Asks for more routes while compiles wait for places, at most once a second."""

    def __init__(
        self,
        clock: Clock,
        *,
        is_short: Callable[[], bool],
        ask: Callable[[], Awaitable[bool]],
    ) -> None:
        """`ask` returns whether it brought more places; it raises no `HpccError`."""
        self._clock, self._is_short, self._ask = clock, is_short, ask
        self._task: asyncio.Task[None] | None = None
        # When the next request may be made, and the pause after it.
        self._next_at = self._asked_at = float("-inf")
        self._pause = _MORE_SECONDS
        self._is_news = asyncio.Event()

    def want(self) -> None:
        """Begin to ask, if compiles wait."""
        if self._is_short() and (self._task is None or self._task.done()):
            self._task = asyncio.Task(self._run(), name="more routes")

    def news(self) -> None:
        """Ask soon, if there are too few routes: the answer may have others now.

        News that come in a row, as of a worker that flaps, neither hurry nor delay the request.
        """
        self._pause = _MORE_SECONDS
        jitter = random.uniform(0.0, _JITTER_SECONDS)  # noqa: S311 - no secret
        soon = max(self._clock.monotonic() + jitter, self._asked_at + _MORE_SECONDS)
        self._next_at = min(self._next_at, soon)
        self._is_news.set()
        self.want()

    @property
    def is_asking(self) -> bool:
        """Whether an answer of the scheduler is pending."""
        return self._next_at == float("inf")

    async def close(self) -> None:
        """Ask no more."""
        if self._task is not None:
            await ended(self._task)

    async def _run(self) -> None:
        # Else the request is for the first compile that waits, and its answer has one worker more.
        await asyncio.sleep(_GATHER_SECONDS)
        while self._is_short():
            pause = self._next_at - self._clock.monotonic()
            if pause > 0:
                self._is_news.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._is_news.wait()
                continue
            if -pause > _MAX_MORE_SECONDS:  # another build begins
                self._pause = _MORE_SECONDS
            # News that come from now on may be newer than the answer.
            self._asked_at, self._next_at = self._clock.monotonic(), float("inf")
            is_more = False
            try:
                is_more = await self._ask()
            finally:
                pause = _MORE_SECONDS if is_more else self._pause
                self._next_at = min(self._next_at, self._clock.monotonic() + pause)
                self._pause = min(pause * 2, _MAX_MORE_SECONDS)
