"""Results and claims of workers without a common store meet, so a rebuild hits as with one worker."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpcc.core import RemoteResult
from hpcc.dispatch import calls, meeting
from hpcc.dispatch.channels import RoutedWorker
from hpcc.rpc.reapi.meeting import Known
from hpcc.rpc.scheduler.api import Route, RouteAsk
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc.store.disk_actions import sharing_directory
from hpcc_testkit.farm.in_process import TENANT, FarmUnderTest, farm_under_test
from hpcc_testkit.farm.policies import PolicyAuthenticator
from hpcc_testkit.farm.several import EqualBuild, build_on, by_worker, worker, workers
from hpcc_testkit.guests.fake_runtime import FakeRuntime
from hpcc_testkit.hostile.rooted_farm import LABEL, RootableGuest, people, until

pytestmark = pytest.mark.timeout(180)
UNITS = range(12)


class Machines(FakeRuntime):
    """Guests with the label of a microVM, for which an agreement needs no second worker."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, isolation=LABEL, guest_class=RootableGuest)


async def build(farm: FarmUnderTest, person: str, machine: str = "m", jobs: int = 4) -> int:
    """Build all units on a new machine of a person; return how many hit."""
    async with build_on(farm, person, machine, EqualBuild) as made:
        await made.run(UNITS, jobs=jobs, seconds=0)
        made.check(UNITS)
        return made.cached


def entries(farm: FarmUnderTest, kind: str) -> int:
    """Return how many files of a kind the workers have."""
    names = ("w1", "w2")
    stores = [farm.worker_config(name).store for name in names]
    roots = {sharing_directory(Path(store), TENANT, LABEL, kind) for store in stores}
    files = [f for root in roots for f in root.rglob("*")]
    return sum(f.is_file() and not f.name.startswith(".") for f in files)


async def test_colleagues_hit_on_two_workers_as_on_one(tmp_path: Path) -> None:
    """Ann and Bob make each unit, perhaps at different workers, and then it is Carol's too."""
    async with (
        farm_under_test(tmp_path, authenticator=PolicyAuthenticator(people())) as farm,
        workers(farm, "w1", "w2", slots=2, runtime_class=Machines),
    ):
        assert await build(farm, "ann") == 0
        assert len(by_worker(farm)) == 2
        # Each claim is an object and an index. The first compile of a guest is shared at once.
        await until(lambda: entries(farm, "shared") + entries(farm, "claims") // 2 == len(UNITS))
        fresh = await build(farm, "bob")
        assert fresh <= entries(farm, "shared")
        await until(lambda: entries(farm, "shared") == len(UNITS))
        ran = sum(by_worker(farm).values())
        assert ran == 2 * len(UNITS) - fresh
        assert await build(farm, "carol") == len(UNITS)
        assert await build(farm, "ann", "another") == len(UNITS)
        assert sum(by_worker(farm).values()) == ran, "nothing was made again"


async def test_a_rebuild_hits_after_a_worker_joined_and_what_a_leaving_one_had_is_all_it_misses(
    tmp_path: Path,
) -> None:
    async with farm_under_test(tmp_path) as farm, worker(farm, "w1", 2):
        async with AsyncExitStack() as leaving:
            await leaving.enter_async_context(worker(farm, "w2", 2))
            assert await build(farm, "ann") == 0
            made = by_worker(farm)
            assert made.keys() == {"w1", "w2"}
            assert await build(farm, "ann", "second") == len(UNITS)
            await leaving.enter_async_context(worker(farm, "w3", 2))
            assert await build(farm, "ann", "third") == len(UNITS)
        assert by_worker(farm) == made
        # One by one, so that no unit is asked for while the first ones decide whether others are.
        assert await build(farm, "ann", "fourth", jobs=1) == made["w1"]


async def test_the_meeting_place_and_its_notes_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit that nobody made costs one question, and one that was made elsewhere two."""
    monkeypatch.setattr(meeting, "_MAX_CACHES", 0)
    new = range(100, 112)
    async with farm_under_test(tmp_path) as farm, workers(farm, "w1", "w2", "w3", slots=2):
        assert await build(farm, "ann", jobs=6) == 0
        assert len(by_worker(farm)) == 3
        async with build_on(farm, "ann", "second", EqualBuild) as second:
            results, asked = second.dispatcher._results, Counter[bool]()
            honest = results.look

            async def look(*args: Any, **more: Any) -> RemoteResult | Known:
                seen = await honest(*args, **more)
                asked[isinstance(seen, Known)] += 1
                return seen

            monkeypatch.setattr(results, "look", look)
            await second.run([*new, *UNITS], jobs=4, seconds=0)
            second.check([*new, *UNITS])
            assert second.cached == len(UNITS)
        assert asked[False] == len(UNITS)
        assert len(new) <= asked[True] <= len(new) + len(UNITS)


async def test_a_dead_meeting_place_costs_one_dial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, honest_reached = SchedulerClient.route, calls.WorkerCalls.reached
    dials = Counter[str]()

    async def lie(client: SchedulerClient, session: str, ask: RouteAsk) -> Route:
        route = await honest(client, session, ask)
        dead = replace(route, endpoint="127.0.0.1:1", worker_id="dead", more=())
        return replace(route, more=(*route.more, dead)) if ask.wanted > 1 else route

    def reached(self: calls.WorkerCalls, worker: RoutedWorker) -> AbstractAsyncContextManager[None]:
        dials[worker.route.worker_id] += 1
        return honest_reached(self, worker)

    monkeypatch.setattr(SchedulerClient, "route", lie)
    monkeypatch.setattr(calls.WorkerCalls, "reached", reached)
    monkeypatch.setattr(calls, "DIAL_SECONDS", 1.0)
    async with farm_under_test(tmp_path) as farm, workers(farm, "w1", "w2"):
        async with build_on(farm, "ann", "m", EqualBuild) as made:
            await made.run(UNITS, jobs=1, seconds=0)
            made.check(UNITS)
            assert {x.route.worker_id for x in made.connection._book.lanes} == {"w1", "w2"}
        assert dials["dead"] == 1
        assert sum(by_worker(farm).values()) == len(UNITS)
