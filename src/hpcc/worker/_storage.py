"""Each tenant's stores, opened when first needed; no path leads from one to another."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Final

from hpcc.core import Digest, NotFoundError, TenantId
from hpcc.ports import ActionCache, BlobStore
from hpcc.store import (
    DiskActionCache,
    DiskActionCacheConfig,
    DiskBlobStore,
    DiskBlobStoreConfig,
    action_cache_directory,
)
from hpcc.worker._domain import TrustDomain
from hpcc.worker._rows import Lineage

_HEAD_BYTES: Final = 4
_MAX_HEAD_BYTES: Final = 4 << 20


class TenantStorage:
    """Blob stores by tenant and action caches by trust domain, under one directory."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory, self._max_bytes = directory, max_bytes
        self._lock = asyncio.Lock()
        self._limits: dict[TenantId, int] = {}
        self._blobs: dict[TenantId, DiskBlobStore] = {}
        self._actions: dict[Path, ActionCache] = {}

    def bound(self, tenant: TenantId, max_bytes: int) -> None:
        """Give a tenant less room than the worker would, from its next upload on; 0 is no limit."""
        limit = min(self._max_bytes, max_bytes or self._max_bytes)
        self._limits[tenant] = limit
        # The store stays the same: two on one directory would each count what it does not see.
        if (store := self._blobs.get(tenant)) is not None:
            store.bound(limit)

    async def blobs(self, tenant: TenantId) -> BlobStore:
        store = self._blobs.get(tenant)
        if store is not None:
            return store
        async with self._lock:
            if (store := self._blobs.get(tenant)) is None:
                config = DiskBlobStoreConfig(
                    directory=self._directory / tenant.value / "cas",
                    max_size_bytes=self._max_bytes,
                )
                store = await asyncio.to_thread(DiskBlobStore, config)
                store.bound(self._limits.get(tenant, self._max_bytes))
                self._blobs[tenant] = store
        return store

    async def actions(self, domain: TrustDomain) -> ActionCache:
        path = action_cache_directory(
            self._directory, domain.tenant, domain.isolation, domain.reuse, domain.principal
        )
        cache = self._actions.get(path)
        if cache is None:
            async with self._lock:
                if path not in self._actions:
                    config = DiskActionCacheConfig(directory=path)
                    self._actions[path] = await asyncio.to_thread(DiskActionCache, config)
                cache = self._actions[path]
        return cache


def pack_entry(lineage: Lineage, result: bytes) -> bytes:
    """Encode an action cache entry: lineage as JSON behind its length, then the result."""
    head = json.dumps(asdict(lineage), sort_keys=True).encode()
    return len(head).to_bytes(_HEAD_BYTES, "big") + head + result


def unpack_entry(action: Digest, entry: bytes) -> tuple[Lineage, bytes]:
    """Read an entry.

    Raises:
        NotFoundError: it has another form, which makes it a miss.
    """
    size = int.from_bytes(entry[:_HEAD_BYTES], "big")
    if size > _MAX_HEAD_BYTES:
        raise NotFoundError(f"result for {action} has another form", reason="damaged")
    try:
        lineage = Lineage.of(json.loads(entry[_HEAD_BYTES : _HEAD_BYTES + size]))
    except (ValueError, TypeError, AttributeError) as error:
        raise NotFoundError(f"result for {action} has another form", reason="damaged") from error
    return lineage, entry[_HEAD_BYTES + size :]
