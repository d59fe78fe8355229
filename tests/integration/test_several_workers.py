"""One build on several workers: all are used, and none that fails costs the build anything."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.config.paths import Paths
from hpcc.config.private_file import write_private_file
from hpcc.core import Isolation
from hpcc.dispatch import calls, routes
from hpcc.dispatch.channels import MAX_CHANNELS
from hpcc.identity.token import RouteClaims, _claims, _object
from hpcc.rpc.scheduler.api import MAX_ROUTES, Admission, Registration, Route, RouteAsk
from hpcc.rpc.scheduler.client import RegistryClient, SchedulerClient
from hpcc.scheduler.tenants.table import TenantPolicy, TenantQuotas
from hpcc_testkit.farm.in_process import TENANT, FarmUnderTest, farm_under_test
from hpcc_testkit.farm.policies import PolicyAuthenticator
from hpcc_testkit.farm.several import (
    build_on,
    by_worker,
    worker,
    worker_process,
    workers,
)
from hpcc_testkit.guests.fake_runtime import FakeRuntime

pytestmark = pytest.mark.timeout(180)

TEN = tuple(f"w{number}" for number in range(1, 11))


def unverified(token: str) -> RouteClaims:
    return _claims(_object(token.split(".")[1]))


def tenant(quotas: TenantQuotas) -> TenantPolicy:
    return TenantPolicy(
        tenant=TENANT, identity=None, images=(), minimum_isolation=Isolation.LOCAL_NONE,
        quotas=quotas,
    )  # fmt: skip


class Peak:
    """Counts the compiles that run at the same time in the guests of some workers."""

    def __init__(self, *runtimes: FakeRuntime) -> None:
        self._runtimes, self.most = runtimes, 0

    async def watch(self) -> None:
        while True:
            guests = [g for r in self._runtimes for g in r.running]
            self.most = max(self.most, sum(len(g._processes) for g in guests))
            await asyncio.sleep(0.005)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no delay of a busy machine count as a queue or as a worker that is slow to open."""
    for name in ("OPENING_SECONDS", "_QUEUED_SECONDS"):
        monkeypatch.setattr(routes, name, 60.0)


@pytest.mark.usefixtures("patient")
async def test_two_workers_of_two_slots_are_both_busy_with_one_build(tmp_path: Path) -> None:
    units = range(16)
    async with (
        farm_under_test(tmp_path) as farm,
        workers(farm, "w1", "w2", slots=2) as runtimes,
        build_on(farm) as build,
    ):
        peaks = {name: Peak(runtime) for name, runtime in runtimes.items()}
        watches = [asyncio.ensure_future(peak.watch()) for peak in peaks.values()]
        await build.run(units, jobs=4, seconds=0.3)
        for watch in watches:
            watch.cancel()
        build.check(units)
        assert {name: peak.most for name, peak in peaks.items()} == {"w1": 2, "w2": 2}
        assert sum(by_worker(farm).values()) == len(units), "each unit ran once"


@pytest.mark.usefixtures("patient")
async def test_a_build_that_one_worker_can_take_uses_one(tmp_path: Path) -> None:
    units = range(8)
    async with (
        farm_under_test(tmp_path) as farm,
        workers(farm, "w1", "w2", slots=2),
        build_on(farm) as build,
    ):
        await build.run(units, jobs=2, seconds=0.05)
        build.check(units)
        assert len(by_worker(farm)) == 1


@pytest.mark.parametrize("jobs", [10, 40])
async def test_ten_workers_of_one_slot_are_all_busy(tmp_path: Path, jobs: int) -> None:
    units = range(60)
    async with (
        farm_under_test(tmp_path) as farm,
        workers(farm, *TEN),
        build_on(farm) as build,
    ):
        await build.run(units, jobs, seconds=0.4)
        build.check(units)
        rows = by_worker(farm)
        assert len(rows) == 10, rows
        assert sum(rows.values()) == len(units), "each unit ran once"


async def test_another_machine_finds_what_the_build_left_at_all_workers(tmp_path: Path) -> None:
    """The workers share no store, so the second machine asks each of them."""
    units = range(24)
    async with farm_under_test(tmp_path) as farm, workers(farm, "w1", "w2", "w3", "w4"):
        async with build_on(farm) as build:
            await build.run(units, jobs=8)
            build.check(units)
            assert len(by_worker(farm)) == 4
        async with build_on(farm) as again:
            await again.run(units, jobs=4)
            again.check(units)
            assert again.cached == len(units)


async def test_workers_with_one_store_are_not_all_asked(tmp_path: Path) -> None:
    """What the first of them lacks, the others lack too."""
    async with (
        farm_under_test(tmp_path) as farm,
        workers(farm, "w1", "w2"),
        build_on(farm) as build,
    ):
        first = await build.connection.worker()
        assert build.connection.may_have_others(first)
        shared = replace(first, route=replace(first.route, store="ab"))
        assert not build.connection.may_have_others(shared)


async def test_a_worker_that_is_killed_in_mid_build_costs_no_compile(tmp_path: Path) -> None:
    units = range(40)
    async with (
        farm_under_test(tmp_path) as farm,
        worker_process(farm, "w1", 5) as victim,
        workers(farm, "w2", "w3"),
        build_on(farm) as build,
    ):
        running = asyncio.ensure_future(build.run(units, jobs=10, seconds=0.3))
        await build.until(lambda: len(build.outcomes) >= 8)
        victim.send_signal(signal.SIGKILL)
        await running
        build.check(units)
        assert set(by_worker(farm)) == {"w2", "w3"}


async def test_a_worker_that_joins_in_mid_build_gets_work(tmp_path: Path) -> None:
    units = range(40)
    async with farm_under_test(tmp_path) as farm, workers(farm, "w1"), build_on(farm) as build:
        running = asyncio.ensure_future(build.run(units, jobs=6, seconds=0.2))
        await build.until(lambda: len(build.outcomes) >= 3)
        async with worker(farm, "w2", 1):
            await build.until(lambda: by_worker(farm)["w2"] > 0)
            assert len(build.outcomes) < len(units) * 3 // 4, "it took too long to be found"
            await running
        build.check(units)


async def test_a_worker_that_leaves_in_mid_build_ends_its_compiles(tmp_path: Path) -> None:
    units = range(30)
    async with farm_under_test(tmp_path) as farm, workers(farm, "w1"), build_on(farm) as build:
        async with worker(farm, "w2", 2):
            running = asyncio.ensure_future(build.run(units, jobs=6, seconds=0.2))
            await build.until(lambda: len(build.outcomes) >= 6)
        left = len(build.outcomes)
        await running
        build.check(units)
        assert left < len(units)
        assert len(by_worker(farm)) == 2


async def test_workers_that_flap_do_not_stop_a_build(tmp_path: Path) -> None:
    units = range(40)
    async with farm_under_test(tmp_path) as farm, workers(farm, "w1"), build_on(farm) as build:

        async def flap(name: str) -> None:
            while not build.ended.is_set():
                async with worker(farm, name, 1):
                    await asyncio.sleep(0.5)
                await asyncio.sleep(0.1)

        async with asyncio.TaskGroup() as group:
            for name in ("w2", "w3"):
                group.create_task(flap(name))
            await build.run(units, jobs=8)
        build.check(units, may_be_local=True)


async def test_a_worker_that_says_it_has_room_and_has_none_gets_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = RegistryClient.register

    async def boast(client: RegistryClient, registration: Registration) -> Admission:
        if registration.worker_id == "w1":
            registration = replace(registration, capacity=64)
        return await honest(client, registration)

    monkeypatch.setattr(RegistryClient, "register", boast)
    units = range(40)
    async with (
        farm_under_test(tmp_path) as farm,
        workers(farm, "w1", "w2", "w3"),
        build_on(farm) as build,
    ):
        await build.run(units, jobs=9)
        build.check(units)
        rows = by_worker(farm)
        assert len(rows) == 3, rows
        lane = next(x for x in build.connection._book.lanes if x.route.worker_id == "w1")
        assert lane.limit < lane.slots == 64


async def test_a_worker_that_stops_answering_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "STALL_SECONDS", 1.0)
    monkeypatch.setattr(calls, "DIAL_SECONDS", 1.0)
    units = range(24)
    async with (
        farm_under_test(tmp_path) as farm,
        worker_process(farm, "w1", 2) as victim,
        workers(farm, "w2"),
        build_on(farm) as build,
    ):
        running = asyncio.ensure_future(build.run(units, jobs=4, seconds=0.2))
        await build.until(lambda: len(build.outcomes) >= 4)
        victim.send_signal(signal.SIGSTOP)
        await running
        build.check(units)


async def test_a_scheduler_that_hands_out_dead_routes_delays_one_compile_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, dials = SchedulerClient.route, list[object]()

    async def lie(client: SchedulerClient, session: str, ask: RouteAsk) -> Route:
        route = await honest(client, session, ask)
        dead = [
            replace(route, endpoint=f"127.0.0.1:{port}", worker_id=f"dead-{port}", more=())
            for port in (1, 2)
        ]
        return replace(route, more=(*dead, *route.more)) if ask.wanted > 1 else route

    async def dial(channel: object, seconds: float) -> None:
        dials.append(channel)
        await honest_dial(channel, seconds)  # type: ignore[arg-type]  # a channel

    honest_dial = calls.dial
    monkeypatch.setattr(SchedulerClient, "route", lie)
    monkeypatch.setattr(calls, "dial", dial)
    monkeypatch.setattr(calls, "DIAL_SECONDS", 1.0)
    units = range(24)
    async with (
        farm_under_test(tmp_path) as farm,
        workers(farm, "w1", "w2"),
        build_on(farm) as build,
    ):
        await build.run(units, jobs=6)
        build.check(units)
        assert sum(build.runs(n) for n in units) == len(units), "nothing ran twice"
        assert by_worker(farm).keys() == {"w1", "w2"}


@pytest.mark.usefixtures("patient")
async def test_a_quota_does_not_multiply_by_the_number_of_routes(tmp_path: Path) -> None:
    """Three workers of two slots: the tenant's three compiles at once are split, not granted anew."""
    policy = tenant(TenantQuotas(concurrent_execs=3, upload_bytes=9 << 20))
    units = range(18)
    async with (
        farm_under_test(tmp_path, authenticator=PolicyAuthenticator(policy)) as farm,
        workers(farm, "w1", "w2", "w3", slots=2) as runtimes,
        build_on(farm) as build,
    ):
        peak = Peak(*runtimes.values())
        watch = asyncio.ensure_future(peak.watch())
        await build.run(units, jobs=9)
        watch.cancel()
        build.check(units)
        assert 1 < peak.most <= 3
        lanes = build.connection._book.lanes
        assert [lane.slots for lane in lanes] == [2, 1]
        shares = [claims.share for claims in map(unverified, (x.route.token for x in lanes))]
        assert [s.in_flight for s in shares if s is not None] == [2, 1]
        assert sum(s.upload_bytes for s in shares if s is not None) == 9 << 20


async def jobs(farm: FarmUnderTest, directory: Path) -> tuple[int, str, str]:
    """Run `hpcc jobs` as a user of the farm."""
    env = {"HPCC_DIR": str(directory / "h"), "PATH": os.environ["PATH"], "HOME": "/"}
    paths = Paths.from_env(env)
    await asyncio.to_thread(paths.farm_file.parent.mkdir, parents=True, exist_ok=True)
    write_private_file(paths.farm_file, farm.farm("ann").to_json().encode())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hpcc.cli", "jobs", env=env,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


async def test_hpcc_jobs_prints_what_the_farm_takes(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path) as farm:
        async with workers(farm, "w1", "w2", slots=2), worker(farm, "w3", 3):
            assert await jobs(farm, tmp_path) == (0, "7\n", "")
        code, out, errors = await jobs(farm, tmp_path)
        assert (code, int(out)) == (0, len(os.sched_getaffinity(0)))
        assert errors.startswith("hpcc: the number of this machine's processors: ")


async def test_hpcc_jobs_prints_no_more_than_the_quota(tmp_path: Path) -> None:
    quotas = TenantQuotas(concurrent_execs=3)
    async with (
        farm_under_test(tmp_path, authenticator=PolicyAuthenticator(tenant(quotas))) as farm,
        workers(farm, "w1", "w2", slots=2),
    ):
        assert await jobs(farm, tmp_path) == (0, "3\n", "")


async def test_each_token_is_bound_to_its_worker_principal_and_key(tmp_path: Path) -> None:
    async with (
        farm_under_test(tmp_path) as farm,
        workers(farm, "w1", "w2", "w3"),
        build_on(farm) as build,
    ):
        await build.run(range(6), jobs=6)
        lanes = build.connection._book.lanes
        claims = [unverified(lane.route.token) for lane in lanes]
        assert len({c.audience for c in claims}) == len({c.token_id for c in claims}) == 3
        assert {c.subject for c in claims} == {"ann"}
        assert {c.client_key for c in claims} == {build.connection._channels.public_key}


async def test_a_client_that_knows_one_route_gets_one(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path) as farm, workers(farm, "w1", "w2", "w3"):
        route = await farm.route()
        assert route.more == ()


def test_each_route_of_an_answer_keeps_its_channel() -> None:
    assert MAX_ROUTES <= MAX_CHANNELS
