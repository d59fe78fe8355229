"""Leases places for compiles of tenants whose limits count on the whole farm.

Places are asked for in one call for all principals: when a compile has to wait, and now and then.
A compile that finds a place asks nobody. A principal without compiles gives its places back.

The scheduler does not answer: the places of the last answer stay. For who never got an answer, only
the limits of the token count. So no build stops, and limits may be exceeded meanwhile.

A process that was stopped for longer than its lease asks again before it starts another compile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from hpcc.core import HpccError, TenantId
from hpcc.ports import Clock
from hpcc.rpc.scheduler.api import MAX_ASKS, ShareAsk, ShareGrants
from hpcc.worker.stores.places import PlaceQueue

_log: Final = logging.getLogger(__name__)
# The pause between two requests, so that compiles that come together are in one.
_PAUSE_SECONDS: Final = 0.05
# A compile that waits for the first answer is not held up for longer.
_PATIENCE_SECONDS: Final = 5.0
# While no scheduler answers.
_RETRY_SECONDS: Final = 2.0
# Compiles that wait ask so many times as often.
_HURRY: Final = 4.0

type Lease = Callable[[Sequence[ShareAsk]], Awaitable[ShareGrants]]


class _Held(PlaceQueue):
    """The places of one principal. `places`: None if it needs no lease."""

    def __init__(self, leases: ShareLeases) -> None:
        super().__init__()
        self._leases = leases
        self.places: int | None = 0
        self.is_answered = False
        self.asked = self._peak = 0

    @property
    def limit(self) -> int | None:
        return self.places if self._leases.is_current else 0

    async def enter(self) -> None:
        self._peak = max(self._peak, self.running + self.waiting + 1)
        await super().enter()

    def must_wait(self) -> None:
        if self.running + self.waiting > self.asked or not self._leases.is_current:
            self._leases.hurry()

    @property
    def held(self) -> int:
        return max(self.places or 0, self.running)

    @property
    def is_idle(self) -> bool:
        return not (self._peak or self.running or self._waiting)

    def take_wanted(self) -> int:
        """Return the most that ran or waited since the last request."""
        wanted = max(self._peak, self.running + self.waiting)
        self.asked, self._peak = wanted, 0
        return wanted


class ShareLeases:
    """The places of all principals at this worker."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[tuple[TenantId, str], _Held] = {}
        self._wake = asyncio.Event()
        self._until = float("inf")
        self._renew_seconds = _RETRY_SECONDS

    @property
    def is_current(self) -> bool:
        """Whether the last answer still counts."""
        return self._clock.monotonic() < self._until

    def of(self, tenant: TenantId, principal: str) -> PlaceQueue:
        """Return the places of a principal, to enter at once; an idle one is forgotten."""
        held = self._held.get((tenant, principal))
        if held is None:
            held = self._held[tenant, principal] = _Held(self)
        return held

    def refuse(self) -> None:
        """End all waits for places."""
        for held in self._held.values():
            held.refuse()

    def hurry(self) -> None:
        """Ask as soon as possible."""
        self._wake.set()

    @asynccontextmanager
    async def asked(
        self, lease: Lease, drain: Callable[[], Awaitable[None]]
    ) -> AsyncGenerator[None]:
        """Ask while the block runs and until `drain` has ended what runs; then give all back."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.run(lease), name="shares")
            try:
                yield
            finally:
                await drain()
                task.cancel()
                await self.give_back(lease)

    async def run(self, lease: Lease) -> None:
        """Ask until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._wake.wait()
            self._wake.clear()
            await self.ask(lease)
            await asyncio.sleep(_PAUSE_SECONDS)

    def _pause(self) -> float | None:
        if not self._held:
            return None
        waits = any(held.waiting for held in self._held.values())
        return self._renew_seconds / (_HURRY if waits else 1.0)

    async def ask(self, lease: Lease) -> None:
        """Ask once for all principals."""
        chosen = list(self._held.items())[:MAX_ASKS]
        asks = [
            ShareAsk(tenant, principal, held.take_wanted(), held.held)
            for (tenant, principal), held in chosen
        ]
        if not asks:
            return
        asked_at = self._clock.monotonic()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                grants = await lease(asks)
        except (HpccError, TimeoutError) as error:
            _log.warning("cannot lease places: %s", str(error) or "the scheduler is too slow")
            self._keep()
            return
        self._until = asked_at + grants.seconds
        self._renew_seconds = grants.renew_seconds
        for ask, (key, held) in zip(asks, chosen, strict=True):
            held.places, held.is_answered = grants.places.get(key), True
            held.wake()
            if not (ask.wanted or ask.held) and held.is_idle:
                del self._held[key]

    def _keep(self) -> None:
        """Go on with the places of the last answer."""
        self._until, self._renew_seconds = float("inf"), _RETRY_SECONDS
        for held in self._held.values():
            if not held.is_answered:
                held.places = None
            elif held.waiting and held.places == 0:
                held.places = 1  # nothing waits for a scheduler that is away
            held.wake()

    async def give_back(self, lease: Lease) -> None:
        """Say that nothing runs here any more."""
        asks = [ShareAsk(tenant, principal, 0, 0) for tenant, principal in self._held]
        self._held.clear()
        if asks:
            with suppress(HpccError, TimeoutError):
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await lease(asks[:MAX_ASKS])
