"""Which blobs and results on disk need another thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.core import Blob
from hpcc.store.disk_actions import DiskActionCache, DiskActionCacheConfig
from hpcc.store.disk_blobs import DiskBlobStore, DiskBlobStoreConfig, blob_path

SMALL, LARGE = Blob.of(b"x" * (64 << 10)), Blob.of(b"x" * ((64 << 10) + 1))


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the functions that were called in another thread."""
    found: list[str] = []
    to_thread = asyncio.to_thread

    async def counted[**P, T](function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        found.append(function.__name__)
        return await to_thread(function, *args, **kwargs)

    monkeypatch.setattr(asyncio, "to_thread", counted)
    return found


async def test_only_large_and_synced_blobs_are_written_in_another_thread(
    tmp_path: Path, threads: list[str]
) -> None:
    store = DiskBlobStore(DiskBlobStoreConfig(directory=tmp_path / "a"))
    synced = DiskBlobStore(DiskBlobStoreConfig(directory=tmp_path / "b", sync=True))
    await store.put(SMALL)
    assert threads == []
    await store.put(LARGE)
    await synced.put(SMALL)
    assert threads == ["_put", "_put"]
    assert [(await s.get(SMALL.digest)) for s in (store, synced)] == [SMALL, SMALL]


async def test_only_a_large_result_is_written_in_another_thread(
    tmp_path: Path, threads: list[str]
) -> None:
    cache = DiskActionCache(DiskActionCacheConfig(directory=tmp_path))
    await cache.put(SMALL.digest, b"small")
    assert threads == []
    await cache.put(LARGE.digest, LARGE.data)
    assert threads == ["write_file"]
    assert await cache.get(SMALL.digest) == b"small"
    assert await cache.get(LARGE.digest) == LARGE.data


async def test_an_eviction_by_a_small_blob_happens_in_another_thread(
    tmp_path: Path, threads: list[str]
) -> None:
    store = DiskBlobStore(DiskBlobStoreConfig(directory=tmp_path, max_size_bytes=100))
    await store.put(Blob.of(b"a" * 60))
    await store.put(Blob.of(b"b" * 60))
    assert threads == ["_evict"]
    assert store.size_bytes == 60


async def test_many_small_blobs_let_others_run(tmp_path: Path) -> None:
    store = DiskBlobStore(DiskBlobStoreConfig(directory=tmp_path))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(other())
    for number in range(10):
        await store.put(Blob.of(b"%d" % number))
    task.cancel()
    assert turns >= 10


async def test_linked_blobs_count_and_are_evicted_as_others_are(tmp_path: Path) -> None:
    blobs = [Blob.of(bytes([i]) * 100) for i in range(12)]
    other = DiskBlobStore(DiskBlobStoreConfig(directory=tmp_path / "a"))
    config = DiskBlobStoreConfig(directory=tmp_path / "b", max_size_bytes=1000)
    store = DiskBlobStore(config)
    for blob in blobs:
        await other.put(blob)
        name = blob.digest.hash
        assert await store.link(str(blob_path(tmp_path / "a", name)), blob.digest)
    assert store.size_bytes <= 1000
    assert await store.get(blobs[-1].digest) == blobs[-1]
    assert await store.find_missing([blobs[0].digest]) == {blobs[0].digest}
    assert await other.get(blobs[0].digest) == blobs[0]


async def test_a_link_that_is_not_possible_changes_nothing(tmp_path: Path) -> None:
    store = DiskBlobStore(DiskBlobStoreConfig(directory=tmp_path / "a"))
    assert not await store.link(str(tmp_path / "absent"), SMALL.digest)
    (tmp_path / "torn").write_bytes(b"x")
    assert not await store.link(str(tmp_path / "torn"), SMALL.digest)
    assert store.size_bytes == 0
    assert await store.find_missing([SMALL.digest]) == {SMALL.digest}
