"""The stack of stores behind a tenant's own disk, as its section of the config says.

From the disk outwards: patience that turns trouble into a miss; write-behind for puts; what is
known to be there; blobs checked by digest; zstd; counters; the breaker; a credential held while it
is used; the tenant's prefix; S3.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.config import load_service_file
from hpcc.core import CallerError, Digest, InfrastructureError, TenantId
from hpcc.ports import ActionCache, AuditLog, BlobStore, Clock, SecurityEvent
from hpcc.store import (
    Breaker,
    BreakerConfig,
    DegradingActionCache,
    DegradingBlobStore,
    GuardedObjects,
    HeldObjects,
    KnownBlobStore,
    MeteredObjects,
    ObjectActionCache,
    ObjectBlobsConfig,
    ObjectBlobStore,
    Objects,
    PrefixObjects,
    Publisher,
    PublishingActionCache,
    ReadCachingActionCache,
    ReadCachingBlobStore,
    S3Config,
    S3Objects,
    WriteBehindBlobStore,
    WriteBehindConfig,
    ZstdObjects,
)
from hpcc.worker._stores_config import SharedStore, StoresConfig

_MAX_CA_BYTES: Final = 1 << 20
# An operator is told of damage, not of each object that somebody damaged.
_DAMAGE_EVENT_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class S3Credential:
    """Content of a tenant's credential file for S3."""

    access_key_id: str
    secret_access_key: str
    session_token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareDesk:
    """What every share works with; `refers_to` reads the digests out of an action cache entry."""

    audit: AuditLog
    clock: Clock
    group: asyncio.TaskGroup
    refers_to: Callable[[bytes], Iterable[Digest]]


class TenantShare:
    """What one tenant shares; its two tasks end with the group, or with `close`."""

    def __init__(
        self,
        tenant: TenantId,
        config: SharedStore,
        local: BlobStore,
        desk: ShareDesk,
    ) -> None:
        audit, clock, group = desk.audit, desk.clock, desk.group
        self._tenant, self._config, self._local = tenant, config, local
        self._audit, self._clock = audit, clock
        self.counters: Counter[str] = Counter()
        self._damage_at = float("-inf")
        breaker = Breaker(
            BreakerConfig(failures=config.breaker_failures, open_seconds=config.breaker_seconds),
            clock,
            self._event,
        )
        self._held = HeldObjects(self._open, idle_seconds=config.idle_seconds)
        guarded = GuardedObjects(self._held, breaker)
        self._objects = ZstdObjects(
            MeteredObjects(guarded, self.counters, clock), level=config.zstd_level
        )
        limits = ObjectBlobsConfig(max_blob_bytes=config.max_object_bytes)
        blobs = KnownBlobStore(
            ObjectBlobStore(self._objects, limits, on_damage=self._damaged),
            clock,
            seconds=config.known_seconds,
        )
        behind = WriteBehindConfig(max_pending_bytes=config.max_pending_bytes)
        self._writer = WriteBehindBlobStore(blobs, self.counters, behind)
        self._publisher = Publisher(self._writer, local, self.counters, desk.refers_to, behind)
        self._breaker = breaker
        self._tasks = [
            group.create_task(self._writer.run(), name=f"store-writer-{tenant}"),
            group.create_task(self._publisher.run(), name=f"store-publisher-{tenant}"),
        ]

    @property
    def holds_credential(self) -> bool:
        return self._held.is_held

    def blobs(self) -> BlobStore:
        patience = self._config.patience_seconds
        shared = DegradingBlobStore(self._writer, self.counters, patience_seconds=patience)
        return ReadCachingBlobStore(self._local, shared)

    def actions(self, scope: str, local: ActionCache) -> ActionCache:
        """Return the results of one trust domain: `scope` is its place below the tenant's."""
        results = ObjectActionCache(self._objects, scope, on_damage=self._damaged)
        published = PublishingActionCache(results, self._publisher)
        patience = self._config.patience_seconds
        shared = DegradingActionCache(published, self.counters, patience_seconds=patience)
        return ReadCachingActionCache(local, shared)

    async def close(self, seconds: float) -> None:
        """Publish what waits, for so long at most; then end, and forget the credential."""
        try:
            async with asyncio.timeout(seconds):
                await self._publisher.wait_idle()
        except TimeoutError:
            self.counters["lost-result.closed"] += 1
        finally:
            for task in self._tasks:
                task.cancel()
            self._held.let_go()

    async def _open(self) -> Objects:
        """Read the credential.

        Raises:
            InfrastructureError: its file, or the CA's, is no good.
        """
        try:
            return await asyncio.to_thread(_open_s3, self._config, self._tenant)
        except (CallerError, OSError) as error:
            raise InfrastructureError(
                f"the shared store of {self._tenant} cannot be opened: {error}",
                reason="store-config",
            ) from error

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


def _open_s3(config: SharedStore, tenant: TenantId) -> Objects:
    credential = load_service_file(Path(config.credentials), S3Credential)
    ca_pem = b""
    if config.ca_file:
        with Path(config.ca_file).open("rb") as file:
            ca_pem = file.read(_MAX_CA_BYTES)
    s3 = S3Config(
        endpoint=config.endpoint,
        bucket=config.bucket,
        region=config.region,
        access_key_id=credential.access_key_id,
        secret_access_key=credential.secret_access_key,
        session_token=credential.session_token,
        ca_pem=ca_pem,
        call_seconds=config.call_seconds,
        # A blob has a byte more as an object.
        max_object_bytes=config.max_object_bytes + 1,
    )
    prefix = "/".join(part for part in (config.prefix.strip("/"), tenant.value) if part)
    return PrefixObjects(S3Objects(s3), prefix)


class SharedStores:
    """The shares of all tenants of one worker."""

    def __init__(self, config: StoresConfig, desk: ShareDesk) -> None:
        self._config, self._desk = config, desk
        self._shares: dict[TenantId, TenantShare] = {}

    def of(self, tenant: TenantId, local: BlobStore) -> TenantShare | None:
        """Return the tenant's share, made at the first call; None where it shares nothing."""
        section = self._config.of(tenant)
        if section.kind == "disk":
            return None
        share = self._shares.get(tenant)
        if share is None:
            share = self._shares[tenant] = TenantShare(tenant, section, local, self._desk)
        return share

    def counters(self) -> dict[str, Counter[str]]:
        """Return what each tenant's store did so far, by tenant."""
        return {tenant.value: share.counters for tenant, share in self._shares.items()}

    async def close(self, seconds: float) -> None:
        """End all shares at once."""
        async with asyncio.TaskGroup() as group:
            for share in self._shares.values():
                group.create_task(share.close(seconds))
