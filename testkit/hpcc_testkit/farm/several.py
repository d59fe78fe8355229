"""Several workers for one build: workers with fake guests, and a build of units that sleep.

A unit is a shell script that sleeps, then copies its source into its object. The workers run in
this process, or in another one where a test has to kill or stop them.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

from hpcc.config.private_file import write_private_file
from hpcc.core import RemoteFailure, RemoteInput, RemoteOutcome, RemoteRequest, RemoteResult
from hpcc.dispatch.compile import Dispatcher
from hpcc.dispatch.farm import FarmConnection, connect_farm
from hpcc.ports import SystemClock
from hpcc.worker.serve import serve_worker
from hpcc_testkit.farm.in_process import FakeImages, FarmUnderTest
from hpcc_testkit.guests.fake_runtime import FakeRuntime
from hpcc_testkit.suite.pipes import gone

_MIB: Final = 1 << 20
_LOST: Final = {"draining", "unavailable", "guest-lost", "worker-gone", "dial", "not-ready"}


def room(slots: int) -> dict[str, object]:
    """Return the settings of a worker with one guest of so many places."""
    return {"max_guests": 1, "vcpus": slots, "memory_mib": _MIB, "drain_seconds": 1.0}


@asynccontextmanager
async def worker(
    farm: FarmUnderTest, name: str, slots: int, runtime_class: type[FakeRuntime] = FakeRuntime
) -> AsyncGenerator[FakeRuntime]:
    """Run a worker in this process; its rows go to the farm's audit log."""
    base = farm.directory / name
    (base / "guests").mkdir(parents=True, exist_ok=True)
    (base / "image").touch()
    runtime = runtime_class(base / "guests")
    async with serve_worker(
        await farm.enrolling(name, **room(slots)),
        runtime=runtime,
        images=FakeImages(base / "image"),
        audit=farm.audit,
        clock=farm.clock,
        progress=lambda _: None,
    ):
        yield runtime


@asynccontextmanager
async def workers(
    farm: FarmUnderTest,
    *names: str,
    slots: int = 1,
    runtime_class: type[FakeRuntime] = FakeRuntime,
) -> AsyncGenerator[dict[str, FakeRuntime]]:
    """Run workers of these names."""
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(worker(farm, name, slots, runtime_class))
            for name in names
        }


@asynccontextmanager
async def worker_process(
    farm: FarmUnderTest,
    name: str,
    slots: int,
    program: Sequence[str] = ("-m", "hpcc_testkit.farm.worker"),
    env: Mapping[str, str] | None = None,
    **fields: object,
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Run a worker as a process that the test may kill or stop; `program` is Python's.

    `fields` are for its config file, `NAME.json` in the farm's directory.
    """
    config = await farm.enrolling(name, **{**room(slots), **fields})
    file = farm.directory / f"{name}.json"
    write_private_file(file, json.dumps(asdict(config), default=str).encode())
    process = await asyncio.create_subprocess_exec(
        sys.executable, *program, "--config", str(file), env=env,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        while not json.loads(await process.stdout.readline()).get("ready"):
            pass
        yield process
    finally:
        for number in (signal.SIGCONT, signal.SIGKILL):
            with suppress(ProcessLookupError):
                process.send_signal(number)
        await gone(process)


@dataclass(slots=True)
class Build:
    """One person's build on one machine: a dispatcher and its connection."""

    connection: FarmConnection
    dispatcher: Dispatcher
    directory: Path
    outcomes: dict[int, RemoteOutcome] = field(default_factory=dict)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def request(self, number: int, seconds: float) -> RemoteRequest:
        """Return the request of a unit. Its runs are counted in a file beside the object."""
        source = self.directory / f"{number}.c"
        if not source.exists():
            source.write_text(f"int x{number};\n")
        runs = self.directory / f"{number}.runs"
        script = f"echo >> {runs}; sleep {seconds}; cp {number}.c {number}.o"
        return RemoteRequest(
            argv=("sh", "-c", script),
            env=(("PATH", "/usr/bin:/bin"),),
            cwd="",
            inputs=(RemoteInput(f"{number}.c", str(source), is_executable=False),),
            outputs=(f"{number}.o",),
        )

    async def run(self, units: Iterable[int], jobs: int, seconds: float = 0.2) -> None:
        """Build units, `jobs` of them at the same time."""
        left = iter(units)

        async def job() -> None:
            for number in left:
                request = self.request(number, seconds)
                self.outcomes[number] = await self.dispatcher.compile(self.connection, request)

        async with asyncio.TaskGroup() as group:
            for _ in range(jobs):
                group.create_task(job())
        self.ended.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait while the build runs until something is so."""
        while not is_so():
            assert not self.ended.is_set(), "the build ended before that"
            await asyncio.sleep(0.02)

    def check(self, units: Iterable[int], *, may_be_local: bool = False) -> None:
        """Check that each unit has its object, made on the farm, and ran at most twice there.

        `may_be_local`: a unit that two workers lost is left to this machine.
        """
        for number in units:
            outcome = self.outcomes[number]
            assert self.runs(number) <= 2, (number, self.runs(number))
            if may_be_local and isinstance(outcome, RemoteFailure):
                assert outcome.reason in _LOST, (number, outcome)
                continue
            assert isinstance(outcome, RemoteResult), (number, outcome)
            (output,) = outcome.outputs
            assert output.data == f"int x{number};\n".encode()

    def runs(self, number: int) -> int:
        """Return how often a unit was started in a guest."""
        file = self.directory / f"{number}.runs"
        return len(file.read_text().splitlines()) if file.exists() else 0

    @property
    def cached(self) -> int:
        return sum(isinstance(o, RemoteResult) and o.is_cached for o in self.outcomes.values())


class EqualBuild(Build):
    """A build whose units are the same actions for everybody, on each machine."""

    def request(self, number: int, seconds: float) -> RemoteRequest:
        request = Build.request(self, number, seconds)
        return replace(request, argv=("sh", "-c", f"sleep {seconds}; cp {number}.c {number}.o"))


@asynccontextmanager
async def build_on(
    farm: FarmUnderTest,
    principal: str = "ann",
    name: str = "machine",
    build_class: type[Build] = Build,
) -> AsyncGenerator[Build]:
    """Connect a new machine of a person to the farm; `name` is its directory's."""
    directory = farm.directory / f"{principal}-{name}"
    await asyncio.to_thread(os.makedirs, directory, exist_ok=True)
    clock = SystemClock()
    dispatcher = Dispatcher(clock, timeout_seconds=90.0, version="t", build_id="b")
    try:
        async with connect_farm(farm.farm(principal), clock, "t") as connection:
            yield build_class(connection, dispatcher, directory)
    finally:
        dispatcher.close()


def by_worker(farm: FarmUnderTest) -> Counter[str]:
    """Count executions by worker, from the audit rows of the workers in this process."""
    return Counter(row.worker for row in farm.audit.rows if row.cache_status == "executed")
