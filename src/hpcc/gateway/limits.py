"""Limits the bytes of messages and the calls in progress. No owner can use all of them."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from hpcc.rpc.base.errors import BusyError

_RETRY_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class _Waiting:
    owner: str
    size_bytes: int
    turn: asyncio.Future[None]


class Hold:
    """Bytes of memory that one call has reserved."""

    def __init__(self, budget: Budget, owner: str, size_bytes: int) -> None:
        self._budget, self.owner, self.size_bytes = budget, owner, size_bytes

    def shrink(self, size_bytes: int) -> None:
        """Give back what exceeds `size_bytes`."""
        back = self.size_bytes - size_bytes
        if back > 0:
            self.size_bytes = size_bytes
            self._budget.give_back(self.owner, back)


class Budget:
    """A number of bytes, of which one owner may use half. Waiters are served in order of arrival.

    A waiter that exceeds its owner's half does not delay other owners.
    """

    def __init__(self, total_bytes: int, max_waiting: int) -> None:
        self._total, self._free, self._share = total_bytes, total_bytes, total_bytes // 2
        self._max_waiting = max_waiting
        self._used: Counter[str] = Counter()
        self._waiting: deque[_Waiting] = deque()

    @property
    def sizes(self) -> tuple[int, int]:
        """The bytes that are reserved now, and that may be."""
        return self._total - self._free, self._total

    @asynccontextmanager
    async def hold(self, owner: str, size_bytes: int, seconds: float) -> AsyncGenerator[Hold]:
        """Reserve bytes while the block runs; wait for them for at most `seconds`.

        Raises:
            BusyError: no memory became free in time, or too many callers wait already.
        """
        if self._waiting or not self._fits(owner, size_bytes):
            if len(self._waiting) >= self._max_waiting:
                raise _full()
            try:
                async with asyncio.timeout(seconds):
                    await self._queue(owner, size_bytes)
            except TimeoutError as error:
                raise _full() from error
        else:
            self._take(owner, size_bytes)
        hold = Hold(self, owner, size_bytes)
        try:
            yield hold
        finally:
            self.give_back(owner, hold.size_bytes)

    def give_back(self, owner: str, size_bytes: int) -> None:
        self._free += size_bytes
        self._used[owner] -= size_bytes
        if self._used[owner] <= 0:
            del self._used[owner]
        self._wake()

    async def _queue(self, owner: str, size_bytes: int) -> None:
        place = _Waiting(owner, size_bytes, asyncio.get_running_loop().create_future())
        self._waiting.append(place)
        # It may fit at once, if those before it wait only for their own owner's half.
        self._wake()
        try:
            await place.turn
        except asyncio.CancelledError:
            if place.turn.done() and not place.turn.cancelled():
                self.give_back(owner, size_bytes)
            else:
                self._waiting.remove(place)
                self._wake()
            raise

    def _wake(self) -> None:
        """Serve the waiters that fit. One that exceeds the free bytes ends the round."""
        left: deque[_Waiting] = deque()
        while self._waiting:
            place = self._waiting.popleft()
            if place.turn.done():
                # Cancelled just now; its own task removes it from the queue.
                left.append(place)
            elif self._fits(place.owner, place.size_bytes):
                self._take(place.owner, place.size_bytes)
                place.turn.set_result(None)
            else:
                left.append(place)
                if self._free < place.size_bytes:
                    break
        left.extend(self._waiting)
        self._waiting = left

    def _fits(self, owner: str, size_bytes: int) -> bool:
        return self._free >= size_bytes and self._used[owner] + size_bytes <= self._share

    def _take(self, owner: str, size_bytes: int) -> None:
        self._free -= size_bytes
        self._used[owner] += size_bytes


class Calls:
    """Counts concurrent calls by owner."""

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()

    def count(self, owner: str) -> int:
        """Return how many calls an owner has now."""
        return self._running[owner]

    def of(self, owners: Callable[[str], bool]) -> dict[str, int]:
        """Return the calls of each owner for which `owners` is true."""
        return {owner: count for owner, count in self._running.items() if owners(owner)}

    @contextmanager
    def one(self, owner: str, most: int) -> Generator[None]:
        """Count a call while the block runs.

        Raises:
            BusyError: the owner has `most` calls already.
        """
        if self._running[owner] >= most:
            raise BusyError(
                f"more than {most} calls at once: use fewer jobs",
                retry_after_seconds=_RETRY_SECONDS,
                reason="relay-calls",
            )
        self._running[owner] += 1
        try:
            yield
        finally:
            self._running[owner] -= 1
            if not self._running[owner]:
                del self._running[owner]


def _full() -> BusyError:
    return BusyError(
        "the gateway has no room for more calls now",
        retry_after_seconds=_RETRY_SECONDS,
        reason="relay-full",
    )
