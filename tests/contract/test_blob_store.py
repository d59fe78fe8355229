"""The contract of `BlobStore` and `ActionCache`, asked of every implementation."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcc.core import EMPTY_DIGEST, Blob, Digest, InfrastructureError, NotFoundError
from hpcc.ports import ActionCache, BlobStore
from hpcc.store import (
    DiskActionCache,
    DiskActionCacheConfig,
    DiskBlobStore,
    DiskBlobStoreConfig,
    MemoryActionCache,
    MemoryBlobStore,
)

BLOB = Blob.of(b"content")
BIG = Blob.of(b"x" * 300_000)
ACTION = Digest.of(b"action")


def files(directory: Path, pattern: str = "??/*") -> list[Path]:
    return list(directory.glob(pattern))


def disk(
    directory: Path, fault: Callable[[str], None] = lambda _: None, **more: Any
) -> DiskBlobStore:
    config = DiskBlobStoreConfig(directory=directory / "cas", **more)
    return DiskBlobStore(config, fault=fault)


@pytest.fixture(params=["memory", "disk", "disk-synced"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    match request.param:
        case "memory":
            return MemoryBlobStore()
        case "disk":
            return disk(tmp_path)
        case _:
            return disk(tmp_path, sync=True)


@pytest.fixture(params=["memory", "disk"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> ActionCache:
    if request.param == "memory":
        return MemoryActionCache()
    return DiskActionCache(DiskActionCacheConfig(directory=tmp_path / "ac"))


async def test_what_was_put_is_got(store: BlobStore) -> None:
    for blob in (BLOB, BIG, BLOB):
        await store.put(blob)
        assert await store.get(blob.digest) == blob


async def test_an_absent_blob_is_not_found(store: BlobStore) -> None:
    with pytest.raises(NotFoundError):
        await store.get(BLOB.digest)


async def test_missing_are_those_that_were_not_put(store: BlobStore) -> None:
    await store.put(BLOB)
    missing = await store.find_missing([BLOB.digest, BIG.digest, EMPTY_DIGEST])
    assert missing == {BIG.digest}


async def test_the_empty_blob_is_always_there(store: BlobStore) -> None:
    assert (await store.get(EMPTY_DIGEST)).data == b""


async def test_a_right_hash_with_a_wrong_size_is_absent_and_harms_nothing(store: BlobStore) -> None:
    await store.put(BLOB)
    for size in (BLOB.digest.size_bytes - 1, BLOB.digest.size_bytes + 1):
        wrong = Digest(BLOB.digest.hash, size)
        assert await store.find_missing([wrong]) == {wrong}
        with pytest.raises(NotFoundError):
            await store.get(wrong)
    assert await store.get(BLOB.digest) == BLOB


async def test_a_result_is_kept_and_replaced(cache: ActionCache) -> None:
    with pytest.raises(NotFoundError):
        await cache.get(ACTION)
    for record in (b"one", b"two", b""):
        await cache.put(ACTION, record)
        assert await cache.get(ACTION) == record


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


@pytest.mark.parametrize("step", ["open", "write", "fsync", "rename"])
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
