"""Builds the stack of stores behind a tenant's own disk, from its section of the configuration.

From the disk outwards: a wait limit that turns failures into misses; write-behind; a memory of
existing objects; checks by digest; zstd; counters; the breaker; a credential that is held while in
use; the tenant's prefix; S3. For a REAPI service: the breaker, the credential, the service.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from hpcc.core import Digest, TenantId
from hpcc.ports import ActionCache, AuditLog, BlobStore, Clock, SecurityEvent
from hpcc.store.breaker import Breaker, BreakerConfig
from hpcc.store.degrading import DegradingActionCache, DegradingBlobStore
from hpcc.store.known import KnownBlobStore
from hpcc.store.metered import OnCall
from hpcc.store.tiered import ReadCachingActionCache, ReadCachingBlobStore
from hpcc.store.write_behind import (
    Publisher,
    PublishingActionCache,
    WriteBehindBlobStore,
    WriteBehindConfig,
)
from hpcc.worker.base.stores_config import SharedStore, StoresConfig
from hpcc.worker.stores.remote_stores import RemoteStores, S3RemoteStores, ServiceRemoteStores

# One event per minute is enough for an operator; damaged objects may be many.
_DAMAGE_EVENT_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedStoreDeps:
    """What all tenants' shared stores use; `refers_to` returns the digests in a cache entry."""

    audit: AuditLog
    clock: Clock
    group: asyncio.TaskGroup
    refers_to: Callable[[bytes], Iterable[Digest]]


class TenantShare:
    """One tenant's shared store. Its two tasks end with the group or with `close`."""

    def __init__(
        self,
        tenant: TenantId,
        config: SharedStore,
        local: BlobStore,
        deps: SharedStoreDeps,
        on_call: OnCall,
    ) -> None:
        audit, clock, group = deps.audit, deps.clock, deps.group
        self._tenant, self._config, self._local = tenant, config, local
        self._audit, self._clock = audit, clock
        self._damage_at = float("-inf")
        breaker = Breaker(
            BreakerConfig(failures=config.breaker_failures, open_seconds=config.breaker_seconds),
            clock,
            self._event,
        )
        self.breaker, self.counters = breaker, breaker.counters
        self._remote_stores: RemoteStores
        if config.kind == "reapi":
            self._remote_stores = ServiceRemoteStores(config, tenant, breaker)
        else:
            self._remote_stores = S3RemoteStores(
                config, tenant, breaker, clock, self._damaged, on_call
            )
        blobs = KnownBlobStore(self._remote_stores.blobs, clock, seconds=config.known_seconds)
        behind = WriteBehindConfig(max_pending_bytes=config.max_pending_bytes)
        self._writer = WriteBehindBlobStore(blobs, self.counters, behind)
        self._publisher = Publisher(self._writer, local, self.counters, deps.refers_to, behind)
        self._tasks = [
            group.create_task(self._writer.run(), name=f"store-writer-{tenant}"),
            group.create_task(self._publisher.run(), name=f"store-publisher-{tenant}"),
        ]

    def blobs(self) -> BlobStore:
        patience = self._config.patience_seconds
        shared = DegradingBlobStore(self._writer, self.counters, patience_seconds=patience)
        return ReadCachingBlobStore(self._local, shared)

    def actions(self, scope: str, local: ActionCache) -> ActionCache:
        """Return the results of one trust domain; `scope` is its path below the tenant's."""
        return ReadCachingActionCache(local, self.remote_actions(scope))

    def remote_actions(self, scope: str) -> ActionCache:
        """Return what the shared store has of a scope, without a copy on this disk."""
        published = PublishingActionCache(self._remote_stores.actions(scope), self._publisher)
        patience = self._config.patience_seconds
        return DegradingActionCache(published, self.counters, patience_seconds=patience)

    async def close(self, seconds: float) -> None:
        """Publish pending results for at most `seconds`, then end and drop the credential."""
        try:
            async with asyncio.timeout(seconds):
                await self._publisher.wait_idle()
        except TimeoutError:
            self.counters["lost-result.closed"] += 1
        finally:
            for task in self._tasks:
                task.cancel()
            self._remote_stores.let_go()

    async def _damaged(self, what: str, reason: str) -> None:
        self.counters[f"damaged.{what}"] += 1
        now = self._clock.monotonic()
        if now - self._damage_at >= _DAMAGE_EVENT_SECONDS:
            self._damage_at = now
            await self._event("store-damaged", ("what", what), ("reason", reason))

    async def _event(self, name: str, *fields: tuple[str, str]) -> None:
        await self._audit.event(
            SecurityEvent(name=name, at=self._clock.now(), tenant=self._tenant.value, fields=fields)
        )


class SharedStores:
    """The shared stores of all tenants of one worker."""

    def __init__(self, config: StoresConfig, deps: SharedStoreDeps) -> None:
        self._config, self._deps = config, deps
        self._shares: dict[TenantId, TenantShare] = {}
        # Gets the operation and the seconds of each call to S3.
        self.called: OnCall = lambda *_: None

    def of(self, tenant: TenantId, local: BlobStore) -> TenantShare | None:
        """Return the tenant's shared store, built at the first call; None if it shares nothing."""
        section = self._config.of(tenant)
        if section.kind == "disk":
            return None
        share = self._shares.get(tenant)
        if share is None:
            share = self._shares[tenant] = TenantShare(
                tenant, section, local, self._deps, self.called
            )
        return share

    def counters(self) -> dict[str, Counter[str]]:
        """Return the counters of each tenant's shared store, by tenant."""
        return {tenant.value: share.counters for tenant, share in self._shares.items()}

    def open_breakers(self) -> dict[str, bool]:
        """Return for each tenant whether its shared store is not called for a while."""
        return {tenant.value: share.breaker.is_open for tenant, share in self._shares.items()}

    async def close(self, seconds: float) -> None:
        """Close all shared stores at the same time."""
        async with asyncio.TaskGroup() as group:
            for share in self._shares.values():
                group.create_task(share.close(seconds))
