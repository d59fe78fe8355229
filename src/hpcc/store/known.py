"""Remembers for a while which blobs a store has: a compile asks about hundreds of headers."""

from __future__ import annotations

from collections.abc import Iterable

from hpcc.core import Blob, Digest, NotFoundError
from hpcc.core.memo import LruMemo
from hpcc.ports import BlobStore, Clock


class KnownBlobStore:
    """`BlobStore` that skips `find_missing` for blobs that `inner` had within `seconds`.

    Only presence is remembered. A `get` that finds no blob, or a damaged one, removes the entry.
    """

    def __init__(
        self, inner: BlobStore, clock: Clock, *, seconds: float = 300.0, max_entries: int = 100_000
    ) -> None:
        self.inner, self._clock = inner, clock
        self._seconds = seconds
        self._known: LruMemo[Digest, float] = LruMemo(max_entries)
        # How often `inner` lacked a blob that was wanted. A summary of what is known ends with it.
        self.losses = 0

    def since(self, digests: Iterable[Digest]) -> float:
        """Return when the blob was noted that was noted first; minus infinity if one was not."""
        return min((self._known.get(d, float("-inf")) for d in digests), default=float("inf"))

    async def get(self, digest: Digest) -> Blob:
        try:
            blob = await self.inner.get(digest)
        except NotFoundError:
            self._known.pop(digest, None)
            self.losses += 1
            raise
        self._note(digest)
        return blob

    async def put(self, blob: Blob) -> None:
        await self.inner.put(blob)
        self._note(blob.digest)

    async def find_missing(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        oldest = self._clock.monotonic() - self._seconds
        unknown = {d for d in digests if self._known.get(d, float("-inf")) < oldest}
        if not unknown:
            return frozenset()
        missing = await self.inner.find_missing(unknown)
        for digest in unknown - missing:
            self._note(digest)
        return missing

    def _note(self, digest: Digest) -> None:
        self._known[digest] = self._clock.monotonic()
