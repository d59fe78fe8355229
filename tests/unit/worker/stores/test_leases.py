"""A worker's leased places: asked for together, kept while nobody answers, given back when idle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from hpcc.core import TenantId
from hpcc.rpc.base.errors import BusyError, UnavailableError
from hpcc.rpc.scheduler.api import ShareAsk, ShareGrants
from hpcc.worker.stores.leases import ShareLeases
from hpcc.worker.stores.places import MAX_WAITING, PlaceQueue
from hpcc_testkit.services.idp_tokens import FixedClock

ACME = TenantId("acme")


@dataclass(slots=True)
class Scheduler:
    """Grants up to `most` to each, and remembers what was asked."""

    most: Mapping[str, int] | None = None
    is_away: bool = False
    asked: list[tuple[ShareAsk, ...]] = field(default_factory=list)

    async def __call__(self, asks: Sequence[ShareAsk]) -> ShareGrants:
        self.asked.append(tuple(asks))
        if self.is_away:
            raise UnavailableError("away")
        if self.most is None:
            return ShareGrants({}, 30.0, 2.0)
        most = self.most
        return ShareGrants(
            {(a.tenant, a.principal): min(a.wanted, most.get(a.principal, 0)) for a in asks},
            30.0,
            2.0,
        )


class Compiles:
    """Compiles that run until the test ends them."""

    def __init__(self, places: Callable[[], PlaceQueue]) -> None:
        self._places, self.running = places, 0
        self._tasks: list[asyncio.Task[None]] = []
        self._end = asyncio.Event()

    async def start(self, number: int) -> None:
        self._tasks += [asyncio.Task(self._one()) for _ in range(number)]
        await asyncio.sleep(0)

    async def _one(self) -> None:
        places = self._places()
        await places.enter()
        self.running += 1
        try:
            await self._end.wait()
        finally:
            self.running -= 1
            places.leave()

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()


@asynccontextmanager
async def compiles(leases: ShareLeases, principal: str = "ann") -> AsyncGenerator[Compiles]:
    made = Compiles(lambda: leases.of(ACME, principal))
    try:
        yield made
    finally:
        await made.end()


async def test_as_many_run_as_places_are_granted() -> None:
    leases, scheduler = ShareLeases(FixedClock()), Scheduler({"ann": 3})
    async with compiles(leases) as ann:
        await ann.start(5)
        assert ann.running == 0
        await leases.ask(scheduler)
        await asyncio.sleep(0)
        assert ann.running == 3
        assert scheduler.asked == [(ShareAsk(ACME, "ann", 5, 0),)]
        scheduler.most = {"ann": 2}
        await leases.ask(scheduler)
        assert ann.running == 3, "what runs is not ended"
        assert leases.of(ACME, "ann").limit == 2
        await leases.ask(scheduler)
        assert scheduler.asked[-1] == (ShareAsk(ACME, "ann", 5, 3),), "it holds what runs"


async def test_a_compile_with_a_place_asks_nobody() -> None:
    leases, scheduler = ShareLeases(FixedClock()), Scheduler({"ann": 4})
    asking = asyncio.Task(leases.run(scheduler))
    async with compiles(leases) as ann:
        await ann.start(4)
        while True:
            if ann.running == 4:
                break
            await asyncio.sleep(0.01)
        asked = len(scheduler.asked)
        for _ in range(20):
            leases.of(ACME, "ann").leave()
            await leases.of(ACME, "ann").enter()
        assert len(scheduler.asked) == asked
    asking.cancel()


async def test_an_idle_principal_gives_its_places_back_and_is_forgotten() -> None:
    leases, scheduler = ShareLeases(FixedClock()), Scheduler({"ann": 4})
    async with compiles(leases) as ann:
        await ann.start(4)
        await leases.ask(scheduler)
    for _ in range(4):
        await leases.ask(scheduler)
    wanted_and_held = [(a.wanted, a.held) for (a,) in scheduler.asked]
    assert wanted_and_held == [(4, 0), (0, 4), (0, 0)], "then there is nobody to ask for"


@pytest.mark.parametrize("had", [0, 3])
async def test_without_an_answer_shares_stay_and_who_has_none_does_not_wait(had: int) -> None:
    leases, scheduler = ShareLeases(FixedClock()), Scheduler({"ann": had})
    async with compiles(leases) as ann, compiles(leases, "new") as new:
        await ann.start(5)
        await leases.ask(scheduler)
        scheduler.is_away = True
        await new.start(2)
        await leases.ask(scheduler)
        await asyncio.sleep(0)
        assert ann.running == (had or 1), "one at least, so that nothing waits without end"
        assert new.running == 2
        scheduler.is_away, scheduler.most = False, {"ann": 1, "new": 1}
        await leases.ask(scheduler)
        assert scheduler.asked[-1][1] == ShareAsk(ACME, "new", 2, 2)
        assert leases.of(ACME, "new").limit == 1


async def test_a_tenant_without_leases_has_no_limit_here() -> None:
    leases = ShareLeases(FixedClock())
    async with compiles(leases) as ann:
        await ann.start(50)
        await leases.ask(Scheduler(None))
        await asyncio.sleep(0)
        assert ann.running == 50


async def test_a_process_that_was_stopped_asks_before_it_starts_more() -> None:
    clock = FixedClock()
    leases, scheduler = ShareLeases(clock), Scheduler({"ann": 4})
    async with compiles(leases) as ann:
        await ann.start(2)
        await leases.ask(scheduler)
        await ann.start(2)
        await leases.ask(scheduler)
        await asyncio.sleep(0)
        assert ann.running == 4
        await ann.end()
        clock.time += 31.0
        await ann.start(1)
        assert ann.running == 0
        scheduler.most = {"ann": 1}
        await leases.ask(scheduler)
        await asyncio.sleep(0)
        assert ann.running == 1


async def test_a_queue_is_bounded() -> None:
    leases = ShareLeases(FixedClock())
    async with compiles(leases) as ann:
        await ann.start(MAX_WAITING)
        with pytest.raises(BusyError):
            await leases.of(ACME, "ann").enter()


async def test_a_worker_that_leaves_says_that_it_holds_nothing() -> None:
    leases, scheduler = ShareLeases(FixedClock()), Scheduler({"ann": 4})
    async with compiles(leases) as ann:
        await ann.start(4)
        await leases.ask(scheduler)
    await leases.give_back(scheduler)
    assert scheduler.asked[-1] == (ShareAsk(ACME, "ann", 0, 0),)
