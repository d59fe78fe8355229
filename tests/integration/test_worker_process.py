"""The worker as a process: killed during a compile, asked to stop, and restarted."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from hpcc.audit.verify import verify_trail
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc.core import RemoteFailure, RemoteInput, RemoteOutcome, RemoteRequest, RemoteResult
from hpcc.dispatch.remote import DispatcherClient, start_remote
from hpcc.ports import GuestBootError
from hpcc.worker.base.drain_file import REPORT_NAME
from hpcc_testkit.farm.in_process import FarmUnderTest, LaterClock, farm_under_test
from hpcc_testkit.suite.pipes import gone


@asynccontextmanager
async def worker_process(farm: FarmUnderTest) -> AsyncGenerator[asyncio.subprocess.Process]:
    file = farm.directory / "worker.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(asdict(await farm.enrolling()), default=str))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hpcc_testkit.farm.worker", "--config", str(file),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        while not json.loads(await process.stdout.readline()).get("ready"):
            pass
        yield process
    finally:
        process.stdin.close()
        async with asyncio.timeout(10):
            await gone(process)


def client_of(farm: FarmUnderTest) -> DispatcherClient:
    base = farm.directory
    paths = Paths(cache=base / "c", state=base / "s", config=base / "o", run=base / "r")
    paths.state.mkdir(exist_ok=True)
    paths.farm_file.write_text(farm.farm().to_json())
    return start_remote(paths, Settings())


def request_of(directory: Path, script: str) -> RemoteRequest:
    source = directory / "a.c"
    source.write_text("int x;\n")
    return RemoteRequest(
        argv=("sh", "-c", script),
        env=(("PATH", "/usr/bin:/bin"),),
        cwd="",
        inputs=(RemoteInput("a.c", str(source), False),),
        outputs=("a.o",),
    )


async def compile_(client: DispatcherClient, request: RemoteRequest) -> RemoteOutcome:
    return await asyncio.to_thread(client.compile, request, lambda: False)


async def pid_in(file: Path) -> int:
    while not file.exists() or not file.read_text().strip():  # noqa: ASYNC110, ASYNC240 - made by another process
        await asyncio.sleep(0.02)
    return int(file.read_text())  # noqa: ASYNC240 - as above


async def has_gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()  # noqa: ASYNC240 - procfs does not block
        except FileNotFoundError:
            return True
        if stat.rsplit(")", 1)[1].split()[0] == "Z":
            return True
        await asyncio.sleep(0.05)
    return False


async def test_a_worker_killed_in_mid_compile_is_a_failure_before_the_compile_ends(
    tmp_path: Path,
) -> None:
    async with farm_under_test(tmp_path) as farm:
        client = client_of(farm)
        try:
            async with worker_process(farm) as process:
                slow = request_of(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 600")
                async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                    task = group.create_task(compile_(client, slow))
                    pid = await pid_in(tmp_path / "pid")
                    process.kill()
                assert isinstance(task.result(), RemoteFailure)
                # It is still there: without a VM nothing else ends it.
                os.kill(pid, signal.SIGKILL)
            async with worker_process(farm):
                again = await compile_(client, request_of(tmp_path, "cp a.c a.o"))
                assert isinstance(again, RemoteResult), again
        finally:
            await asyncio.to_thread(client.close)
    # The events that signing and its process began, and the row of the second compile.
    assert verify_trail(tmp_path / "worker" / "audit").count == 3


async def test_a_worker_that_is_told_to_end_takes_its_compiles_along(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path, drain_seconds=0.3) as farm:
        client = client_of(farm)
        try:
            async with worker_process(farm) as process:
                slow = request_of(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 30")
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(compile_(client, slow))
                    pid = await pid_in(tmp_path / "pid")
                    process.terminate()
                    async with asyncio.timeout(8):
                        assert await gone(process) == 0
                assert isinstance(task.result(), RemoteFailure)
                assert await has_gone(pid)
                left = [path.name for path in (tmp_path / "worker" / "state").iterdir()]
                assert left == [REPORT_NAME]  # for a command that waits for the drain
        finally:
            await asyncio.to_thread(client.close)


async def test_a_worker_that_is_told_to_end_lets_running_compiles_finish(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path, drain_seconds=20.0) as farm:
        client = client_of(farm)
        try:
            async with worker_process(farm) as process:
                script = f"echo $$ > {tmp_path}/pid; sleep 1; cp a.c a.o"
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(compile_(client, request_of(tmp_path, script)))
                    await pid_in(tmp_path / "pid")
                    process.terminate()
                    async with asyncio.timeout(10):
                        assert await gone(process) == 0
                assert isinstance(task.result(), RemoteResult), task.result()
                left = [path.name for path in (tmp_path / "worker" / "state").iterdir()]
                assert left == [REPORT_NAME]  # for a command that waits for the drain
        finally:
            await asyncio.to_thread(client.close)


async def test_a_worker_whose_parent_is_gone_ends(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path) as farm, worker_process(farm) as process:
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(8):
            assert await gone(process) == 0


async def test_blobs_that_vanish_from_the_store_are_sent_again(tmp_path: Path) -> None:
    clock = LaterClock()
    async with farm_under_test(tmp_path, clock=clock) as farm:
        client = client_of(farm)
        try:
            async with farm.serving():
                first = await compile_(client, request_of(tmp_path, "cp a.c a.o"))
                assert isinstance(first, RemoteResult)
                clock.ahead += 20.0  # not in the worker's memory, but still believed to be there
                for file in (tmp_path / "worker/store/acme/cas").glob("??/*"):
                    file.unlink()
                # The store still believes in them, so only Execute finds out.
                second = await compile_(client, request_of(tmp_path, "cp a.c a.o; true"))
                assert isinstance(second, RemoteResult), second
                assert second.outputs == first.outputs
        finally:
            await asyncio.to_thread(client.close)


async def test_a_worker_whose_first_guest_does_not_boot_says_so(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path, prewarm_tenant="acme", prewarm_principal="ann") as farm:
        farm.runtime.faults.boot_error = "no VMM here"
        with pytest.raises(GuestBootError, match="no VMM here"):
            async with farm.serving():
                pass


async def test_the_prewarmed_guest_takes_the_first_compile(tmp_path: Path) -> None:
    async with (
        farm_under_test(tmp_path, prewarm_tenant="acme", prewarm_principal="ann") as farm,
        farm.serving(),
    ):
        client = client_of(farm)
        try:
            assert farm.runtime.booted == 1
            result = await compile_(client, request_of(tmp_path, "cp a.c a.o"))
            assert isinstance(result, RemoteResult), result
            assert farm.runtime.booted == 1
            assert farm.audit.rows[0].guest_execs_before == 0
        finally:
            await asyncio.to_thread(client.close)
