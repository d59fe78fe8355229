"""Stores in memory, for tests and for content that need not outlive a process."""

from __future__ import annotations

from collections.abc import Iterable

from hpcc.core import EMPTY_DIGEST, Blob, Digest, NotFoundError


class MemoryBlobStore:
    """`BlobStore` in a dict, without a limit."""

    def __init__(self) -> None:
        self._blobs: dict[Digest, Blob] = {}

    async def get(self, digest: Digest) -> Blob:
        if digest == EMPTY_DIGEST:
            return Blob.of(b"")
        try:
            return self._blobs[digest]
        except KeyError as error:
            raise NotFoundError(f"no blob {digest}") from error

    async def put(self, blob: Blob) -> None:
        self._blobs[blob.digest] = blob

    async def find_missing(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        return frozenset(d for d in digests if d != EMPTY_DIGEST and d not in self._blobs)


class MemoryActionCache:
    """`ActionCache` in a dict, without a limit."""

    def __init__(self) -> None:
        self._records: dict[Digest, bytes] = {}

    async def get(self, action: Digest) -> bytes:
        try:
            return self._records[action]
        except KeyError as error:
            raise NotFoundError(f"no result for {action}") from error

    async def put(self, action: Digest, record: bytes) -> None:
        self._records[action] = record
