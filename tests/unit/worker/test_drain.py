"""A worker that is taken out of work: who wants it, what it waits for, and what its files say."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hpcc.config.private_file import write_private_file
from hpcc.core import (
    CallerError,
    GuestReuse,
    ImageDigest,
    InfrastructureError,
    Isolation,
    TenantId,
)
from hpcc.identity.token import RouteQuotas
from hpcc.ports import SystemClock
from hpcc.rpc.scheduler.api import DrainOrder, DrainState
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.base.drain_file import (
    REPORT_NAME,
    REQUEST_NAME,
    DrainFiles,
    DrainReport,
    DrainRequest,
    become_owner,
    report_or_none,
    write_request,
)
from hpcc.worker.drain import Drain, Source
from hpcc.worker.execute.deduper import ExecutionDeduper
from hpcc.worker.pool.decisions import PoolLimits
from hpcc.worker.pool.pool import GuestPool, GuestShape
from hpcc.worker.stores.quotas import Quotas
from hpcc_testkit.farm.memory_audit import MemoryAuditLog
from hpcc_testkit.guests.fake_runtime import FakeRuntime

IMAGE = ImageDigest("sha256:" + "ab" * 32)
ANN = TrustDomain.of(
    tenant=TenantId("acme"), image=IMAGE, isolation=Isolation.LOCAL_NONE,
    reuse=GuestReuse.PRINCIPAL, principal="ann",
)  # fmt: skip


class Images:
    async def image(self, digest: ImageDigest) -> Path:
        return Path("/dev/null")


class Sharing:
    """Something that has results to publish."""

    pending = 0


@dataclass
class Bench:
    drain: Drain
    pool: GuestPool
    quotas: Quotas
    sharing: Sharing
    audit: MemoryAuditLog
    state: Path
    changes: int = 0

    async def compile(self, end: asyncio.Event | None = None) -> str:
        """Take a guest for a moment, or until `end`; return "ok", or why there was none."""

        async def run() -> str:
            async with self.pool.lease(ANN):
                if end is not None:
                    await end.wait()
                return "ok"

        try:
            return await self.quotas.execute(ANN.tenant, run)
        except InfrastructureError as error:
            return error.reason

    async def report(self, obeyed: str) -> DrainReport:
        while (found := report_or_none(self.state)) is None or found.obeyed != obeyed:  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.02)
        return found


@asynccontextmanager
async def bench_of(tmp_path: Path) -> AsyncGenerator[Bench]:
    limits = PoolLimits(
        max_guests=1, vcpus=1, guest_mib=1, memory_mib=10, max_queue=10,
        idle_seconds=60.0, session_seconds=600.0,
    )  # fmt: skip
    clock, state = SystemClock(), tmp_path / "state"
    state.mkdir()

    async def lost(_: str, __: str) -> None:
        pass

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        shape = GuestShape(memory_mib=1, boot_timeout_seconds=5.0)
        pool = GuestPool(limits, shape, FakeRuntime(tmp_path), Images(), group, lost, clock)
        nothing: Any = None
        quotas, sharing, audit = Quotas(nothing, clock), Sharing(), MemoryAuditLog()
        drain = Drain(
            pool, quotas, ExecutionDeduper(group), cast("Any", sharing), state, audit, clock
        )
        bench = Bench(drain, pool, quotas, sharing, audit, state)

        def changed() -> None:
            bench.changes += 1

        drain.changed = changed
        task = group.create_task(drain.run())
        await asyncio.sleep(0)
        yield bench
        task.cancel()
        await pool.drain(0.0)
    assert not list(state.iterdir())


async def test_compiles_are_taken_again_when_nobody_wants_the_drain(tmp_path: Path) -> None:
    async with bench_of(tmp_path) as bench:
        assert (await bench.compile(), bench.drain.state) == ("ok", DrainState.NONE)
        bench.drain.heard(DrainOrder(seconds=500.0, by="olga", reason="kernel"))
        bench.drain.order(Source.HERE, 5.0)
        assert bench.changes == 1, "nothing new for the schedulers"
        assert (await bench.compile(), bench.drain.state) == ("draining", DrainState.DRAINED)
        assert 4.0 < bench.drain.seconds_left <= 5.0, "the earliest deadline"
        bench.drain.withdraw(Source.HERE)
        assert await bench.compile() == "draining"
        assert 490.0 < bench.drain.seconds_left <= 500.0
        bench.drain.heard(None)
        assert (await bench.compile(), bench.drain.state) == ("ok", DrainState.NONE)
        bench.drain.heard(None)
        assert bench.changes == 2


@pytest.mark.parametrize("places", [1, 9])
async def test_what_waits_for_a_place_or_a_guest_goes_elsewhere_at_once(
    tmp_path: Path, places: int
) -> None:
    """With one place, the compile that runs holds it, and all others wait for it."""
    async with bench_of(tmp_path) as bench:
        use = bench.quotas._of(ANN.tenant)
        use.quotas = RouteQuotas(concurrent_execs=places)
        end = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(bench.compile(end))
            while not bench.pool.running:  # noqa: ASYNC110 - the pool has no event for it
                await asyncio.sleep(0.01)
            waiting = [group.create_task(bench.compile()) for _ in range(5)]
            while use.waiting + bench.pool.queued < 5:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
            bench.drain.order(Source.HERE, 60.0)
            async with asyncio.timeout(5):
                assert [await task for task in waiting] == ["draining"] * 5
            assert bench.drain.state is DrainState.DRAINING, "one runs on"
            end.set()
        assert running.result() == "ok"
        assert bench.drain.state is DrainState.DRAINED


async def test_an_idle_worker_ends_at_once_and_one_with_a_compile_after_it(tmp_path: Path) -> None:
    async with bench_of(tmp_path) as bench:
        end = asyncio.Event()

        async def compiling() -> None:
            async with bench.pool.lease(ANN):
                running.set()
                await end.wait()

        running = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(compiling())
            await running.wait()
            ending = group.create_task(bench.drain.finish(600.0))
            await asyncio.sleep(0.2)
            assert not ending.done()
            end.set()
            await ending
        assert bench.drain.has_last_callers
    idle = tmp_path / "idle"
    idle.mkdir()
    async with bench_of(idle) as bench:
        finished = asyncio.Task(bench.drain.finish(600.0))
        await asyncio.sleep(0)
        assert finished.done(), "without a pause"


async def test_a_second_signal_ends_what_runs(tmp_path: Path) -> None:
    async with bench_of(tmp_path) as bench, bench.pool.lease(ANN) as lease:
        ending = asyncio.Task(bench.drain.finish(600.0))
        await asyncio.sleep(0.1)
        assert not lease.is_recalled
        bench.drain.hurry()
        while not lease.is_recalled:  # noqa: ASYNC110 - the guest's task sets it
            await asyncio.sleep(0.01)
        assert not ending.done(), "the compile has yet to notice"
        ending.cancel()


async def test_a_worker_that_ends_publishes_what_it_owes_to_colleagues(tmp_path: Path) -> None:
    async with bench_of(tmp_path) as bench:
        bench.sharing.pending = 2
        ending = asyncio.Task(bench.drain.finish(600.0))
        await asyncio.sleep(0.2)
        assert not ending.done()
        assert bench.drain.state is DrainState.DRAINING
        bench.sharing.pending = 0
        await ending
        assert bench.drain.state is DrainState.DRAINED


async def test_the_command_of_this_machine_is_obeyed_and_answered(tmp_path: Path) -> None:
    async with bench_of(tmp_path) as bench:
        assert not (bench.state / REPORT_NAME).exists(), "nobody has asked yet"
        wanted = DrainRequest(
            request="r1", is_wanted=True, seconds=1e9, by="op\n", reason="r" * 999
        )
        write_request(bench.state, wanted)
        found = await bench.report("r1")
        assert (found.state, found.by, len(found.reason)) == ("drained", "op", 200)
        assert bench.drain.seconds_left <= 86_400.0
        assert await bench.compile() == "draining"
        undo = DrainRequest(request="r2", is_wanted=False, seconds=0.0, by="", reason="")
        write_request(bench.state, undo)
        assert (await bench.report("r2")).state == ""
        assert await bench.compile() == "ok"
        names = [(e.name, dict(e.fields).get("by")) for e in bench.audit.events]
        assert names == [("worker-drain", "op"), ("worker-drain-ended", None)]


def test_a_request_for_an_earlier_process_does_not_count(tmp_path: Path) -> None:
    old = DrainRequest(request="old", is_wanted=True, seconds=60.0, by="", reason="")
    write_request(tmp_path, old)
    files = DrainFiles(tmp_path)
    files.clear()
    assert files.request_or_none() is None


def test_a_request_is_read_strictly_and_once(tmp_path: Path) -> None:
    files, path = DrainFiles(tmp_path), tmp_path / REQUEST_NAME
    assert files.request_or_none() is None
    good = json.dumps(
        {"request": "x", "is_wanted": True, "seconds": 1.0, "by": "", "reason": ""}
    ).encode()
    for rubbish in (b"", b"\0", b"[]", b'{"request": 1}', good[:-1], good.replace(b"1.0", b"NaN")):
        write_private_file(path, rubbish)
        with pytest.raises(CallerError):
            files.request_or_none()
        assert files.request_or_none() is None, "until it changes"
    write_private_file(path, good)
    assert files.request_or_none() is not None
    assert files.request_or_none() is None
    path.chmod(0o644)
    with pytest.raises(CallerError, match="others can read"):
        files.request_or_none()


def test_root_writes_nothing_where_the_workers_user_can_put_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CallerError, match="is not a directory"):
        become_owner(tmp_path / "none")
    given_up: list[object] = []
    for name in ("setgroups", "setgid", "setuid"):
        monkeypatch.setattr(os, name, given_up.append)
    owner = SimpleNamespace(st_uid=77, st_gid=78, st_mode=0o40700)
    monkeypatch.setattr(Path, "stat", lambda *_, **__: owner)
    monkeypatch.setattr(Path, "is_dir", lambda _: True)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    become_owner(tmp_path)
    assert given_up == [], "not root"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    become_owner(tmp_path)
    assert given_up == [[], 78, 77]
    owner.st_uid = 0
    become_owner(tmp_path)
    assert len(given_up) == 3, "a worker of root"
