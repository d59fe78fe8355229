"""A worker that is taken out of work: who wants it, what it waits for, and what its files say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hpcc.core import (
    GuestReuse,
    ImageDigest,
    InfrastructureError,
    Isolation,
    TenantId,
)
from hpcc.identity.token import RouteQuotas
from hpcc.ports import SystemClock
from hpcc.rpc.scheduler.api import DrainOrder, DrainState
from hpcc.worker import drain
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.base.drain_file import (
    REPORT_NAME,
    REQUEST_NAME,
    DrainFiles,
    DrainReport,
    DrainRequest,
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
from hpcc_testkit.services.idp_tokens import FixedClock

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
    state.mkdir(exist_ok=True)
    # Of an earlier process: the first request of a test must come after it is gone.
    left = next(f for name in (REPORT_NAME, REQUEST_NAME) if not (f := state / name).exists())
    left.touch()

    async def lost(_: str, __: str) -> None:
        pass

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        shape = GuestShape(memory_mib=1, boot_timeout_seconds=5.0)
        pool = GuestPool(limits, shape, FakeRuntime(tmp_path), Images(), group, lost, clock)
        nothing: Any = None
        quotas, sharing, audit = Quotas(nothing, clock), Sharing(), MemoryAuditLog()
        made = Drain(
            pool, quotas, ExecutionDeduper(group), cast("Any", sharing), state, audit, clock
        )
        bench = Bench(made, pool, quotas, sharing, audit, state)

        def changed() -> None:
            bench.changes += 1

        made.changed = changed
        task = group.create_task(made.run())
        while left.exists():  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.01)
        yield bench
        task.cancel()
        await pool.drain(0.0)
    # A thread may be writing still; what it leaves is none of its temporary files.
    async with asyncio.timeout(60):
        while not {f.name for f in state.iterdir()} <= {REPORT_NAME, REQUEST_NAME}:  # noqa: ASYNC110 - files
            await asyncio.sleep(0.01)


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


@pytest.mark.parametrize("end", ["stop", "hurried", "fault", "fault while it stops"])
async def test_a_worker_that_ends_in_order_leaves_the_report_that_it_is_drained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """A command that waits tells by it a stop from a crash, after which compiles are taken."""
    monkeypatch.setattr(drain, "_LOOK_SECONDS", 0.02)
    async with bench_of(tmp_path) as bench:
        bench.sharing.pending, bench.drain._obeyed = 1, "r1"
        bench.drain.order(Source.HERE, 60.0)
        assert (await bench.report("r1")).state == "draining"
        if end == "stop":
            bench.sharing.pending = 0
            await bench.drain.finish(60.0)
        elif end == "hurried":
            bench.drain.hurry()
            await bench.drain.finish(60.0)
            assert bench.sharing.pending, "nobody will publish it"
        elif end == "fault while it stops":
            ending = asyncio.Task(bench.drain.finish(60.0))
            await asyncio.sleep(0)
            ending.cancel()
    found = report_or_none(bench.state)
    assert found is not None
    assert found.state == ("draining" if end.startswith("fault") else "drained")
    DrainFiles(bench.state).clear()
    assert report_or_none(bench.state) is None, "the next process"


class Stalls(FixedClock):
    """The clock of a process that gets little of the machine: each pause lasts so much longer."""

    def __init__(self, *more: float) -> None:
        super().__init__()
        self._more = list(more)

    async def sleep(self, seconds: float) -> None:
        more = self._more.pop(0) if len(self._more) > 1 else self._more[0]
        await super().sleep(seconds + more)


@pytest.mark.parametrize(
    ("stalls", "least", "most"),
    [
        # The deadline, ten seconds for a guest that hangs, ten for a store, one for callers.
        ((0.0,), 51.0, 52.0),
        # Not so many pauses, but so many seconds.
        ((1.0,), 51.0, 56.0),
        # Stopped for longer than the deadline: what was ended now has its ten seconds, too.
        ((500.0, 0.0), 521.0, 522.0),
    ],
)
async def test_what_does_not_end_holds_up_a_stop_for_seconds(
    tmp_path: Path, stalls: tuple[float, ...], least: float, most: float
) -> None:
    clock = Stalls(*stalls)
    pool: Any = SimpleNamespace(running=1, queued=0, close=lambda _: None)
    quotas: Any = SimpleNamespace(close=lambda: None)
    nothing: Any = ()
    sharing: Any = SimpleNamespace(pending=1)
    worker = Drain(pool, quotas, nothing, sharing, tmp_path, MemoryAuditLog(), clock)
    began = clock.time
    await worker.finish(30.0)
    assert least <= clock.time - began <= most
    assert worker.state is DrainState.DRAINED, "the process ends all the same"


@pytest.mark.parametrize("name", [REPORT_NAME, REQUEST_NAME])
async def test_no_file_in_the_state_directory_ends_the_worker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A directory cannot be removed as a file, replaced by one, or read as one."""
    monkeypatch.setattr(drain, "_LOOK_SECONDS", 0.0)
    in_the_way = tmp_path / "state" / name
    in_the_way.mkdir(parents=True)
    async with bench_of(tmp_path) as bench:
        bench.drain.order(Source.HERE, 60.0)
        while bench.changes < 2:  # noqa: ASYNC110 - when it began to drain, and when it reports
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        in_the_way.rmdir()
        while report_or_none(bench.state) is None:  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.01)
        bench.drain.withdraw(Source.HERE)
        assert await bench.compile() == "ok"
    said = [r.getMessage() for r in caplog.records]
    assert 1 <= len(said) <= 2, "each error once, not at each look"
    assert all(str(in_the_way) in text for text in said)


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
