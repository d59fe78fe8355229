"""The pool's I/O: cancellation at any moment, boots that hang, reports that fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.core import (
    GuestMitigations,
    GuestReuse,
    ImageDigest,
    InfrastructureError,
    Isolation,
    TenantId,
)
from hpcc.ports import GuestSpec, SystemClock
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.pool.decisions import PoolLimits
from hpcc.worker.pool.ends import first_end
from hpcc.worker.pool.pool import GuestPool, GuestShape
from hpcc_testkit.guests.fake_runtime import FakeGuest, FakeRuntime

IMAGE = ImageDigest("sha256:" + "ab" * 32)
LIMITS = PoolLimits(
    max_guests=1, vcpus=1, guest_mib=1, memory_mib=10, max_queue=10,
    idle_seconds=60.0, session_seconds=600.0,
)  # fmt: skip


def domain(who: str = "ann") -> TrustDomain:
    return TrustDomain.of(
        tenant=TenantId("acme"), image=IMAGE, isolation=Isolation.LOCAL_NONE,
        reuse=GuestReuse.PRINCIPAL, principal=who,
    )  # fmt: skip


class Gated(FakeRuntime):
    """A runtime whose boots wait at a gate."""

    gate = asyncio.Event()
    begun = given_up = 0

    @asynccontextmanager
    async def guest(self, spec: GuestSpec) -> AsyncIterator[FakeGuest]:
        self.begun += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        async with super().guest(spec) as guest:
            yield guest


class Seen(FakeRuntime):
    """A runtime that keeps what its guests should boot with."""

    has_mitigations: bool | None = None

    @asynccontextmanager
    async def guest(self, spec: GuestSpec) -> AsyncIterator[FakeGuest]:
        self.has_mitigations = spec.has_mitigations
        async with super().guest(spec) as guest:
            yield guest


class Images:
    async def image(self, digest: ImageDigest) -> Path:
        return Path("/dev/null")


class Bench:
    """A pool, its runtime, and the reports that it sent."""

    def __init__(self, directory: Path, group: asyncio.TaskGroup, vcpus: int = 1) -> None:
        self.runtime = Gated(directory)
        self.runtime.gate = asyncio.Event()
        self.lost: list[tuple[str, str]] = []
        self.fault: Exception | None = None
        shape = GuestShape(memory_mib=1, boot_timeout_seconds=5.0)
        self.pool = GuestPool(
            replace(LIMITS, vcpus=vcpus),
            shape,
            self.runtime,
            Images(),
            group,
            self.on_lost,
            SystemClock(),
        )

    async def on_lost(self, guest_id: str, reason: str) -> None:
        self.lost.append((guest_id, reason))
        if self.fault is not None:
            raise self.fault


@asynccontextmanager
async def opened(directory: Path, vcpus: int = 1) -> AsyncIterator[Bench]:
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        bench = Bench(directory, group, vcpus)
        yield bench
        await bench.pool.drain(0.0)
        assert bench.runtime.running == []
        assert bench.pool.running == 0


async def use(bench: Bench, who: str = "ann") -> int:
    async with bench.pool.lease(domain(who)) as lease:
        return lease.execs_before


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a few turns of the loop
        await asyncio.sleep(0)


async def test_a_waiter_that_is_cancelled_leaves_its_guest_to_the_next(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        async with asyncio.TaskGroup() as group:
            waiter = group.create_task(use(bench))
            await until(lambda: bench.pool.queued == 1)
            waiter.cancel()
        assert bench.pool.queued == 0
        bench.runtime.gate.set()
        assert await use(bench) == 0
        assert bench.runtime.booted == 1


async def test_a_cancel_in_the_moment_of_the_grant_gives_the_place_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        async with asyncio.TaskGroup() as group:
            waiter = group.create_task(use(bench))
            await until(lambda: bench.pool.queued == 1)
            bench.runtime.gate.set()
            await until(lambda: bench.pool.running == 1)
            waiter.cancel()
        assert bench.pool.running == 0
        await use(bench)
        assert bench.runtime.booted == 1


async def test_a_cancel_before_the_waiter_saw_it_gives_the_place_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        bench.runtime.gate.set()
        async with asyncio.TaskGroup() as group:
            async with bench.pool.lease(domain()):
                waiter = group.create_task(use(bench))
                await until(lambda: bench.pool.queued == 1)
                # Both in one turn of the loop: it is cancelled, then its place comes free.
                waiter.cancel()
            assert bench.pool.queued == 0
        assert bench.pool.running == 0


@pytest.mark.parametrize("begun", [0, 1], ids=["before-its-first-step", "in-the-middle"])
async def test_a_drain_does_not_wait_for_a_boot(tmp_path: Path, begun: int) -> None:
    async with opened(tmp_path) as bench:
        async with asyncio.TaskGroup() as group:
            waiter = group.create_task(failure(bench))
            await until(lambda: bench.pool.queued == 1 and bench.runtime.begun == begun)
            await bench.pool.drain(10.0)
        assert waiter.result() == "draining"
        assert bench.runtime.given_up == begun
        assert await failure(bench) == "draining"


async def test_a_drain_waits_for_what_runs_and_then_ends_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        bench.runtime.gate.set()
        async with bench.pool.lease(domain()) as lease:
            assert not lease.is_recalled
            await bench.pool.drain(0.05)
            assert lease.is_recalled
            assert bench.runtime.running == []
        assert bench.lost == []


async def test_a_lost_guest_is_reported_once_and_gone_before_the_lease_holder_goes_on(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as bench:
        bench.runtime.gate.set()
        async with bench.pool.lease(domain()) as lease:
            bench.runtime.running[0].kill("dead")
            await lease.condemn("seen by the exec", is_culprit=False)
            assert bench.runtime.running == []
            assert bench.lost == [("fake-1", "dead")]
        assert await use(bench) == 0
        assert bench.runtime.booted == 2


async def test_a_guest_that_broke_its_word_to_one_exec_is_not_held_against_the_other(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, vcpus=2) as bench:
        bench.runtime.gate.set()
        async with bench.pool.lease(domain()) as one, bench.pool.lease(domain()) as other:
            assert one.number == other.number
            await one.condemn("broke the protocol", is_culprit=True)
            await other.condemn("it died", is_culprit=False)
            assert (one.is_anothers_fault, other.is_anothers_fault) == (False, True)
        # Of a guest that simply died nobody can say whose fault it was: it counts for both.
        async with bench.pool.lease(domain()) as one, bench.pool.lease(domain()) as other:
            bench.runtime.running[0].kill("dead")
            await one.condemn("it died", is_culprit=False)
            assert (one.is_anothers_fault, other.is_anothers_fault) == (False, False)


async def test_who_comes_in_the_moment_of_a_guests_death_does_not_get_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        bench.runtime.gate.set()
        await use(bench)
        bench.runtime.running[0].kill("dead")
        async with bench.pool.lease(domain()) as lease:
            assert lease.guest.identity.guest_id == "fake-2"


@pytest.mark.parametrize("fault", [InfrastructureError("full", reason="audit"), OSError("x")])
async def test_a_report_that_fails_ends_nothing_else(tmp_path: Path, fault: Exception) -> None:
    async with opened(tmp_path) as bench:
        bench.fault = fault
        bench.runtime.gate.set()
        async with bench.pool.lease(domain()) as lease:
            await lease.condemn("broke the protocol", is_culprit=True)
        assert bench.lost == [("fake-1", "broke the protocol")]
        assert await use(bench) == 0


async def test_another_principals_guest_makes_room_when_its_moment_has_come(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        bench.runtime.gate.set()
        await use(bench, "ann")
        assert await use(bench, "bob") == 0
        assert bench.runtime.booted == 2


async def failure(bench: Bench) -> str:
    with pytest.raises(InfrastructureError) as caught:
        await use(bench)
    return caught.value.reason


@pytest.mark.parametrize("mitigations", list(GuestMitigations))
@pytest.mark.parametrize("reuse", list(GuestReuse))
async def test_a_guests_kernel_follows_from_whom_it_can_serve(
    tmp_path: Path, reuse: GuestReuse, mitigations: GuestMitigations
) -> None:
    async def no_report(guest_id: str, reason: str) -> None:
        raise AssertionError((guest_id, reason))

    runtime = Seen(tmp_path)
    shape = GuestShape(memory_mib=1, boot_timeout_seconds=5.0, mitigations=mitigations)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        pool = GuestPool(LIMITS, shape, runtime, Images(), group, no_report, SystemClock())
        async with pool.lease(replace(domain(), reuse=reuse)):
            assert runtime.has_mitigations is mitigations.are_on(reuse)
        await pool.drain(0.0)


async def test_an_exec_beside_another_one_is_overlapped_and_so_is_the_other(tmp_path: Path) -> None:
    async with opened(tmp_path, vcpus=2) as bench:
        bench.runtime.gate.set()
        async with bench.pool.lease(domain()) as first:
            assert not first.is_overlapped
            async with bench.pool.lease(domain()) as second:
                assert first.is_overlapped
                assert second.is_overlapped
            assert first.is_overlapped
        async with bench.pool.lease(domain()) as third:
            assert not third.is_overlapped
            assert third.execs_before == 2


async def test_a_prewarmed_guest_is_as_fresh_as_a_booted_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        bench.runtime.gate.set()
        await bench.pool.prewarm(domain())
        async with bench.pool.lease(domain()) as lease:
            assert (lease.execs_before, lease.is_overlapped) == (0, False)


async def test_a_lease_whose_guest_is_gone_counts_as_overlapped(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        bench.runtime.gate.set()
        async with bench.pool.lease(domain()) as lease:
            bench.runtime.running[0].kill()
            await until(lambda: not bench.runtime.running)
            await until(lambda: not bench.pool.numbers()["guests"])
            assert lease.is_overlapped


async def test_a_guest_that_the_pool_ends_is_not_cancelled_for_the_compile_in_it() -> None:
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    retired = asyncio.Event()
    retired.set()
    assert await first_end(lost, retired, asyncio.Event()) is None
    assert not lost.done()
    lost.set_result("died")
    assert await first_end(lost, retired) == "died"
