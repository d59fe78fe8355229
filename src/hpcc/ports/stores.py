"""The contracts of a blob store and of an action cache, for all implementations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from hpcc.core import Blob, Digest


class BlobStore(Protocol):
    """Content-addressed storage of one tenant. Contract: tests/contract/test_blob_store.py."""

    async def get(self, digest: Digest) -> Blob:
        """Return the blob, checked.

        Raises:
            NotFoundError: it is absent, or was found damaged and removed.
            InfrastructureError: the store does not work.
        """
        ...

    async def put(self, blob: Blob) -> None:
        """Store the blob. Idempotent. Every later call sees it, completely or not at all.

        Raises:
            InfrastructureError: it could not be stored (reason `disk-full` if that is why).
        """
        ...

    async def find_missing(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        """Return the digests that `get` would not find. The empty blob is never missing."""
        ...


class ActionCache(Protocol):
    """Serialised results by action digest, of one tenant, isolation class and reuse class."""

    async def get(self, action: Digest) -> bytes:
        """Return the stored record.

        Raises:
            NotFoundError: there is no record, or it was damaged and removed.
        """
        ...

    async def put(self, action: Digest, record: bytes) -> None:
        """Store the record in place of an older one, completely or not at all."""
        ...
