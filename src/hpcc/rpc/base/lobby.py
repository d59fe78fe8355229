"""Bounds how many strangers may keep a server waiting for their message, and for how long."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from hpcc.rpc.base.connection_limit import source_of
from hpcc.rpc.base.errors import BusyError, DeadlineError

_RETRY_SECONDS: Final = 1.0


@asynccontextmanager
async def in_time(seconds: float) -> AsyncGenerator[asyncio.Timeout]:
    """Bound how long a message may take, from before its first byte to its last.

    Raises:
        DeadlineError: the block did not end within `seconds`.
    """
    try:
        async with asyncio.timeout(seconds) as scope:
            yield scope
    except TimeoutError as error:
        raise DeadlineError("no whole message came in time", reason="slow-message") from error


def address_of(peer: str) -> str:
    """Return where a peer of gRPC is (`ipv4:127.0.0.1:4711`), without its port.

    One machine may have many IPv6 addresses, so these are cut to their network.
    """
    kind, _, text = peer.rpartition(":")[0].partition(":")
    if kind != "ipv6":
        return text
    return source_of(text.strip("[]"))


@dataclass(frozen=True, slots=True, kw_only=True)
class LobbySize:
    """How many messages of strangers are read at once (`seats`), and how many wait for that.

    A message may take `seconds`, while others wait only `hurried_seconds`. A call waits for its
    seat for `patience_seconds`.
    """

    seats: int = 256
    waiting: int = 2048
    seconds: float = 10.0
    hurried_seconds: float = 1.0
    patience_seconds: float = 10.0


class Seat:
    """A call's place in a lobby while its block runs."""

    def __init__(self, scope: asyncio.Timeout, hurried_seconds: float) -> None:
        self._scope, self._until = scope, scope.when()
        self._hurried_until = asyncio.get_running_loop().time() + hurried_seconds
        self._is_waited_for = True

    def hurry(self) -> None:
        """Shorten the time for the message, because others wait for the seat."""
        until = self._until
        if self._is_waited_for and until is not None:
            self._set(min(until, self._hurried_until))

    def arrived(self) -> None:
        """Note that the message is here: what follows does not depend on its sender."""
        self._is_waited_for = False
        self._set(self._until)

    def _set(self, when: float | None) -> None:
        if not self._scope.expired():
            self._scope.reschedule(when)


class Lobby:
    """The calls whose sender is not known yet, while their message is on its way.

    Addresses take turns, whatever number of calls each has. So an honest call, which sends its
    message at once, waits for one message of each other address at most, and each of these must be
    quick as long as somebody waits.
    """

    def __init__(self, size: LobbySize | None = None) -> None:
        self._size = size or LobbySize()
        self._taken = 0
        self._seated: dict[Seat, None] = {}
        # By address, in the order of their turns; each has the longest waiting call first.
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}
        self._waiting = 0

    @property
    def calls(self) -> tuple[int, int]:
        """How many calls have a seat now, and how many wait for one."""
        return len(self._seated), self._waiting

    @asynccontextmanager
    async def seat(self, address: str) -> AsyncGenerator[Seat]:
        """Wait for a seat; the block, which reads the message, must end in time.

        Raises:
            BusyError: there was no seat in time, or too many wait, most of them from there.
            DeadlineError: the block took too long.
        """
        await self._turn(address)
        try:
            async with in_time(self._size.seconds) as scope:
                seat = Seat(scope, self._size.hurried_seconds)
                self._seated[seat] = None
                try:
                    if self._queues:
                        seat.hurry()
                    yield seat
                finally:
                    del self._seated[seat]
        finally:
            self._taken -= 1
            self._seat_next()

    async def _turn(self, address: str) -> None:
        """Return when the caller has a seat."""
        if self._taken < self._size.seats:
            self._taken += 1
            return
        if not self._queues:
            for seat in self._seated:
                seat.hurry()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(address, deque()).append(turn)
        self._waiting += 1
        if self._waiting > self._size.waiting:
            self._send_one_away()
        try:
            async with asyncio.timeout(self._size.patience_seconds):
                await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                # It got a seat in this moment, and leaves it.
                self._taken -= 1
                self._seat_next()
            else:
                self._forget(address, turn)
            if isinstance(error, TimeoutError):
                raise _full() from error
            raise

    def _seat_next(self) -> None:
        while self._queues and self._taken < self._size.seats:
            address = next(iter(self._queues))
            queue = self._queues.pop(address)
            turn = queue.popleft()
            self._waiting -= 1
            if queue:
                self._queues[address] = queue
            if not turn.done():
                self._taken += 1
                turn.set_result(None)

    def _send_one_away(self) -> None:
        """Refuse the call that has waited longest of the address with most of them."""
        address = max(self._queues, key=lambda a: len(self._queues[a]))
        turn = self._queues[address][0]
        self._forget(address, turn)
        if not turn.done():
            turn.set_exception(_full())

    def _forget(self, address: str, turn: asyncio.Future[None]) -> None:
        queue = self._queues.get(address)
        if queue is None or turn not in queue:
            return
        queue.remove(turn)
        self._waiting -= 1
        if not queue:
            del self._queues[address]


def _full() -> BusyError:
    return BusyError(
        "too many callers wait who are not known yet",
        retry_after_seconds=_RETRY_SECONDS,
        reason="lobby-full",
    )
