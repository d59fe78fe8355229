"""Limits and fair parts of tenants count on all workers and schedulers of a farm."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from hpcc.dispatch import routes
from hpcc_testkit.farm.in_process import TENANT
from hpcc_testkit.services.postgres import PrivatePostgres
from hpcc_testkit.suite.shared_farm import GatedBuild, SharedFarm, policy, shared_farm

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(params=["sqlite", "postgres"])
def cluster(request: pytest.FixtureRequest) -> PrivatePostgres | None:
    """Two schedulers on PostgreSQL, or one on SQLite."""
    return None if request.param == "sqlite" else request.getfixturevalue("postgres")


@pytest.fixture
async def two(postgres: PrivatePostgres, tmp_path: Path) -> AsyncIterator[SharedFarm]:
    """Two schedulers; the tenant has two places. A share ends after three seconds."""
    limits = [policy(farm_execs=2)]
    async with shared_farm(tmp_path, limits, cluster=postgres, lease_seconds=1.0) as farm:
        yield farm


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no wait count as a queue, nor a busy machine as a worker that is slow to open."""
    for name in ("OPENING_SECONDS", "_QUEUED_SECONDS"):
        monkeypatch.setattr(routes, name, 600.0)


async def ended(task: asyncio.Future[None]) -> None:
    """End a build."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def level(farm: SharedFarm, number: int, *builds: GatedBuild) -> None:
    """Wait until each build has so many compiles; end the oldest of one that has more.

    Workers ask one after the other. Meanwhile a build may start more than its part, and no compile
    is ended for the other.
    """
    while any(farm.journal.running(build.name) != number for build in builds):
        for build in builds:
            if farm.journal.running(build.name) > number:
                build.let(farm.journal.starts(build.name) - number)
        await asyncio.sleep(0.1)


async def test_a_limit_counts_on_all_workers_and_schedulers(
    tmp_path: Path, cluster: PrivatePostgres | None
) -> None:
    """Three workers with four places each, two people: three compiles at once on all of them."""
    units = range(8)
    async with (
        shared_farm(tmp_path, [policy(farm_execs=3)], cluster=cluster) as farm,
        farm.workers("w1", "w2", "w3", places=4),
        farm.build("ann") as ann,
        farm.build("bob", scheduler=len(farm.farms) - 1) as bob,
    ):
        async with asyncio.TaskGroup() as group:
            for build in (ann, bob):
                group.create_task(build.run(units, jobs=6, seconds=0.1))
            await ann.wait(lambda: farm.journal.most == 3)
            ann.let(99)
            bob.let(99)
        ann.check(units)
        bob.check(units)
        assert farm.journal.most == 3
        assert [farm.journal.starts(name) for name in ("ann", "bob")] == [8, 8]


async def test_one_tenant_floods_and_another_gets_its_half(
    tmp_path: Path, postgres: PrivatePostgres
) -> None:
    """Eight places. Alone, the first uses all; with the second, each has four; then all again."""
    tenants = [policy("acme", farm_weight=1), policy("globex", farm_weight=1)]
    async with (
        shared_farm(tmp_path, tenants, cluster=postgres) as farm,
        farm.workers("w1", "w2", places=4),
        farm.build("ann", "acme") as ann,
        farm.build("ben", "globex", scheduler=1) as ben,
    ):
        flood = asyncio.ensure_future(ann.run(count(), jobs=16, seconds=0))
        await ann.wait(lambda: farm.journal.running("ann") == 8)
        few = asyncio.ensure_future(ben.run(range(24), jobs=8, seconds=0))
        await ben.wait(lambda: (farm.granted("ann"), farm.granted("ben")) == (4, 4))
        assert farm.journal.running("ann") == 8, "no compile is ended for that"
        await level(farm, 4, ann, ben)
        # Who wants less for a moment loses places, until a compile of the other ends.
        ann.let(10_000)
        ben.let(99)
        await few
        ben.check(range(24))
        ann.let(farm.journal.starts("ann"))
        await ann.wait(lambda: farm.journal.running("ann") == 8)
        assert farm.journal.most == 8
        await ended(flood)


async def test_the_places_of_a_killed_worker_come_back(two: SharedFarm) -> None:
    """What a dead worker holds is held for the time of the lease, and then granted again."""
    units = range(6)
    async with two.process("w1", 4) as victim, two.build("ann") as ann:
        running = asyncio.ensure_future(ann.run(range(4), jobs=4, seconds=0))
        await ann.wait(lambda: two.journal.running("ann") == 2)
        await ann.wait(lambda: two.held("w1") == 2)
        victim.send_signal(signal.SIGKILL)
        await victim.wait()
        await ended(running)
    async with two.worker("w2", 4, scheduler=1), two.build("bob", scheduler=1) as bob:
        building = asyncio.ensure_future(bob.run(units, jobs=4, seconds=0))
        await bob.wait(lambda: two.journal.running("bob") == 2)
        assert two.held("w1") == 0
        await bob.wait(lambda: two.held("w2") == 2)
        bob.let(99)
        await building
        bob.check(units)


async def test_a_worker_that_stops_gives_its_places_back(two: SharedFarm) -> None:
    async with two.build("ann") as ann:
        async with two.worker("w1", 4):
            building = asyncio.ensure_future(ann.run(range(4), jobs=4, seconds=0))
            await ann.wait(lambda: two.journal.running("ann") == 2)
            await ann.wait(lambda: two.held() == 2)
            ann.let(99)
            await building
        assert two.held() == 0


async def settled(farm: SharedFarm, build: GatedBuild) -> None:
    """Wait until the schedulers know all that they need while the store is away.

    A worker without a place then gets one, beyond the limit; places that a scheduler has not heard
    of are granted twice; and no scheduler can look up another one's key of results.
    """
    workers = ("w1", "w2")
    await build.wait(lambda: all(map(farm.held, workers)))
    before = [*map(farm.renewed, workers)]
    await build.wait(
        lambda: all(farm.renewed(w) > end for w, end in zip(workers, before, strict=True))
    )
    keys = farm.result_keys()
    assert len(keys) == len(workers)
    for key in keys:
        assert await build.connection.result_keys.key(TENANT, key) is not None


@pytest.mark.nightly
async def test_without_the_store_builds_go_on_and_shares_stay(
    tmp_path: Path, postgres: PrivatePostgres
) -> None:
    async with (
        shared_farm(tmp_path, [policy(farm_execs=3)], cluster=postgres) as farm,
        # No worker alone has three places.
        farm.workers("w1", "w2", places=2),
        farm.build("ann") as ann,
    ):
        building = asyncio.ensure_future(ann.run(range(30), jobs=6, seconds=0))
        await ann.wait(lambda: farm.journal.running("ann") == 3)
        await settled(farm, ann)
        started = farm.journal.starts("ann")
        await asyncio.to_thread(postgres.stop)
        try:
            ann.let(started + 7)
            await ann.wait(lambda: farm.journal.starts("ann") >= started + 9)
        finally:
            await asyncio.to_thread(postgres.start)
        ann.let(99)
        await building
        ann.check(range(30))
        assert farm.journal.starts("ann") == 30
        assert farm.journal.most == 3
