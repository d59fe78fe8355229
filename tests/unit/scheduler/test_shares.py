"""Two schedulers divide the places of one farm: never twice, fairly, and without the store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest

from hpcc.control.database import read_database_config
from hpcc.control.embedded import EmbeddedControlStore
from hpcc.control.postgres import open_postgres
from hpcc.control.schema import migrate
from hpcc.core import TenantId
from hpcc.ports import (
    Clock,
    ControlStore,
    ControlStoreError,
    Divide,
    LeasedShare,
    ShareKey,
    SystemClock,
)
from hpcc.rpc.scheduler.api import ShareAsk
from hpcc.scheduler.shares import ShareBook
from hpcc_testkit.farm.policies import TenantsAuthenticator
from hpcc_testkit.services.postgres import PrivatePostgres
from hpcc_testkit.suite.shared_farm import policy

pytestmark = pytest.mark.timeout(120)
ACME, GLOBEX = "acme", "globex"


@dataclass(slots=True)
class Worker:
    """A worker that runs as many compiles as it may, and ends them when the test says so."""

    name: str
    book: ShareBook
    wanted: dict[tuple[str, str], int] = field(default_factory=dict)
    places: dict[tuple[str, str], int] = field(default_factory=dict)
    running: dict[tuple[str, str], int] = field(default_factory=dict)

    def want(self, tenant: str, principal: str, number: int) -> None:
        self.wanted[tenant, principal] = number

    async def ask(self) -> None:
        asks = [
            ShareAsk(
                TenantId(t), p, n, max(self.places.get((t, p), 0), self.running.get((t, p), 0))
            )
            for (t, p), n in self.wanted.items()
        ]
        grants = await self.book.lease(self.name, asks)
        for (tenant, principal), places in grants.places.items():
            self.places[tenant.value, principal] = places
        for who, wanted in self.wanted.items():
            # What runs is not ended.
            may = min(self.places.get(who, 0), wanted)
            self.running[who] = max(self.running.get(who, 0), may)

    def end_all(self) -> None:
        """End what runs; others start at once, as far as there are places."""
        for who, wanted in self.wanted.items():
            self.running[who] = min(self.places.get(who, 0), wanted)

    def total(self, tenant: str, principal: str = "") -> int:
        return sum(n for (t, p), n in self.running.items() if t == tenant and principal in {"", p})


class FlakyStore:
    """A store that a test takes away."""

    def __init__(self, store: ControlStore) -> None:
        self._store, self.is_away = store, False

    async def lease_shares(
        self, asks: Sequence[LeasedShare], seconds: float, divide: Divide
    ) -> Mapping[ShareKey, LeasedShare]:
        if self.is_away:
            raise ControlStoreError("away")
        return await self._store.lease_shares(asks, seconds, divide)


class JumpingClock(SystemClock):
    """A clock of which a test moves both parts."""

    def __init__(self) -> None:
        self.ahead = self.later = 0.0

    def now(self) -> float:
        return super().now() + self.ahead

    def monotonic(self) -> float:
        return super().monotonic() + self.later


@dataclass(slots=True)
class Schedulers:
    """Two schedulers and four workers of four places, two at each."""

    stores: list[FlakyStore]
    workers: list[Worker]
    authenticator: TenantsAuthenticator
    clocks: list[JumpingClock]

    def says(self, *policies: object) -> None:
        self.authenticator.policies = TenantsAuthenticator(*policies).policies  # type: ignore[arg-type]  # policies

    async def round(self, times: int = 1, *, is_ending: bool = True) -> None:
        """Let all workers ask at the same time, and end what runs before."""
        for _ in range(times):
            if is_ending:
                for worker in self.workers:
                    worker.end_all()
            async with asyncio.TaskGroup() as group:
                for worker in self.workers:
                    group.create_task(worker.ask())

    def total(self, tenant: str, principal: str = "") -> int:
        return sum(worker.total(tenant, principal) for worker in self.workers)


@asynccontextmanager
async def stores_of(
    kind: str, request: pytest.FixtureRequest, directory: Path, clocks: Sequence[Clock]
) -> AsyncGenerator[list[ControlStore]]:
    if kind == "embedded":
        with EmbeddedControlStore(directory / "control.sqlite", clocks[0]) as store:
            yield [store, store]
        return
    cluster: PrivatePostgres = request.getfixturevalue("postgres")
    config = read_database_config(cluster.make_database(f"book_{uuid4().hex}"))
    await migrate(config)
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_postgres(config, clock)) for clock in clocks]


@pytest.fixture(params=["embedded", "postgres"])
async def farm(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Schedulers]:
    clocks = [JumpingClock(), JumpingClock()]
    authenticator = TenantsAuthenticator(policy(ACME, farm_execs=6))
    async with stores_of(request.param, request, tmp_path, clocks) as stores:
        flaky = [FlakyStore(store) for store in stores]
        capacities = {f"w{number}": 4 for number in range(4)}
        books = [
            ShareBook(
                cast("ControlStore", store), clock, policy_or_none=authenticator.policy_or_none,
                capacities=lambda: capacities, lease_seconds=10.0,
            )
            for store, clock in zip(flaky, clocks, strict=True)
        ]  # fmt: skip
        workers = [Worker(name, books[n % 2]) for n, name in enumerate(capacities)]
        yield Schedulers(flaky, workers, authenticator, clocks)


async def test_a_limit_holds_in_each_order_of_asking(farm: Schedulers) -> None:
    for worker in farm.workers:
        for principal in ("ann", "bob", "cyd"):
            worker.want(ACME, principal, 4)
    for number in range(12):
        await farm.round(is_ending=number % 3 == 2)
        assert farm.total(ACME) <= 6
    assert farm.total(ACME) == 6
    assert [farm.total(ACME, p) for p in ("ann", "bob", "cyd")] == [2, 2, 2]
    known = farm.workers[0].book.current()
    assert sum(share.granted for share in known if share.tenant == ACME) == 6


async def test_a_flood_leaves_another_tenant_its_part_and_takes_what_it_does_not_want(
    farm: Schedulers,
) -> None:
    farm.says(policy(ACME, farm_weight=1), policy(GLOBEX, farm_weight=3))
    for worker in farm.workers:
        worker.want(ACME, "ann", 400)
    await farm.round(2)
    assert farm.total(ACME) == 16, "all, because nobody else wants any"
    for worker in farm.workers:
        worker.want(GLOBEX, "ben", 4)
    await farm.round(4)
    assert (farm.total(ACME), farm.total(GLOBEX)) == (4, 12)
    for worker in farm.workers:
        worker.want(GLOBEX, "ben", 0)
    farm.workers[3].want(GLOBEX, "ben", 2)
    await farm.round(4)
    assert (farm.total(ACME), farm.total(GLOBEX)) == (14, 2)


async def test_what_runs_on_counts_until_it_ends(farm: Schedulers) -> None:
    """Places that a worker shall give back are granted elsewhere when nothing runs there."""
    one, two = farm.workers[:2]
    one.want(ACME, "ann", 4)
    farm.says(policy(ACME, farm_execs=4))
    await farm.round(1)
    two.want(ACME, "bob", 4)
    for _ in range(4):
        await farm.round(is_ending=False)
        assert (farm.total(ACME, "ann"), farm.total(ACME, "bob")) == (4, 0)
    await farm.round(3)
    assert (farm.total(ACME, "ann"), farm.total(ACME, "bob")) == (2, 2)


async def test_without_the_store_nobody_loses_a_place_and_nobody_waits_for_ever(
    farm: Schedulers,
) -> None:
    one, two = farm.workers[:2]
    one.want(ACME, "ann", 4)
    two.want(ACME, "ann", 2)
    await farm.round(2)
    assert farm.total(ACME) == 6
    for store in farm.stores:
        store.is_away = True
    for clock in farm.clocks:
        clock.later += 600.0  # the shares have ended long ago
    await farm.round(3)
    assert [one.total(ACME), two.total(ACME)] == [4, 2]
    farm.workers[2].want(ACME, "new", 4)
    await farm.round(3)
    assert farm.workers[2].total(ACME) >= 1, "a build stops"
    for store in farm.stores:
        store.is_away = False
    for clock in farm.clocks:
        clock.later += 10.0
    await farm.round(6)
    assert farm.total(ACME) == 6


# A database has its own clock: tests/contract.
@pytest.mark.parametrize("farm", ["embedded"], indirect=True)
async def test_shares_of_a_dead_worker_come_back_after_their_lease(farm: Schedulers) -> None:
    dead = farm.workers[0]
    dead.want(ACME, "ann", 4)
    await dead.ask()
    farm.workers.remove(dead)
    farm.workers[0].want(ACME, "bob", 4)
    await farm.round(3)
    assert farm.total(ACME) == 2
    farm.clocks[0].later += 29.0
    await farm.round(2)
    assert farm.total(ACME) == 2
    farm.clocks[0].later += 2.0
    await farm.round(2)
    assert farm.total(ACME) == 4


@pytest.mark.parametrize("seconds", [-86_400.0, 86_400.0])
async def test_a_schedulers_clock_that_jumps_grants_nothing_twice(
    farm: Schedulers, seconds: float
) -> None:
    for worker in farm.workers:
        worker.want(ACME, "ann", 4)
    for _ in range(3):
        await farm.round()
        farm.clocks[0].ahead += seconds
        assert farm.total(ACME) <= 6
    await farm.round(3)
    assert farm.total(ACME) == 6


async def test_a_tenant_without_farm_limits_needs_no_lease(farm: Schedulers) -> None:
    farm.says(policy(ACME, concurrent_execs=1))
    ask = ShareAsk(TenantId(ACME), "ann", 4, 0)
    grants = await farm.workers[0].book.lease("w0", [ask])
    assert grants.places == {}


class Watched(dict[str, int]):
    """Capacities that note which threads copied them, and how often."""

    def __init__(self, workers: int) -> None:
        super().__init__({f"w{number}": 4 for number in range(workers)})
        self.threads: list[threading.Thread] = []

    def copy(self) -> dict[str, int]:
        self.threads.append(threading.current_thread())
        return dict(self)


async def test_a_division_sees_the_workers_of_one_moment_and_an_ask_looks_at_one(
    tmp_path: Path,
) -> None:
    """The store divides in a thread, in which the farm's workers would come and go."""
    capacities, clock = Watched(100), SystemClock()
    authenticator = TenantsAuthenticator(policy(ACME, farm_execs=400))
    with EmbeddedControlStore(tmp_path / "control.sqlite", clock) as store:
        book = ShareBook(
            store, clock, policy_or_none=authenticator.policy_or_none,
            capacities=lambda: capacities, lease_seconds=10.0,
        )  # fmt: skip
        workers = [Worker(name, book) for name in capacities]
        for worker in workers:
            worker.want(ACME, "ann", 4)
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker.ask())
    assert capacities.threads == [threading.main_thread()], "once for all that asked together"
    assert sum(worker.total(ACME) for worker in workers) == 400
