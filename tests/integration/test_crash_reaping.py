"""A dead guest is reaped, removed and reported before any caller gets an answer about it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from hpcc.config.service_file import load_service_file
from hpcc.core import (
    Blob,
    ExecEvent,
    ExecRequest,
    InfrastructureError,
    InputFile,
    IntegrityError,
    Isolation,
)
from hpcc.identity.tls import PinnedPeer
from hpcc.ports import BlobSource, SystemClock
from hpcc.reapi.action import ActionSpec, encode_action
from hpcc.reapi.command import CommandSpec, encode_command
from hpcc.reapi.tree import build_tree
from hpcc.rpc.base.channel import open_channel
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.reapi.client import ReapiClient
from hpcc.rpc.scheduler.api import RouteChange
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.serve import RunningScheduler
from hpcc_testkit.farm.in_process import IMAGE, TENANT, FarmUnderTest, farm_under_test
from hpcc_testkit.farm.memory_audit import MemoryAuditLog
from hpcc_testkit.guests.fake_runtime import FakeGuest, FakeRuntime
from hpcc_testkit.suite.pipes import gone


@asynccontextmanager
async def scheduler_process(
    directory: Path,
) -> AsyncGenerator[tuple[asyncio.subprocess.Process, FarmUnderTest]]:
    """Run a scheduler in a separate process; yield the farm that a worker can join."""
    tenant_secret = secrets.token_urlsafe(32)
    file = directory / "scheduler.json"
    file.touch(mode=0o600)
    file.write_text(
        json.dumps(
            {
                "keys": str(directory / "keys"),
                "state": str(directory / "state"),
                "tenant": TENANT.value,
                "tenant_secret": tenant_secret,
                "minimum_isolation": Isolation.LOCAL_NONE.value,
            }
        )
    )
    (directory / "guests").mkdir()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hpcc.scheduler", "--config", str(file),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        ready = json.loads(await process.stdout.readline())
        running = RunningScheduler(
            ready["host"],
            ready["port"],
            ready["worker_port"],
            ready["certificate_pem"],
            ready["scheduler_id"],
        )
        yield (
            process,
            FarmUnderTest(
                directory=directory,
                clock=SystemClock(),
                tenant_secret=tenant_secret,
                scheduler_config=load_service_file(file, SchedulerConfig),
                runtime=FakeRuntime(directory / "guests"),
                audit=MemoryAuditLog(),
                scheduler=running,
            ),
        )
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        async with asyncio.timeout(10):
            await gone(process)


def action(script: str) -> list[Blob]:
    source = Blob.of(b"int x;\n")
    tree = build_tree([InputFile("a.c", source.digest)])
    spec = CommandSpec(argv=("sh", "-c", script), env=(("PATH", "/usr/bin:/bin"),), cwd="", outputs=("a.o",), image=IMAGE)  # fmt: skip
    command = Blob.of(encode_command(spec))
    done = ActionSpec(command=command.digest, input_root=tree.root, image=IMAGE, salt=b"t")
    directories = [Blob.of(d) for d in tree.directories.values()]
    return [source, *directories, command, Blob.of(encode_action(done))]


async def failure_of(client: ReapiClient, script: str) -> UnavailableError:
    blobs = action(script)
    await client.upload(blobs)
    with pytest.raises(UnavailableError) as caught:
        await client.execute(blobs[-1].digest, ["a.o"])
    return caught.value


async def exists(path: Path) -> None:
    async with asyncio.timeout(20):
        while not path.exists():  # noqa: ASYNC110, ASYNC240 - made by another process
            await asyncio.sleep(0.02)


@asynccontextmanager
async def watched(farm: FarmUnderTest) -> AsyncGenerator[list[RouteChange]]:
    """Collect the changes that a daemon's watch of routes receives."""
    heard: list[RouteChange] = []
    peer = PinnedPeer.from_pem(farm.scheduler.certificate_pem.encode())
    address = f"{farm.scheduler.host}:{farm.scheduler.port}"
    async with open_channel(
        address, certificate_pem=peer.certificate_pem, name=peer.name
    ) as channel:
        client = SchedulerClient(channel)
        grant = await client.authenticate(
            secret=farm.tenant_secret, tenant=TENANT, principal="ann", client_version="t"
        )

        async def listen() -> None:
            async with aclosing(client.watch(grant.session, TENANT)) as changes:
                async for change in changes:
                    heard.append(change)  # noqa: PERF401 - others look at it meanwhile

        async with asyncio.TaskGroup() as group:
            listener = group.create_task(listen())
            await until(lambda: bool(heard))
            yield heard
            listener.cancel()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of other processes and tasks, without an event
            await asyncio.sleep(0.02)


async def test_the_scheduler_knows_of_a_lost_guest_before_the_caller_is_answered(
    tmp_path: Path,
) -> None:
    async with (
        scheduler_process(tmp_path) as (process, farm),
        farm.serving(),
        farm.client() as client,
        watched(farm) as heard,
    ):
        before = await farm.route()
        started = tmp_path / "started"
        async with asyncio.TaskGroup() as group:
            task = group.create_task(failure_of(client, f"touch {started}; sleep 60"))
            await exists(started)
            # While the scheduler cannot hear, nobody may be sent on to ask it for a route.
            process.send_signal(signal.SIGSTOP)
            farm.runtime.running[0].kill("killed by the test")
            await asyncio.sleep(1.0)
            assert not task.done()
            assert farm.runtime.running == [], "reaping does not wait for the scheduler"
            process.send_signal(signal.SIGCONT)
        assert task.result().reason == "guest-lost"
        assert (await farm.route()).generation > before.generation
        await until(lambda: any(c.is_dead and c.generation == before.generation for c in heard))
    assert sorted(farm.audit.names()) == ["guest-lost", "guest-lost-in-compile"]


async def test_a_scheduler_that_never_hears_holds_up_no_answer_for_ever(tmp_path: Path) -> None:
    async with (
        scheduler_process(tmp_path) as (process, farm),
        farm.serving(),
        farm.client() as client,
    ):
        started = tmp_path / "started"
        async with asyncio.TaskGroup() as group:
            task = group.create_task(failure_of(client, f"touch {started}; sleep 60"))
            await exists(started)
            process.send_signal(signal.SIGSTOP)
            farm.runtime.running[0].kill("killed by the test")
            async with asyncio.timeout(30):
                await task
        process.send_signal(signal.SIGCONT)
        assert task.result().reason == "guest-lost"


async def test_every_compile_in_a_lost_guest_hears_of_it_and_the_next_has_another(
    tmp_path: Path,
) -> None:
    async with farm_under_test(tmp_path) as farm, farm.serving(), farm.client() as client:
        marks = [tmp_path / f"started{i}" for i in range(2)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(failure_of(client, f"touch {m}; sleep 60")) for m in marks]
            for mark in marks:
                await exists(mark)
            assert len(farm.runtime.running) == 1
            farm.runtime.running[0].kill("killed by the test")
        assert [t.result().reason for t in tasks] == ["guest-lost"] * 2
        assert all("killed by the test" in str(t.result()) for t in tasks)
        blobs = action("cp a.c a.o")
        await client.upload(blobs)
        await client.execute(blobs[-1].digest, [])
    rows = farm.audit.rows
    assert [(r.cache_status, r.reason) for r in rows[:2]] == [("abandoned", "guest-lost")] * 2
    assert rows[2].guest_id != rows[0].guest_id
    assert farm.audit.names().count("guest-lost") == 1


async def hangs() -> None:
    await asyncio.sleep(600)


async def lies() -> None:
    raise IntegrityError("an output nobody asked for", reason="guest-protocol")


@pytest.mark.parametrize("how", [hangs, lies])
async def test_a_guest_that_is_as_good_as_dead_is_treated_as_dead(
    tmp_path: Path, how: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(FakeGuest):
        async def exec(self, request: ExecRequest, blobs: BlobSource) -> AsyncGenerator[ExecEvent]:
            await how()
            async for event in super().exec(request, blobs):
                yield event

    monkeypatch.setattr("hpcc.worker.execute.runner._TRANSFER_SECONDS", 0.2)
    async with farm_under_test(tmp_path, max_wall_seconds=0.2) as farm, farm.serving():
        farm.runtime.guest_class = Broken
        before = await farm.route()
        async with farm.client() as client:
            assert (await failure_of(client, "cp a.c a.o")).reason == "guest-lost"
            assert farm.runtime.running == []
        assert (await farm.route()).generation > before.generation
    assert sorted(farm.audit.names()) == ["guest-lost", "guest-lost-in-compile"]


async def test_a_trail_that_cannot_be_written_does_not_keep_the_loss_from_the_scheduler(
    tmp_path: Path,
) -> None:
    class Full(MemoryAuditLog):
        async def event(self, event: object) -> None:
            raise InfrastructureError("disk full", reason="audit")

    async with farm_under_test(tmp_path) as farm, farm.serving(Full()):
        farm.runtime.faults.die_in_execs = frozenset({0})
        before = await farm.route()
        async with farm.client() as client:
            await failure_of(client, "cp a.c a.o")
        assert (await farm.route()).generation > before.generation
        assert os.listdir(tmp_path / "guests") == []
