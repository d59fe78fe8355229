"""One build on 1, 2, 4 and 8 workers of one slot each, and a worker that is added in mid-build.

Launchers, daemon, dispatcher, scheduler, TLS, tokens and worker processes are real. A program that
sleeps stands for the compiler in the workers' guests, so that a few cores are enough for eight
workers. The build is the same each time: as many units and as many jobs.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from _farm_rows import Figure
from _measure import BenchError
from _tools import HPCC
from client_cost import Client

from hpcc_testkit.farm.in_process import FarmUnderTest, farm_under_test
from hpcc_testkit.farm.several import worker_process

SLEEPER: Final = Path(__file__).with_name("_farm_sleeper.py")
WORKERS: Final = (1, 2, 4, 8)
# Of the number of workers.
GOAL: Final = 0.9
BUSY_GOAL_SECONDS: Final = 2.0
# The share of units that may be left to the client's machine, as on one that is busy otherwise.
MAX_LOCAL: Final = 0.01
_POLL_SECONDS: Final = 0.01
_LONGEST_SECONDS: Final = 1800.0


@dataclass(frozen=True, slots=True)
class Scale:
    """The build: so many units, each of which sleeps in its guest, with so many jobs."""

    units: int = 320
    jobs: int = 16
    sleep: float = 1.0
    workers: tuple[int, ...] = WORKERS
    joins: int = 3


@dataclass(frozen=True, slots=True)
class Run:
    """One execution in a guest: the worker's process, and monotonic times in seconds."""

    worker: int
    started: float
    ended: float


class Farm:
    """A scheduler, worker processes of one slot each, and one client with its daemon."""

    def __init__(self, farm: FarmUnderTest, scale: Scale, stack: AsyncExitStack) -> None:
        self._farm, self._scale, self._stack = farm, scale, stack
        self._runs = farm.directory / "runs"
        self._runs.touch()
        self.client = Client(farm.directory / "client", farm.farm().to_json(), is_flat=False)
        self._next = 0

    async def add_worker(self) -> int:
        """Start a worker; return its process's id when it is registered."""
        self._next += 1
        env = {
            **os.environ,
            "HPCC_BENCH_SLEEP": str(self._scale.sleep),
            "HPCC_BENCH_RUNS": str(self._runs),
            "GRPC_ENABLE_FORK_SUPPORT": "0",
        }
        process = await self._stack.enter_async_context(
            worker_process(self._farm, f"w{self._next}", 1, (str(SLEEPER),), env)
        )
        return process.pid

    def runs(self) -> list[Run]:
        """Return the executions that have ended so far."""
        return [Run(*json.loads(line)) for line in self._runs.read_text().splitlines()]

    async def build(self, units: Sequence[str], is_enough: Callable[[], bool]) -> float:
        """Compile the units with all jobs, or until it is enough; return the seconds."""
        places = asyncio.Semaphore(self._scale.jobs)

        async def compile(unit: str) -> None:
            async with places:
                if is_enough():
                    return
                process = await asyncio.create_subprocess_exec(
                    str(HPCC), "gcc", *self.client.flags, "-I.", "-w", "-MD", "-c", unit,
                    "-o", f"{unit}.o", cwd=self.client.project, env=self.client.env,
                    stdin=asyncio.subprocess.DEVNULL,
                )  # fmt: skip
                if await process.wait():
                    raise BenchError(f"{unit} failed")

        begun = time.monotonic()
        async with asyncio.timeout(_LONGEST_SECONDS), asyncio.TaskGroup() as group:
            for unit in units:
                group.create_task(compile(unit))
        return time.monotonic() - begun

    def check(self, units: Sequence[str]) -> int:
        """Return how many units the farm did not make, because a machine without time lost calls.

        Raises:
            BenchError: they are more than a few: the figure would be another one.
        """
        project = self.client.project
        local = sum(
            (project / unit).read_bytes() != (project / f"{unit}.o").read_bytes() for unit in units
        )
        if local > MAX_LOCAL * len(units):
            raise BenchError(f"{local} units were not made on the farm: {self.client.counts()}")
        return local


@asynccontextmanager
async def opened(directory: Path, scale: Scale, workers: int) -> AsyncGenerator[Farm]:
    """Run a farm of so many workers, and a client that has compiled one unit on it."""
    async with farm_under_test(directory) as under_test, AsyncExitStack() as stack:
        farm = Farm(under_test, scale, stack)
        stack.callback(farm.client.close)
        for _ in range(workers):
            await farm.add_worker()
        farm.client.write("warm.c")
        await farm.build(["warm.c"], never)
        yield farm


def written(farm: Farm, scale: Scale) -> list[str]:
    units = [f"unit{number}.c" for number in range(scale.units)]
    for unit in units:
        farm.client.write(unit)
    return units


class ScaleBench:
    """Measures the speed-up, and how soon a worker that joins is busy."""

    def __init__(self, scale: Scale, directory: Path, show: Callable[[Figure], None]) -> None:
        self._scale, self._directory, self._show = scale, directory, show

    def run(self) -> None:
        """Build with each number of workers, then with one that joins.

        Raises:
            BenchError: a unit failed, or was not made on the farm.
        """
        scale, show = self._scale, self._show
        show(Figure("units", scale.units, f"of {scale.sleep:g} s in the guest, -j{scale.jobs}"))
        alone = 0.0
        for count in scale.workers:
            seconds, idle = asyncio.run(self._built(count))
            alone = alone or seconds * count
            show(Figure(f"{count} workers: the build", seconds, "s"))
            ideal = scale.units * scale.sleep / count
            show(Figure(f"{count} workers: beside sleep x units / workers", seconds / ideal, ""))
            show(Figure(f"{count} workers: a slot is idle between two units", 1e3 * idle, "ms"))
            if count > 1:
                what = f"{count} workers: speed-up by workers"
                show(Figure(what, alone / seconds / count, "", GOAL, is_least=True))
        if not scale.joins:
            return
        joined = [asyncio.run(self._joined(number)) for number in range(scale.joins)]
        what = f"a worker added in mid-build is busy after, the longest of {scale.joins}"
        show(Figure(what, max(joined), "s", BUSY_GOAL_SECONDS))

    async def _built(self, count: int) -> tuple[float, float]:
        """Return the build's seconds, and how long a slot had nothing to do before each unit."""
        async with opened(self._directory / f"on-{count}", self._scale, count) as farm:
            units = written(farm, self._scale)
            seconds = await farm.build(units, never)
            local, runs = farm.check(units), farm.runs()
            if local:
                self._show(Figure(f"{count} workers: units left to the client", local, "", 0))
            elif len(runs) != len(units) + 1:
                raise BenchError(f"{len(runs)} executions for {len(units) + 1} units")
            used = {run.worker for run in runs}
            if len(used) != count:
                raise BenchError(f"{len(used)} of {count} workers were used")
            gaps = [gap for worker in used for gap in idle([r for r in runs if r.worker == worker])]
            return seconds, sum(gaps) / len(gaps)

    async def _joined(self, number: int) -> float:
        """Return the seconds from a worker's registration to the start of its first program."""
        async with opened(self._directory / f"join-{number}", self._scale, 2) as farm:
            units = written(farm, self._scale)
            newcomer = 0

            def starts() -> list[float]:
                return [run.started for run in farm.runs() if run.worker == newcomer]

            building = asyncio.ensure_future(farm.build(units, lambda: bool(starts())))
            enough = 1 + self._scale.jobs // 2
            while len(farm.runs()) < enough and not building.done():  # noqa: ASYNC110 - a file
                await asyncio.sleep(_POLL_SECONDS)
            newcomer = await farm.add_worker()
            ready = time.monotonic()
            await building
            if not starts():
                raise BenchError("the worker that was added got no compile")
            return max(min(starts()) - ready, 0.0)


def never() -> bool:
    return False


def idle(runs: Sequence[Run]) -> list[float]:
    """Return how long a worker waited before each run; not before the build's first there."""
    ordered = sorted(runs, key=lambda run: run.started)[1:]
    return [later.started - run.ended for run, later in pairwise(ordered)]
