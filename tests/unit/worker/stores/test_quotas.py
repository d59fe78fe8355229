"""A tenant's quotas on a worker: waits end, a tenant stays below them, others never wait."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcc.core import Blob, ImageDigest, Isolation, NotFoundError, TenantId
from hpcc.identity.token import RouteClaims, RouteQuotas, RouteShare
from hpcc.rpc.base.errors import BusyError
from hpcc.worker.stores.places import MAX_WAITING
from hpcc.worker.stores.quotas import Quotas
from hpcc.worker.stores.storage import TenantStorage
from hpcc_testkit.services.idp_tokens import FixedClock
from hpcc_testkit.suite.examples import examples

ACME, GLOBEX = TenantId("acme"), TenantId("globex")
CLAIMS = RouteClaims(
    issuer="s",
    subject="ann",
    tenant=ACME,
    audience="w",
    image=ImageDigest("sha256:" + "ab" * 32),
    minimum_isolation=Isolation.QEMU_TCG,
    generation=1,
    rights=frozenset({"cache", "execute"}),
    not_before=100.0,
    expires_at=400.0,
    token_id="t",
)


def quotas_of(directory: Path, **limits: int) -> tuple[Quotas, FixedClock, TenantStorage]:
    clock = FixedClock()
    storage = TenantStorage(directory, 1 << 30, clock)
    quotas = Quotas(storage, clock)
    quotas.note(replace(CLAIMS, quotas=RouteQuotas(**limits)))
    return quotas, clock, storage


class Work:
    """Compiles that end when the test ends them."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self.end = asyncio.Event()

    async def __call__(self) -> bytes:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.end.wait()
        finally:
            self.running -= 1
        return b"done"


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_tenant_runs_as_many_compiles_as_it_may_and_the_rest_wait(tmp_path: Path) -> None:
    quotas, _, _ = quotas_of(tmp_path, concurrent_execs=3)
    work, other = Work(), Work()
    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(quotas.execute(ACME, work))
        for _ in range(5):
            group.create_task(quotas.execute(GLOBEX, other))
        await settled()
        assert (work.running, other.running) == (3, 5)
        work.end.set()
        other.end.set()
    assert work.most == 3


async def test_a_compile_that_is_cancelled_gives_its_place_on(tmp_path: Path) -> None:
    quotas, _, _ = quotas_of(tmp_path, concurrent_execs=1)
    work = Work()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(quotas.execute(ACME, work)) for _ in range(4)]
        await settled()
        tasks[1].cancel()  # waits
        tasks[0].cancel()  # runs
        await settled()
        assert work.running == 1
        work.end.set()
    assert [t.cancelled() for t in tasks] == [True, True, False, False]


async def test_a_place_that_is_given_to_somebody_who_leaves_is_not_lost(tmp_path: Path) -> None:
    quotas, _, _ = quotas_of(tmp_path, concurrent_execs=1)
    work = Work()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(quotas.execute(ACME, work))
        second = group.create_task(quotas.execute(ACME, work))
        await settled()
        work.end.set()
        await first  # the place is second's now, which has not run since
        second.cancel()
        await settled()
        assert await quotas.execute(ACME, work) == b"done"


async def test_those_who_left_do_not_count_among_those_who_wait(tmp_path: Path) -> None:
    quotas, _, _ = quotas_of(tmp_path, concurrent_execs=1)
    work = Work()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(quotas.execute(ACME, work)) for _ in range(2)]  # one waits
        for _ in range(2):
            left = [group.create_task(quotas.execute(ACME, work)) for _ in range(MAX_WAITING - 1)]
            await settled()
            for task in left:
                task.cancel()
            await settled()
        tasks.append(group.create_task(quotas.execute(ACME, work)))
        await settled()
        work.end.set()
    assert [t.result() for t in tasks] == [b"done"] * 3


async def test_too_many_that_wait_are_told_to_come_back(tmp_path: Path) -> None:
    quotas, _, _ = quotas_of(tmp_path, concurrent_execs=1)
    work = Work()
    async with asyncio.TaskGroup() as group:
        for _ in range(1 + MAX_WAITING):
            group.create_task(quotas.execute(ACME, work))
        await settled()
        with pytest.raises(BusyError) as busy:
            await quotas.execute(ACME, work)
        assert busy.value.reason == "quota-execs"
        assert busy.value.retry_after_seconds > 0
        assert work.running == 1
        work.end.set()


async def test_the_token_that_was_signed_last_says_the_limit(tmp_path: Path) -> None:
    quotas, _, _ = quotas_of(tmp_path, concurrent_execs=1)
    work = Work()
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(quotas.execute(ACME, work))
        await settled()
        later = replace(CLAIMS, not_before=200.0, quotas=RouteQuotas(concurrent_execs=3))
        quotas.note(later)
        await settled()
        assert work.running == 3
        # An older token that is still good changes nothing.
        quotas.note(replace(CLAIMS, quotas=RouteQuotas(concurrent_execs=100)))
        await settled()
        assert work.running == 3
        work.end.set()


def test_uploads_are_counted_in_a_window_and_each_tenants_apart(tmp_path: Path) -> None:
    quotas, clock, _ = quotas_of(tmp_path, upload_bytes=1000, upload_window_seconds=30)
    quotas.upload(ACME, 600)
    quotas.upload(ACME, 400)
    with pytest.raises(BusyError) as busy:
        quotas.upload(ACME, 1)
    assert (busy.value.reason, busy.value.retry_after_seconds) == ("quota-upload", 30)
    quotas.upload(GLOBEX, 10**9)
    clock.time += 29
    with pytest.raises(BusyError):
        quotas.upload(ACME, 1)
    clock.time += 1
    quotas.upload(ACME, 1000)


@settings(max_examples=examples(50))
@given(sizes=st.lists(st.integers(0, 400), max_size=60), steps=st.lists(st.integers(0, 9)))
def test_no_window_takes_more_than_its_limit(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], steps: list[int]
) -> None:
    quotas, clock, _ = quotas_of(
        tmp_path_factory.getbasetemp(), upload_bytes=1000, upload_window_seconds=30
    )
    taken: list[tuple[float, int]] = []
    for number, size in enumerate(sizes):
        try:
            quotas.upload(ACME, size)
        except BusyError:
            pass
        else:
            taken.append((clock.time, size))
        clock.time += steps[number % len(steps)] if steps else 0
    start = taken[0][0] if taken else 0.0
    while taken:
        assert sum(s for at, s in taken if at < start + 30) <= 1000
        taken = [t for t in taken if t[0] >= start + 30]
        start = taken[0][0] if taken else 0.0


async def test_a_tenants_cache_is_no_larger_than_it_may_be(tmp_path: Path) -> None:
    quotas, _, storage = quotas_of(tmp_path)
    blobs = [Blob.of(bytes([n]) * 100_000) for n in range(10)]
    for tenant in (ACME, GLOBEX):
        store = await storage.blobs(tenant)
        for blob in blobs:
            await store.put(blob)
    before = await storage.blobs(ACME)
    quotas.note(replace(CLAIMS, not_before=200.0, quotas=RouteQuotas(cache_bytes=350_000)))
    # A second store on the directory would count apart from one that is in use.
    assert await storage.blobs(ACME) is before
    await before.put(Blob.of(b"x" * 100_000))
    kept = sum(f.stat().st_size for f in (tmp_path / "acme").rglob("*") if f.is_file())
    assert kept <= 350_000
    with pytest.raises(NotFoundError):
        await before.get(blobs[0].digest)
    assert await (await storage.blobs(GLOBEX)).find_missing(b.digest for b in blobs) == frozenset()


async def test_a_quota_that_comes_while_a_store_is_opened_counts_and_a_larger_one_gives_room(
    tmp_path: Path,
) -> None:
    quotas, _, storage = quotas_of(tmp_path)
    opening = asyncio.create_task(storage.blobs(ACME))
    await asyncio.sleep(0)
    quotas.note(replace(CLAIMS, not_before=200.0, quotas=RouteQuotas(cache_bytes=350_000)))
    store = await opening
    blobs = [Blob.of(bytes([n]) * 100_000) for n in range(10)]
    for blob in blobs[:5]:
        await store.put(blob)
    assert len(await store.find_missing(b.digest for b in blobs[:5])) == 2
    quotas.note(replace(CLAIMS, not_before=300.0, quotas=RouteQuotas()))
    for blob in blobs:
        await store.put(blob)
    assert await store.find_missing(b.digest for b in blobs) == frozenset()
    assert await storage.blobs(ACME) is store


def shared(quotas: Quotas, principal: str, signed_at: float, share: RouteShare | None) -> None:
    limits = RouteQuotas(concurrent_execs=4, upload_bytes=100)
    quotas.note(
        replace(CLAIMS, subject=principal, not_before=signed_at, quotas=limits, share=share)
    )


async def test_a_principals_share_is_enforced_beside_the_tenants_quota(tmp_path: Path) -> None:
    quotas, _, _ = quotas_of(tmp_path)
    shared(quotas, "ann", 200.0, RouteShare(in_flight=1, upload_bytes=10))
    shared(quotas, "bob", 200.0, None)
    ann, bob = Work(), Work()
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(quotas.execute(ACME, ann, principal="ann"))
            group.create_task(quotas.execute(ACME, bob, principal="bob"))
        await settled()
        assert (ann.running, bob.running) == (1, 3), "her share, and what is left of the quota"
        for work in (ann, bob):
            work.end.set()
    assert ann.most == 1
    quotas.upload(ACME, 10, principal="ann")
    with pytest.raises(BusyError):
        quotas.upload(ACME, 1, principal="ann")
    quotas.upload(ACME, 90, principal="bob")
    with pytest.raises(BusyError):
        quotas.upload(ACME, 1, principal="bob")


async def test_the_share_of_the_token_signed_last_applies(tmp_path: Path) -> None:
    quotas, _, _ = quotas_of(tmp_path)
    shared(quotas, "ann", 300.0, RouteShare(in_flight=1))
    shared(quotas, "ann", 200.0, RouteShare(in_flight=4))
    work = Work()
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(quotas.execute(ACME, work, principal="ann"))
        await settled()
        assert work.running == 1
        shared(quotas, "ann", 400.0, None)  # one route again
        await settled()
        assert work.running == 4
        work.end.set()
