"""Turns faults of a shared store into misses: they never fail a build or cause a long wait."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

from hpcc.core import EMPTY_DIGEST, Blob, Digest, InfrastructureError, NotFoundError
from hpcc.ports import ActionCache, BlobStore

# If the store is slower than this, local disk and a new compile are faster.
_BYTES_PER_SECOND: Final = 1 << 20


class _Patience:
    """One time limit for a whole call, which may become hundreds of requests below."""

    def __init__(self, seconds: float, counters: Counter[str]) -> None:
        self._seconds, self.counters = seconds, counters

    @asynccontextmanager
    async def limited(self, size_bytes: int = 0) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._seconds + size_bytes / _BYTES_PER_SECOND):
                yield
        except TimeoutError as error:
            raise InfrastructureError(
                "the shared store is too slow", reason="store-timeout"
            ) from error


class DegradingBlobStore:
    """`BlobStore` that appears empty while the one below it does not work.

    A call may take `patience_seconds`, and one second more for each MiB. Lost writes and failed
    reads are counted.
    """

    def __init__(
        self, inner: BlobStore, counters: Counter[str], *, patience_seconds: float = 15.0
    ) -> None:
        self._inner, self._patience = inner, _Patience(patience_seconds, counters)

    async def get(self, digest: Digest) -> Blob:
        try:
            async with self._patience.limited(digest.size_bytes):
                return await self._inner.get(digest)
        except InfrastructureError as error:
            self._patience.counters["degraded.get"] += 1
            raise NotFoundError(f"no blob {digest}", reason=error.reason) from error

    async def put(self, blob: Blob) -> None:
        try:
            async with self._patience.limited(blob.digest.size_bytes):
                await self._inner.put(blob)
        except InfrastructureError as error:
            self._patience.counters[f"lost-blob.{error.reason}"] += 1

    async def find_missing(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        wanted = frozenset(digests) - {EMPTY_DIGEST}
        try:
            async with self._patience.limited():
                return await self._inner.find_missing(wanted)
        except InfrastructureError:
            self._patience.counters["degraded.find"] += 1
            return wanted


class DegradingActionCache:
    """`ActionCache` that appears empty while the one below it does not work."""

    def __init__(
        self, inner: ActionCache, counters: Counter[str], *, patience_seconds: float = 15.0
    ) -> None:
        self._inner, self._patience = inner, _Patience(patience_seconds, counters)

    async def get(self, action: Digest) -> bytes:
        try:
            async with self._patience.limited():
                return await self._inner.get(action)
        except InfrastructureError as error:
            self._patience.counters["degraded.result"] += 1
            raise NotFoundError(f"no result for {action}", reason=error.reason) from error

    async def put(self, action: Digest, record: bytes) -> None:
        try:
            async with self._patience.limited(len(record)):
                await self._inner.put(action, record)
        except InfrastructureError as error:
            self._patience.counters[f"lost-result.{error.reason}"] += 1
