"""A fast store in front of a shared one: reads fill the fast one, writes go to both."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from hpcc.core import Blob, Digest, InfrastructureError, NotFoundError
from hpcc.ports import ActionCache, BlobStore


class ReadCachingBlobStore:
    """`BlobStore` that answers from `fast` and fills it from `shared`.

    A blob counts as stored when `fast` has it. `shared` must never fail (`DegradingBlobStore`), and
    should write in the background (`WriteBehindBlobStore`).
    """

    def __init__(self, fast: BlobStore, shared: BlobStore) -> None:
        self._fast, self._shared = fast, shared

    async def get(self, digest: Digest) -> Blob:
        try:
            return await self._fast.get(digest)
        except NotFoundError:
            blob = await self._shared.get(digest)
        with suppress(InfrastructureError):  # with a full disk the caller still gets the blob
            await self._fast.put(blob)
        return blob

    async def put(self, blob: Blob) -> None:
        await self._fast.put(blob)
        await self._shared.put(blob)

    async def find_missing(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        missing = await self._fast.find_missing(digests)
        return await self._shared.find_missing(missing) if missing else missing


class ReadCachingActionCache:
    """`ActionCache` with the same rules; an entry in `fast` is never older than in `shared`."""

    def __init__(self, fast: ActionCache, shared: ActionCache) -> None:
        self._fast, self._shared = fast, shared

    async def get(self, action: Digest) -> bytes:
        try:
            return await self._fast.get(action)
        except NotFoundError:
            record = await self._shared.get(action)
        with suppress(InfrastructureError):
            await self._fast.put(action, record)
        return record

    async def put(self, action: Digest, record: bytes) -> None:
        await self._fast.put(action, record)
        await self._shared.put(action, record)
