"""Workers that are restarted or drained under a build: no compile is cut, lost or made twice."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpcc.core import NotFoundError, RemoteFailure, RemoteRequest, RemoteResult
from hpcc_testkit.farm.in_process import FarmUnderTest, farm_under_test
from hpcc_testkit.farm.processes import process_farm
from hpcc_testkit.farm.several import Build, build_on, worker, worker_process
from hpcc_testkit.suite.pipes import gone

pytestmark = pytest.mark.timeout(180)
LONG = 600.0


@asynccontextmanager
async def draining(
    farm: FarmUnderTest, name: str, *argv: str
) -> AsyncGenerator[AsyncIterator[dict[str, Any]]]:
    """Run `hpcc worker drain`; yield its lines as it prints them. It must end well."""
    file = str(farm.directory / f"{name}.json")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hpcc.cli", "worker", "drain", "--config", file, "--json", *argv,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    lines = process.stdout

    async def said() -> AsyncIterator[dict[str, Any]]:
        while line := await lines.readline():
            yield json.loads(line)

    yield said()
    assert await ended(process) == 0


@asynccontextmanager
async def compiling(build: Build, *units: int, seconds: float) -> AsyncGenerator[None]:
    """Compile units at the same time; the block begins when all of them run."""
    task = asyncio.ensure_future(build.run(units, jobs=len(units), seconds=seconds))
    await build.until(lambda: all(build.runs(unit) for unit in units))
    yield
    await task


async def ended(process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(60):
        return await gone(process)


class Gated(Build):
    """A build whose first two units run until its gate is opened."""

    @property
    def gate(self) -> Path:
        return self.directory / "gate"

    def request(self, number: int, seconds: float) -> RemoteRequest:
        request = Build.request(self, number, seconds)
        if number > 1:
            return request
        script = request.argv[2].replace(
            f"sleep {seconds}", f"while [ ! -e {self.gate} ]; do sleep 0.05; done"
        )
        return replace(request, argv=("sh", "-c", script))


async def test_a_restart_under_a_build_cuts_nothing_and_makes_nothing_twice(tmp_path: Path) -> None:
    async with (
        farm_under_test(tmp_path) as farm,
        worker_process(farm, "w1", 2, drain_seconds=LONG) as first,
        build_on(farm, build_class=Gated) as build,
    ):
        assert isinstance(build, Gated)
        # Too large for the answer: it is fetched when the worker has nothing left to run.
        large = "int x0;\n" * 300_000
        (build.directory / "0.c").write_text(large)
        async with compiling(build, 0, 1, seconds=0.0):
            async with worker(farm, "w2", 2):
                first.send_signal(signal.SIGTERM)
                while (await farm.route(worker="w1")).worker_id != "w2":  # noqa: ASYNC110 - a process
                    await asyncio.sleep(0.05)
                # By the same connection, which had only the route to the worker that ends.
                await build.run(range(2, 8), jobs=2, seconds=0.0)
                assert first.returncode is None, "it waits for the first two"
            build.gate.touch()
        assert await ended(first) == 0
        build.check(range(1, 8))
        outcome = build.outcomes[0]
        assert isinstance(outcome, RemoteResult), outcome
        assert outcome.outputs[0].data == large.encode()
        assert [build.runs(unit) for unit in range(8)] == [1] * 8


async def test_a_client_that_is_connected_and_compiles_nothing_delays_no_restart(
    tmp_path: Path,
) -> None:
    async with (
        farm_under_test(tmp_path) as farm,
        worker_process(farm, "w1", 1, drain_seconds=LONG) as process,
        build_on(farm) as build,
    ):
        await build.run([0], jobs=1, seconds=0.0)
        async with farm.worker_channel("bob") as (channel, _):
            await channel.channel_ready()
            process.send_signal(signal.SIGTERM)
            assert await ended(process) == 0
        build.check([0])


async def test_a_second_signal_ends_what_runs(tmp_path: Path) -> None:
    async with (
        farm_under_test(tmp_path) as farm,
        worker_process(farm, "w1", 1, drain_seconds=LONG) as process,
        build_on(farm) as build,
    ):
        async with compiling(build, 0, seconds=LONG):
            process.send_signal(signal.SIGINT)
            report = farm.directory / "worker" / "state" / "drain.json"
            await build.until(report.exists)
            with pytest.raises(NotFoundError):
                await farm.route()
            process.send_signal(signal.SIGINT)
            assert await ended(process) == 0
        outcome = build.outcomes[0]
        assert isinstance(outcome, RemoteFailure)
        # The worker says "draining", and the farm has only this one.
        assert (outcome.reason, build.runs(0)) == ("no-worker", 1), outcome


async def test_a_worker_is_drained_on_its_machine_and_taken_back(tmp_path: Path) -> None:
    async with (
        farm_under_test(tmp_path) as farm,
        worker_process(farm, "w1", 2, drain_seconds=LONG),
        build_on(farm, build_class=Gated) as build,
    ):
        assert isinstance(build, Gated)
        asked = ("--wait", "--reason", "kernel", "--deadline", "300")
        async with compiling(build, 0, 1, seconds=0.0), draining(farm, "w1", *asked) as lines:
            first = await anext(lines)
            assert (first["state"], first["compiles"], first["reason"]) == ("draining", 2, "kernel")
            assert 200 < first["seconds_left"] <= 300
            build.gate.touch()
            rest = [line async for line in lines]
            assert (rest[-1]["state"], rest[-1]["compiles"]) == ("drained", 0)
        build.check([0, 1])
        assert [build.runs(0), build.runs(1)] == [1, 1]
        with pytest.raises(NotFoundError):
            await farm.route()
        async with draining(farm, "w1", "--undo") as lines:
            assert [line["state"] async for line in lines] == [""]
        await until_routed(farm)
        await build.run([2], jobs=1, seconds=0.0)
        build.check([2])


async def until_routed(farm: FarmUnderTest) -> None:
    while True:
        try:
            await farm.route()
        except NotFoundError:
            await asyncio.sleep(0.1)
        else:
            return


async def test_an_operators_order_holds_over_restarts(tmp_path: Path) -> None:
    async with process_farm(tmp_path, scheduler={"lease_seconds": 2.0}) as farm:
        assert await farm.compiled(["a"]) == [False]
        said = await farm.hpcc("scheduler", "drain-worker", "w1", "--wait", "--reason", "kernel")
        assert said.splitlines()[-1].startswith("worker w1 is drained"), said
        assert "kernel" in said
        for part in ("worker", "scheduler"):
            await farm.kill(part)
            await (farm.start_worker() if part == "worker" else farm.start_scheduler())
            said = await farm.hpcc("scheduler", "drain-worker", "w1", "--wait", "--json")
            assert json.loads(said.splitlines()[-1])["state"] == "drained"
            with farm.client() as client:
                request = farm.request("b")
                outcome = await asyncio.to_thread(client.compile, request, lambda: False)
            assert isinstance(outcome, RemoteFailure), outcome
            assert outcome.reason in {"no-worker", "worker-gone", "draining"}
        await farm.hpcc("scheduler", "drain-worker", "w1", "--undo")
        await farm.back()
        wrong = await farm.hpcc("scheduler", "drain-worker", "w7", code=1)
        assert "no worker w7 was ever enrolled" in wrong
        wrong = await farm.hpcc("scheduler", "drain-worker", "w1", "--deadline", "-1", code=2)
        assert "--deadline" in wrong
