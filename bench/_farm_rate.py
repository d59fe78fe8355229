"""How many compiles a second worker processes can serve: their CPU for each, with a stub.

The workers are real processes with TLS, tokens, stores, signed results and an audit trail. Several
clients with a connection each send units with 300 headers; the guest answers at once. Figures are
CPU time of the workers' processes, so other work on the machine matters less.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from _farm_rows import Figure
from _measure import BenchError, own_seconds

from hpcc.core import Digest, RemoteInput, RemoteRequest, RemoteResult, SharedInputs
from hpcc.dispatch.remote_frames import encode_inputs
from hpcc_testkit.farm.in_process import farm_under_test
from hpcc_testkit.farm.several import Build, build_on, worker_process

STUB: Final = Path(__file__).with_name("_farm_stub.py")
_OBJECT_BYTES: Final = 12 << 10
# By then the worker has a version of each file, and an edit is sent as the difference to it.
_WARM_UP: Final = 4
_BODY: Final = "".join(f"int f{i}(int n) {{ return n * {i}; }}\n" for i in range(300))


@dataclass(frozen=True, slots=True)
class Rate:
    """The load: so many compiles of each client, `jobs` of them at the same time."""

    clients: int = 4
    jobs: int = 4
    compiles: int = 100
    headers: int = 300
    # Worker processes beside each other on one machine.
    workers: tuple[int, ...] = (1, 2)


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of the workers' CPU and of time for a compile, and most bytes of one's memory."""

    cpu: float
    wall: float
    peak_bytes: int


class RateBench:
    """Measures the worker's part of a compile and computes what its processes can serve."""

    def __init__(self, rate: Rate, directory: Path, show: Callable[[Figure], None]) -> None:
        self._rate, self._directory, self._show = rate, directory, show

    def run(self) -> None:
        """Show the figures of one worker process, and of several.

        Raises:
            BenchError: a compile was not made on the worker.
        """
        show, rate = self._show, self._rate
        loads = [(rate.headers, count) for count in rate.workers] + [(0, 1)]
        for headers, workers in loads:
            spent = asyncio.run(self._spent(headers, workers))
            what = f"{headers} headers" + (f", {workers} worker processes" if workers > 1 else "")
            show(Figure(f"{what}: CPU of a compile", 1e3 * spent.cpu, "ms"))
            show(Figure(f"{what}: can be served, computed", workers / spent.cpu, "a second"))
            show(Figure(f"{what}: served here, clients beside it", 1 / spent.wall, "a second"))
            show(Figure(f"{what}: most memory of a process", spent.peak_bytes / 2**20, "MiB"))

    async def _spent(self, headers: int, workers: int) -> Spent:
        directory = self._directory / f"of-{headers}-by-{workers}"
        rate = self._rate
        env = {
            **os.environ,
            "HPCC_BENCH_OBJECT": str(_OBJECT_BYTES),
            "GRPC_ENABLE_FORK_SUPPORT": "0",
        }
        async with farm_under_test(directory) as farm, AsyncExitStack() as stack:
            slots = math.ceil(rate.clients * rate.jobs / workers)
            pids = [
                (
                    await stack.enter_async_context(
                        worker_process(farm, f"w{number}", slots, (str(STUB),), env)
                    )
                ).pid
                for number in range(1, workers + 1)
            ]
            tree = await asyncio.to_thread(_headers, directory / "inc", headers)
            clients = [
                _Client(await stack.enter_async_context(build_on(farm, f"p{number}")), tree)
                for number in range(rate.clients)
            ]
            await _all(clients, _WARM_UP * rate.jobs, rate.jobs)
            before, started = sum(map(own_seconds, pids)), time.monotonic()
            await _all(clients, rate.compiles, rate.jobs)
            count = rate.compiles * rate.clients
            wall = (time.monotonic() - started) / count
            cpu = (sum(map(own_seconds, pids)) - before) / count
            return Spent(cpu, wall, max(map(peak_bytes, pids)))


class _Client:
    """A build of one person: each job edits its unit again and again, below the same headers."""

    def __init__(self, build: Build, headers: bytes) -> None:
        self._build, self._headers, self._next = build, headers, 0

    async def run(self, compiles: int, jobs: int) -> None:
        left = iter(range(compiles))

        async def job(number: int) -> None:
            for _ in left:
                await self._compile(number)

        async with asyncio.TaskGroup() as group:
            for number in range(jobs):
                group.create_task(job(number))

    async def _compile(self, job: int) -> None:
        self._next += 1
        source = self._build.directory / f"unit{job}.c"
        # No two clients have the same text: a colleague's fresh result would be served.
        edit = f"{self._build.directory.name.replace('-', '_')}_{self._next}"
        text = f"int {edit};\n{_BODY}".encode()
        await asyncio.to_thread(source.write_bytes, text)
        own = (
            RemoteInput(source.name, str(source), is_executable=False, sha256=Digest.of(text).hash),
        )
        request = RemoteRequest(
            argv=("gcc", "-Iinc", "-MD", "-c", source.name, "-o", f"unit{job}.o"),
            env=(("PATH", "/usr/bin:/bin"),),
            cwd="",
            inputs=own,
            outputs=(f"unit{job}.o", f"unit{job}.d"),
            shared=SharedInputs(self._headers, own, sha256(self._headers).digest(), text),
        )
        outcome = await self._build.dispatcher.compile(self._build.connection, request)
        if not isinstance(outcome, RemoteResult) or outcome.is_cached:
            raise BenchError(f"a compile was not run by the worker: {outcome}")


async def _all(clients: list[_Client], compiles: int, jobs: int) -> None:
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.run(compiles, jobs))


def _headers(directory: Path, count: int) -> bytes:
    """Write the headers; return them as the daemon encodes them once for all its compiles."""
    directory.mkdir(parents=True)
    found = []
    for number in range(count):
        file, text = directory / f"h{number}.h", f"int header{number};\n".encode() * 40
        file.write_bytes(text)
        digest = Digest.of(text)
        header = RemoteInput(f"inc/{file.name}", str(file), is_executable=False, sha256=digest.hash)
        found.append((header, digest.size_bytes))
    return encode_inputs(found)


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process has had so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
