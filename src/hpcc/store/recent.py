"""Keeps the small blobs of the last seconds in memory: a compile reads most of what it brings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from hpcc.core import Blob, Digest
from hpcc.core.memo import SizedMemo
from hpcc.ports import BlobStore, Clock

_MAX_BLOB_BYTES: Final = 64 << 10
# What an entry costs beside its bytes.
_ENTRY_BYTES: Final = 500


@dataclass(frozen=True, slots=True)
class _Kept:
    blob: Blob
    since: float


class RecentBlobs:
    """The memory that all stores of one process share. Used by one event loop."""

    def __init__(self, clock: Clock, *, seconds: float, max_bytes: int) -> None:
        """A blob is kept for at most `seconds`, so that the store below sees that it is used."""
        self._clock, self._seconds = clock, seconds
        # By the owner of the blob, and its hash and size: a tenant never reads another's.
        self._kept: SizedMemo[tuple[str, str, int], _Kept] = SizedMemo(
            lambda kept: kept.blob.digest.size_bytes + _ENTRY_BYTES, max_bytes=max_bytes
        )

    def find_or_none(self, owner: str, digest: Digest) -> Blob | None:
        key = owner, digest.hash, digest.size_bytes
        kept = self._kept.use(key)
        if kept is None:
            return None
        if kept.since < self._clock.monotonic() - self._seconds:
            self._kept.drop(key)
            return None
        return kept.blob

    def note(self, owner: str, blob: Blob) -> None:
        digest = blob.digest
        if digest.size_bytes <= _MAX_BLOB_BYTES:
            kept = _Kept(blob, self._clock.monotonic())
            self._kept.put((owner, digest.hash, digest.size_bytes), kept)

    def drop(self, owner: str, digest: Digest) -> None:
        self._kept.drop((owner, digest.hash, digest.size_bytes))


class RecentBlobStore:
    """`BlobStore` that reads small blobs from memory, if `inner` had them a moment ago.

    Every blob is still written to `inner`. What `inner` finds missing is forgotten.
    """

    def __init__(self, inner: BlobStore, recent: RecentBlobs, owner: str) -> None:
        self._inner, self._recent, self._owner = inner, recent, owner

    async def get(self, digest: Digest) -> Blob:
        blob = self._recent.find_or_none(self._owner, digest)
        if blob is None:
            blob = await self._inner.get(digest)
            self._recent.note(self._owner, blob)
        return blob

    async def put(self, blob: Blob) -> None:
        await self._inner.put(blob)
        self._recent.note(self._owner, blob)

    async def find_missing(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        missing = await self._inner.find_missing(digests)
        for digest in missing:
            self._recent.drop(self._owner, digest)
        return missing
