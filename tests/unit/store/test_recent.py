"""What is read from memory, for how long, for whom, and within which bytes."""

from __future__ import annotations

import pytest

from hpcc.core import Blob, NotFoundError
from hpcc.store.memory import MemoryBlobStore
from hpcc.store.recent import RecentBlobs, RecentBlobStore
from hpcc_testkit.services.idp_tokens import FixedClock

SECONDS = 30.0
BLOB, LARGE = Blob.of(b"int x;\n"), Blob.of(b"x" * ((64 << 10) + 1))


class Emptied(MemoryBlobStore):
    """A store that loses all it had."""

    def lose(self) -> None:
        self.__init__()  # type: ignore[misc]  # as a user who removes the cache's files


class Stores:
    def __init__(self, max_bytes: int = 1 << 20) -> None:
        self.clock, self.inner = FixedClock(), Emptied()
        self.recent = RecentBlobs(self.clock, seconds=SECONDS, max_bytes=max_bytes)
        self.store = self.of("acme")

    def of(self, owner: str) -> RecentBlobStore:
        return RecentBlobStore(self.inner, self.recent, owner)


@pytest.mark.parametrize("how", ["put", "get"])
async def test_a_small_blob_is_read_once_for_a_while(how: str) -> None:
    stores = Stores()
    await (stores.store if how == "put" else stores.inner).put(BLOB)
    assert await stores.store.get(BLOB.digest) == BLOB
    stores.inner.lose()
    stores.clock.time += SECONDS
    assert await stores.store.get(BLOB.digest) == BLOB
    stores.clock.time += 0.1  # also if it was read all the time: the store below must see its use
    with pytest.raises(NotFoundError):
        await stores.store.get(BLOB.digest)


async def test_a_large_blob_is_read_from_the_store() -> None:
    stores = Stores()
    await stores.store.put(LARGE)
    assert await stores.store.get(LARGE.digest) == LARGE
    stores.inner.lose()
    with pytest.raises(NotFoundError):
        await stores.store.get(LARGE.digest)


async def test_what_the_store_finds_missing_is_forgotten() -> None:
    stores = Stores()
    await stores.store.put(BLOB)
    assert await stores.store.find_missing([BLOB.digest]) == frozenset()
    stores.inner.lose()
    assert await stores.store.find_missing([BLOB.digest]) == {BLOB.digest}
    with pytest.raises(NotFoundError):
        await stores.store.get(BLOB.digest)


async def test_another_tenant_reads_nothing_by_a_digest() -> None:
    stores, other = Stores(), Emptied()
    await stores.store.put(BLOB)
    with pytest.raises(NotFoundError):
        await RecentBlobStore(other, stores.recent, "other").get(BLOB.digest)


async def test_the_bytes_of_all_tenants_are_bounded() -> None:
    stores = Stores(max_bytes=10_000)
    blobs = [Blob.of(bytes([i]) * 3000) for i in range(4)]
    for blob in blobs:
        await stores.of(f"tenant-{blob.data[0]}").put(blob)
    stores.inner.lose()
    kept = [
        b for b in blobs if stores.recent.find_or_none(f"tenant-{b.data[0]}", b.digest) is not None
    ]
    assert kept == blobs[2:]
