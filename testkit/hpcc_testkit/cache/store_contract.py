"""Contract tests of `BlobStore` and `ActionCache`, for every leaf and decorator.

Subclass in a test module and provide a `store` or `cache` fixture.
"""

from __future__ import annotations

import os

import pytest

from hpcc.core import EMPTY_DIGEST, Blob, Digest, NotFoundError
from hpcc.ports import ActionCache, BlobStore

BLOB = Blob.of(b"content")
BIG = Blob.of(b"x" * 300_000)
ACTION = Digest.of(b"action")
OTHER_ACTION = Digest.of(b"another action")


class BlobStoreContract:
    """Tests that every `BlobStore` must pass; needs the fixture `store`."""

    async def test_what_was_put_is_got(self, store: BlobStore) -> None:
        noise = Blob.of(os.urandom(100_000))
        for blob in (BLOB, BIG, noise, Blob.of(b"\0"), Blob.of(b"\x28\xb5\x2f\xfd"), BLOB):
            await store.put(blob)
            assert await store.get(blob.digest) == blob

    async def test_an_absent_blob_is_not_found(self, store: BlobStore) -> None:
        with pytest.raises(NotFoundError):
            await store.get(Digest.of(b"never put"))

    async def test_missing_are_those_that_were_not_put(self, store: BlobStore) -> None:
        await store.put(BLOB)
        absent = {Digest.of(b"absent %d" % i) for i in range(100)}
        assert await store.find_missing([BLOB.digest, EMPTY_DIGEST, *absent]) == absent
        assert await store.find_missing([]) == frozenset()

    async def test_the_empty_blob_is_always_there(self, store: BlobStore) -> None:
        assert (await store.get(EMPTY_DIGEST)).data == b""
        await store.put(Blob.of(b""))
        assert (await store.get(EMPTY_DIGEST)).data == b""
        assert await store.find_missing([EMPTY_DIGEST]) == frozenset()

    async def test_a_right_hash_with_a_wrong_size_is_absent_and_harms_nothing(
        self, store: BlobStore
    ) -> None:
        await store.put(BLOB)
        for size in (0, BLOB.digest.size_bytes - 1, BLOB.digest.size_bytes + 1):
            wrong = Digest(BLOB.digest.hash, size)
            assert await store.find_missing([wrong]) == {wrong}
            with pytest.raises(NotFoundError):
                await store.get(wrong)
        assert await store.get(BLOB.digest) == BLOB


class ActionCacheContract:
    """Tests that every `ActionCache` must pass; needs the fixture `cache`."""

    async def test_an_absent_result_is_not_found(self, cache: ActionCache) -> None:
        with pytest.raises(NotFoundError):
            await cache.get(Digest.of(b"never run"))

    async def test_a_result_is_kept_and_replaced(self, cache: ActionCache) -> None:
        for record in (b"one", b"two", b"x" * 200_000, b"", b"\0\1\2"):
            await cache.put(ACTION, record)
            assert await cache.get(ACTION) == record

    async def test_each_action_has_its_own_result(self, cache: ActionCache) -> None:
        await cache.put(ACTION, b"one")
        await cache.put(OTHER_ACTION, b"other")
        assert await cache.get(ACTION) == b"one"
        assert await cache.get(OTHER_ACTION) == b"other"
        same_hash = Digest(ACTION.hash, ACTION.size_bytes + 1)
        with pytest.raises(NotFoundError):
            await cache.get(same_hash)
