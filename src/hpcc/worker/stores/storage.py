"""Each tenant's stores, opened when first needed. No path leads from one tenant's to another's."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.core import Isolation, TenantId
from hpcc.ports import ActionCache, BlobStore, Clock
from hpcc.store.disk_actions import (
    DiskActionCache,
    DiskActionCacheConfig,
    action_cache_directory,
    sharing_directory,
)
from hpcc.store.disk_blobs import DiskBlobStore, DiskBlobStoreConfig
from hpcc.store.recent import RecentBlobs, RecentBlobStore
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.stores.retained import cas_directory
from hpcc.worker.stores.shared import SharedStores

# What a compile brings and what it leaves is read again while it runs, by it and by its client.
_RECENT_SECONDS: Final = 15.0
# For all tenants together.
_RECENT_BYTES: Final = 32 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUse:
    """What a tenant's blobs take of the disk, may take, and have lost to eviction since a start."""

    size_bytes: int
    limit_bytes: int
    evicted_bytes: int


class TenantStorage:
    """Blob stores by tenant and action caches by trust domain, under one directory."""

    def __init__(
        self, directory: Path, max_bytes: int, clock: Clock, shared: SharedStores | None = None
    ) -> None:
        self._directory, self._max_bytes, self._shared = directory, max_bytes, shared
        self._recent = RecentBlobs(clock, seconds=_RECENT_SECONDS, max_bytes=_RECENT_BYTES)
        self._lock = asyncio.Lock()
        self._limits: dict[TenantId, int] = {}
        self._blobs: dict[TenantId, DiskBlobStore] = {}
        self._stacks: dict[TenantId, BlobStore] = {}
        self._actions: dict[Path, ActionCache] = {}

    def bound(self, tenant: TenantId, max_bytes: int) -> None:
        """Limit a tenant's cache below the worker's, from its next upload on; 0 lifts it."""
        limit = min(self._max_bytes, max_bytes or self._max_bytes)
        self._limits[tenant] = limit
        # The store object stays: two on one directory would each miss what the other writes.
        if (store := self._blobs.get(tenant)) is not None:
            store.bound(limit)

    def uses(self) -> dict[str, DiskUse]:
        """Return the use of the disk by tenant, of those that were served since the start."""
        return {
            tenant.value: DiskUse(
                size_bytes=store.size_bytes,
                limit_bytes=store.limit_bytes,
                evicted_bytes=store.evicted_bytes,
            )
            for tenant, store in self._blobs.items()
        }

    async def blobs(self, tenant: TenantId) -> BlobStore:
        """Return the tenant's CAS, with any shared store behind it."""
        stack = self._stacks.get(tenant)
        if stack is not None:
            return stack
        async with self._lock:
            if (stack := self._stacks.get(tenant)) is None:
                config = DiskBlobStoreConfig(
                    directory=cas_directory(self._directory, tenant),
                    max_size_bytes=self._max_bytes,
                )
                store = await asyncio.to_thread(DiskBlobStore, config)
                store.bound(self._limits.get(tenant, self._max_bytes))
                share = self._shared.of(tenant, store) if self._shared else None
                below = share.blobs() if share else store
                stack = RecentBlobStore(below, self._recent, tenant.value)
                self._blobs[tenant], self._stacks[tenant] = store, stack
        return stack

    async def actions(self, domain: TrustDomain) -> ActionCache:
        """Return the action cache of a trust domain, with any shared one behind it."""
        path = action_cache_directory(
            self._directory, domain.tenant, domain.isolation, domain.reuse, domain.principal
        )
        return await self._cache(domain.tenant, path)

    async def shared_results(self, tenant: TenantId, isolation: Isolation) -> ActionCache:
        """Return the results that serve a whole tenant, with any shared store behind them."""
        path = sharing_directory(self._directory, tenant, isolation, "shared")
        return await self._cache(tenant, path)

    async def claims(self, tenant: TenantId, isolation: Isolation) -> ActionCache:
        """Return the claims about a tenant's executions: in the shared store, if there is one.

        They are not copied to this disk, because an index of claims changes.
        """
        path = sharing_directory(self._directory, tenant, isolation, "claims")
        return await self._cache(tenant, path, is_copied=False)

    async def near_actions(self, tenant: TenantId, isolation: Isolation) -> ActionCache:
        """Return the lists of shared actions, for `hpcc explain`; kept as claims are."""
        path = sharing_directory(self._directory, tenant, isolation, "near")
        return await self._cache(tenant, path, is_copied=False)

    async def _cache(self, tenant: TenantId, path: Path, *, is_copied: bool = True) -> ActionCache:
        cache = self._actions.get(path)
        if cache is None:
            await self.blobs(tenant)
            async with self._lock:
                if path not in self._actions:
                    self._actions[path] = await self._open(tenant, path, is_copied=is_copied)
                cache = self._actions[path]
        return cache

    async def _open(self, tenant: TenantId, path: Path, *, is_copied: bool) -> ActionCache:
        share = self._shared.of(tenant, self._blobs[tenant]) if self._shared else None
        # Shared results are separated as those on disk are: by isolation, reuse and principal.
        scope = path.relative_to(self._directory / tenant.value).as_posix()
        if share is not None and not is_copied:
            return share.remote_actions(scope)
        disk = await asyncio.to_thread(DiskActionCache, DiskActionCacheConfig(directory=path))
        return disk if share is None else share.actions(scope, disk)
