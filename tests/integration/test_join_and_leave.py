"""A build goes on while workers join and leave, whichever way they leave."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from hpcc.core import RemoteOutcome, RemoteRequest, RemoteResult
from hpcc.dispatch import calls
from hpcc.dispatch.compile import Dispatcher
from hpcc.dispatch.farm import FarmConnection
from hpcc.dispatch.routes import Lane
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.scheduler.api import Route, RouteAsk
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc_testkit.farm.in_process import FarmUnderTest, farm_under_test
from hpcc_testkit.farm.several import Build, build_on, worker_process, workers

# In turn: an orderly stop, a process that dies, and a machine that does not answer any more.
WAYS = (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP)

# A machine on which workers start slowly builds more units, at most so many times as many.
_MOST = 10


class Dials:
    """Notes, for each compile, the dials that waited in vain for the whole dial timeout."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._mine = ContextVar[list[tuple[float, float]]]("mine")
        self.of_compiles: list[list[tuple[float, float]]] = []
        honest_compile, honest_dial = Dispatcher.compile, calls.dial

        async def compile(
            dispatcher: Dispatcher, connection: FarmConnection, request: RemoteRequest
        ) -> RemoteOutcome:
            self._mine.set([])
            self.of_compiles.append(self._mine.get())
            return await honest_compile(dispatcher, connection, request)

        async def dial(channel: grpc.aio.Channel, seconds: float) -> None:
            begun = asyncio.get_running_loop().time()
            try:
                await honest_dial(channel, seconds)
            except UnavailableError as error:
                if "no connection in" in str(error):
                    self._mine.get([]).append((begun, asyncio.get_running_loop().time()))
                raise

        monkeypatch.setattr(Dispatcher, "compile", compile)
        monkeypatch.setattr(calls, "dial", dial)

    def most_in_a_row(self) -> int:
        """Return how many such waits a compile had one after the other, at most."""
        return max(map(in_a_row, self.of_compiles), default=0)


def in_a_row(waits: list[tuple[float, float]]) -> int:
    count, end = 0, float("-inf")
    for begun, ended in sorted(waits, key=lambda wait: wait[1]):
        if begun >= end:
            count, end = count + 1, ended
    return count


async def come_and_go(farm: FarmUnderTest, build: Build, period: float, left: Counter[str]) -> None:
    """Let a worker join, and leave after the period while compiles are under way there."""

    def in_flight(name: str) -> int:
        lanes = build.connection._book.lanes
        return sum(lane.in_flight for lane in lanes if lane.route.worker_id == name)

    for number in itertools.count():
        way, name = WAYS[number % len(WAYS)], f"guest-{number}"
        async with worker_process(farm, name, 2) as process:
            await build.until(lambda name=name: in_flight(name) > 0)
            await asyncio.sleep(period)
            await build.until(lambda name=name: in_flight(name) > 0)
            process.send_signal(way)
            left[way.name] += 1
            # Another one comes when the build has noticed.
            await build.until(lambda name=name: in_flight(name) == 0)


async def build_while_workers_come_and_go(
    directory: Path, count: int, seconds: float, period: float
) -> None:
    """Build so many units at least, and until a worker has left in each way."""
    left = Counter[str]()

    def units() -> Iterator[int]:
        for number in range(_MOST * count):
            if number >= count and len(left) == len(WAYS):
                return
            yield number

    async with (
        farm_under_test(directory) as farm,
        workers(farm, "w1", "w2", slots=2),
        build_on(farm) as build,
    ):
        coming = asyncio.ensure_future(come_and_go(farm, build, period, left))
        try:
            await build.run(units(), jobs=12, seconds=seconds)
        finally:
            coming.cancel()
            await asyncio.wait((coming,))
        assert len(left) == len(WAYS), left
        assert len(build.outcomes) >= count
        build.check(build.outcomes)
        results = [x for x in build.outcomes.values() if isinstance(x, RemoteResult)]
        assert not any(result.is_cached for result in results)


async def opened(build: Build) -> Lane:
    """Let the first worker take a compile, so that it has room for all that come next."""
    await build.run((1000,), jobs=1, seconds=0)
    build.ended.clear()
    (lane,) = build.connection._book.lanes
    return lane


def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notice a machine that does not answer sooner than in a real build."""
    monkeypatch.setattr(calls, "STALL_SECONDS", 1.0)
    monkeypatch.setattr(calls, "DIAL_SECONDS", 2.0)


@pytest.mark.timeout(240)
async def test_a_build_goes_on_while_workers_join_and_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient(monkeypatch)
    dials = Dials(monkeypatch)
    await build_while_workers_come_and_go(tmp_path, 300, seconds=0.2, period=0.5)
    assert dials.most_in_a_row() <= 1


@pytest.mark.nightly
@pytest.mark.timeout(900)
async def test_a_build_of_two_thousand_units_while_a_worker_joins_and_leaves_every_ten_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient(monkeypatch)
    dials = Dials(monkeypatch)
    await build_while_workers_come_and_go(tmp_path, 2000, seconds=0.3, period=10.0)
    assert dials.most_in_a_row() <= 1


async def test_ten_compiles_of_one_build_at_a_worker_that_is_killed_run_once_more(
    tmp_path: Path,
) -> None:
    units = range(12)
    async with (
        farm_under_test(tmp_path) as farm,
        worker_process(farm, "w1", 10) as victim,
        build_on(farm) as build,
    ):
        lane = await opened(build)
        running = asyncio.ensure_future(build.run(units, jobs=10, seconds=6.0))
        await build.until(lambda: sum(build.runs(number) for number in units) == 10)
        async with workers(farm, "w2", slots=10):
            assert lane.in_flight == 10
            victim.kill()
            await running
        build.check(units)
        assert [build.runs(number) for number in units] == [2] * 10 + [1] * 2


async def test_a_worker_that_never_answers_costs_no_compile_more_than_one_dial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections to it are accepted, and nothing is ever said there.

    The first compiles ask it for results, all at the same time. Later compiles do not.
    """
    monkeypatch.setattr(calls, "DIAL_SECONDS", 2.0)
    dials = Dials(monkeypatch)
    honest = SchedulerClient.route
    silent = socket.create_server(("127.0.0.1", 0))  # the kernel accepts
    address = f"127.0.0.1:{silent.getsockname()[1]}"

    async def lie(client: SchedulerClient, session: str, ask: RouteAsk) -> Route:
        route = await honest(client, session, ask)
        dead = replace(route, endpoint=address, worker_id="silent", more=())
        return replace(route, more=(dead, *route.more)) if ask.wanted > 1 else route

    monkeypatch.setattr(SchedulerClient, "route", lie)
    units, jobs = range(40), 6
    async with (
        farm_under_test(tmp_path) as farm,
        workers(farm, "w1", "w2"),
        build_on(farm) as build,
    ):
        await build.run(units, jobs, seconds=0.3)
        build.check(units)
        assert [build.runs(number) for number in units] == [1] * len(units)
        assert dials.most_in_a_row() == 1
        assert sum(map(len, dials.of_compiles)) <= jobs
    silent.close()
