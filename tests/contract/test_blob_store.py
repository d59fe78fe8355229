"""Runs the contract of `BlobStore` and `ActionCache` on every implementation."""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from hpcc.core import Blob, Digest, InfrastructureError, NotFoundError
from hpcc.ports import ActionCache, BlobStore, SystemClock
from hpcc.store.breaker import (
    Breaker,
    BreakerConfig,
    GuardedActionCache,
    GuardedBlobStore,
    GuardedObjects,
)
from hpcc.store.bucket.object_blobs import ObjectActionCache, ObjectBlobStore
from hpcc.store.degrading import DegradingActionCache, DegradingBlobStore
from hpcc.store.disk_actions import DiskActionCache, DiskActionCacheConfig
from hpcc.store.disk_blobs import DiskBlobStore, DiskBlobStoreConfig
from hpcc.store.held import Held, HeldObjects
from hpcc.store.known import KnownBlobStore
from hpcc.store.memory import MemoryActionCache, MemoryBlobStore
from hpcc.store.metered import MeteredObjects
from hpcc.store.objects import MemoryObjects, Objects, PrefixObjects
from hpcc.store.recent import RecentBlobs, RecentBlobStore
from hpcc.store.tiered import ReadCachingActionCache, ReadCachingBlobStore
from hpcc.store.write_behind import Publisher, PublishingActionCache, WriteBehindBlobStore
from hpcc.store.zstd import ZstdObjects
from hpcc_testkit.cache.store_contract import ACTION, BLOB, ActionCacheContract, BlobStoreContract


def files(directory: Path, pattern: str = "??/*") -> list[Path]:
    return list(directory.glob(pattern))


def disk(
    directory: Path, fault: Callable[[str], None] = lambda _: None, **more: Any
) -> DiskBlobStore:
    config = DiskBlobStoreConfig(directory=directory / "cas", **more)
    return DiskBlobStore(config, fault=fault)


def breaker() -> Breaker:
    return Breaker(BreakerConfig(), SystemClock(), ignore)


async def ignore(name: str, *fields: tuple[str, str]) -> None:
    del name, fields


def objects() -> ObjectBlobStore:
    return ObjectBlobStore(MemoryObjects())


def zstd() -> ObjectBlobStore:
    inner = MeteredObjects(PrefixObjects(MemoryObjects(), "acme"), Counter(), SystemClock())
    return ObjectBlobStore(ZstdObjects(inner))


async def held() -> Objects:
    return MemoryObjects()


def no_references(record: bytes) -> tuple[Digest, ...]:
    del record
    return ()


STORES: dict[str, Callable[[Path], BlobStore]] = {
    "memory": lambda _: MemoryBlobStore(),
    "disk": disk,
    "disk-synced": lambda path: disk(path, sync=True),
    "objects": lambda _: objects(),
    "zstd-metered-prefix": lambda _: zstd(),
    "held": lambda _: ObjectBlobStore(HeldObjects(Held(held, idle_seconds=60))),
    "known": lambda _: KnownBlobStore(objects(), SystemClock()),
    "recent": lambda _: RecentBlobStore(
        objects(), RecentBlobs(SystemClock(), seconds=60, max_bytes=1 << 20), "acme"
    ),
    "guarded-objects": lambda _: ObjectBlobStore(GuardedObjects(MemoryObjects(), breaker())),
    "guarded": lambda _: GuardedBlobStore(objects(), breaker()),
    "degrading": lambda _: DegradingBlobStore(objects(), Counter()),
    "read-caching": lambda path: ReadCachingBlobStore(disk(path), objects()),
    "write-behind": lambda _: WriteBehindBlobStore(objects(), Counter()),
    "write-behind-that-never-writes": lambda _: WriteBehindBlobStore(objects(), Counter()),
}
CACHES: dict[str, Callable[[Path], ActionCache]] = {
    "memory": lambda _: MemoryActionCache(),
    "disk": lambda path: DiskActionCache(DiskActionCacheConfig(directory=path / "ac")),
    "objects": lambda _: ObjectActionCache(MemoryObjects(), "ac"),
    "zstd": lambda _: ObjectActionCache(ZstdObjects(MemoryObjects()), "ac"),
    "guarded": lambda _: GuardedActionCache(MemoryActionCache(), breaker()),
    "degrading": lambda _: DegradingActionCache(MemoryActionCache(), Counter()),
    "read-caching": lambda _: ReadCachingActionCache(
        MemoryActionCache(), ObjectActionCache(MemoryObjects(), "ac")
    ),
}


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BlobStore]:
    made = STORES[request.param](tmp_path)
    if request.param == "write-behind":
        assert isinstance(made, WriteBehindBlobStore)
        async with running(made.run()):
            yield made
    else:
        yield made


@pytest.fixture(params=[*CACHES, "publishing", "publishing-that-never-publishes"])
async def cache(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ActionCache]:
    if request.param in CACHES:
        yield CACHES[request.param](tmp_path)
        return
    blobs = WriteBehindBlobStore(objects(), Counter())
    publisher = Publisher(blobs, MemoryBlobStore(), Counter(), no_references)
    made = PublishingActionCache(ObjectActionCache(MemoryObjects(), "ac"), publisher)
    if request.param == "publishing":
        async with running(publisher.run()), running(blobs.run()):
            yield made
    else:
        yield made


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class TestBlobStores(BlobStoreContract):
    pass


class TestActionCaches(ActionCacheContract):
    pass


@pytest.mark.parametrize("damage", [b"", b"cont", b"Content", b"content and more"])
async def test_a_damaged_blob_is_absent_and_can_be_put_again(tmp_path: Path, damage: bytes) -> None:
    store = disk(tmp_path)
    await store.put(BLOB)
    file = tmp_path / "cas" / BLOB.digest.hash[:2] / BLOB.digest.hash
    file.write_bytes(damage)
    with pytest.raises(NotFoundError):
        await store.get(BLOB.digest)
    store = disk(tmp_path)
    await store.put(BLOB)
    if len(damage) <= len(BLOB.data):
        assert await store.get(BLOB.digest) == BLOB


@pytest.mark.parametrize("damage", [b"", b"hpcc-ac1", b"x" * 100])
async def test_a_damaged_result_is_a_miss(tmp_path: Path, damage: bytes) -> None:
    cache = DiskActionCache(DiskActionCacheConfig(directory=tmp_path))
    await cache.put(ACTION, b"record")
    (file,) = files(tmp_path)
    file.write_bytes(damage)
    with pytest.raises(NotFoundError):
        await cache.get(ACTION)
    assert not file.exists()


async def test_a_result_under_another_actions_name_is_a_miss(tmp_path: Path) -> None:
    cache = DiskActionCache(DiskActionCacheConfig(directory=tmp_path))
    await cache.put(ACTION, b"record")
    (file,) = files(tmp_path)
    other = Digest.of(b"other")
    target = tmp_path / other.hash[:2] / f"{other.hash}-{other.size_bytes}"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(file.read_bytes())
    with pytest.raises(NotFoundError):
        await cache.get(other)


@pytest.mark.parametrize("step", ["open", "write", "sync", "rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_a_fault_at_each_step_leaves_nothing_half_made(
    tmp_path: Path, step: str, number: int
) -> None:
    hit: list[str] = []

    def fault(name: str) -> None:
        if name == step:
            hit.append(name)
            raise OSError(number, "injected")

    store = disk(tmp_path, fault, sync=True)
    with pytest.raises(InfrastructureError) as caught:
        await store.put(BLOB)
    assert hit, "the fault point was not reached"
    assert caught.value.reason == ("disk-full" if number == errno.ENOSPC else "store")
    assert files(tmp_path / "cas", "*/*") == []
    assert await store.find_missing([BLOB.digest]) == {BLOB.digest}
    assert str(tmp_path) not in str(caught.value)


async def test_blobs_and_their_order_of_use_survive_a_restart(tmp_path: Path) -> None:
    await disk(tmp_path).put(BLOB)
    again = disk(tmp_path)
    assert await again.find_missing([BLOB.digest]) == frozenset()
    assert again.size_bytes == BLOB.digest.size_bytes


async def test_the_least_recently_used_goes_first_and_the_bound_holds(tmp_path: Path) -> None:
    store = disk(tmp_path, max_size_bytes=1000)
    blobs = [Blob.of(bytes([i]) * 300) for i in range(4)]
    for blob in blobs[:3]:
        await store.put(blob)
    await store.get(blobs[0].digest)
    await store.put(blobs[3])
    assert await store.find_missing([b.digest for b in blobs]) == {blobs[1].digest}
    assert store.size_bytes <= 1000


async def test_what_a_killed_process_left_aside_is_removed(tmp_path: Path) -> None:
    aside = tmp_path / "cas" / "ab" / ".aside-1234"
    aside.parent.mkdir(parents=True)
    aside.write_bytes(b"half")
    disk(tmp_path)
    assert not aside.exists()


async def test_results_are_evicted_when_there_are_too_many(tmp_path: Path) -> None:
    cache = DiskActionCache(DiskActionCacheConfig(directory=tmp_path, max_entries=10))
    for i in range(12):
        await cache.put(Digest.of(bytes([i])), b"r")
    assert len(files(tmp_path)) <= 11


async def test_results_are_evicted_when_they_are_too_large(tmp_path: Path) -> None:
    """Each may hold megabytes of compiler messages, which no tenant's quota counts."""
    config = DiskActionCacheConfig(directory=tmp_path, max_size_bytes=100_000)
    cache = DiskActionCache(config)
    for i in range(8):
        await cache.put(Digest.of(bytes([i])), bytes(20_000))
    assert sum(file.stat().st_size for file in files(tmp_path)) <= 100_000
    # What is there counts when the worker starts anew.
    cache = DiskActionCache(config)
    await cache.put(Digest.of(b"new"), bytes(90_000))
    assert sum(file.stat().st_size for file in files(tmp_path)) <= 100_000
