"""The remote end of a tenant's shared stores: S3 or another REAPI service, opened at first use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import grpc

from hpcc.config.service_file import load_service_file
from hpcc.core import Blob, CallerError, Digest, InfrastructureError, TenantId
from hpcc.ports import ActionCache, BlobStore, Clock
from hpcc.rpc.reapi.foreign_service import (
    ServiceActionCache,
    ServiceBlobStore,
    ServiceConfig,
    open_service_channel,
    service_client,
)
from hpcc.store.breaker import Breaker, GuardedActionCache, GuardedBlobStore, GuardedObjects
from hpcc.store.bucket.object_blobs import ObjectActionCache, ObjectBlobsConfig, ObjectBlobStore
from hpcc.store.bucket.s3 import S3Config, S3Objects
from hpcc.store.bucket.signing import S3Credential
from hpcc.store.held import Held, HeldObjects
from hpcc.store.metered import MeteredObjects, OnCall
from hpcc.store.objects import Objects, PrefixObjects
from hpcc.store.zstd import ZstdObjects
from hpcc.worker.base.stores_config import SharedStore

_MAX_CA_BYTES: Final = 1 << 20
OnDamage = Callable[[str, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ServiceCredential:
    """Content of a tenant's credential file for a REAPI service."""

    token: str


class RemoteStores(Protocol):
    """A tenant's remote blobs and results; every call may raise InfrastructureError."""

    @property
    def blobs(self) -> BlobStore: ...

    def actions(self, scope: str) -> ActionCache:
        """Return the results of one trust domain; `scope` is its path below the tenant's."""
        ...

    def let_go(self) -> None:
        """Drop the credential."""
        ...


class S3RemoteStores:
    """Objects in S3 below the tenant's prefix."""

    def __init__(
        self,
        config: SharedStore,
        tenant: TenantId,
        breaker: Breaker,
        clock: Clock,
        on_damage: OnDamage,
        on_call: OnCall,
    ) -> None:
        self._on_damage = on_damage

        async def opened() -> Objects:
            return await _opened(_open_s3, config, tenant)

        self._held = Held(opened, idle_seconds=config.idle_seconds)
        guarded = GuardedObjects(HeldObjects(self._held), breaker)
        metered = MeteredObjects(guarded, breaker.counters, clock, on_call)
        self._objects = ZstdObjects(metered, level=config.zstd_level)
        limits = ObjectBlobsConfig(max_blob_bytes=config.max_object_bytes)
        self.blobs: BlobStore = ObjectBlobStore(self._objects, limits, on_damage=on_damage)

    def actions(self, scope: str) -> ActionCache:
        return ObjectActionCache(self._objects, scope, on_damage=self._on_damage)

    def let_go(self) -> None:
        self._held.let_go()


class ServiceRemoteStores:
    """CAS and action cache of another REAPI service, in the tenant's instance."""

    def __init__(self, config: SharedStore, tenant: TenantId, breaker: Breaker) -> None:
        self._breaker = breaker

        async def opened() -> _Connection:
            settings = await _opened(_service_config, config, tenant)
            return _Connection(settings)

        self._held = Held(opened, idle_seconds=config.idle_seconds)
        self.blobs: BlobStore = GuardedBlobStore(
            _ServiceBlobs(self._held, config.max_object_bytes), breaker
        )

    def actions(self, scope: str) -> ActionCache:
        return GuardedActionCache(_ServiceActions(self._held, scope), self._breaker)

    def let_go(self) -> None:
        self._held.let_go()


class _Connection:
    """A channel that closes with its last user."""

    def __init__(self, config: ServiceConfig) -> None:
        self._channel: grpc.aio.Channel = open_service_channel(config)
        self.client = service_client(self._channel, config)


class _ServiceBlobs:
    def __init__(self, held: Held[_Connection], max_blob_bytes: int) -> None:
        self._held, self._max_blob_bytes = held, max_blob_bytes

    async def get(self, digest: Digest) -> Blob:
        async with self._held.use() as service:
            return await self._store(service).get(digest)

    async def put(self, blob: Blob) -> None:
        async with self._held.use() as service:
            await self._store(service).put(blob)

    async def find_missing(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        async with self._held.use() as service:
            return await self._store(service).find_missing(digests)

    def _store(self, service: _Connection) -> ServiceBlobStore:
        return ServiceBlobStore(service.client, max_blob_bytes=self._max_blob_bytes)


class _ServiceActions:
    def __init__(self, held: Held[_Connection], scope: str) -> None:
        self._held, self._scope = held, scope

    async def get(self, action: Digest) -> bytes:
        async with self._held.use() as service:
            return await ServiceActionCache(service.client, self._scope).get(action)

    async def put(self, action: Digest, record: bytes) -> None:
        async with self._held.use() as service:
            await ServiceActionCache(service.client, self._scope).put(action, record)


async def _opened[T](
    build: Callable[[SharedStore, TenantId], T], config: SharedStore, tenant: TenantId
) -> T:
    """Read the credential and build the client that uses it.

    Raises:
        InfrastructureError: the credential's file, or the CA's, is invalid or unreadable.
    """
    try:
        return await asyncio.to_thread(build, config, tenant)
    except (CallerError, OSError) as error:
        raise InfrastructureError(
            f"the shared store of {tenant} cannot be opened: {error}", reason="store-config"
        ) from error


def _open_s3(config: SharedStore, tenant: TenantId) -> Objects:
    credential = load_service_file(Path(config.credentials), S3Credential)
    s3 = S3Config(
        endpoint=config.endpoint,
        bucket=config.bucket,
        region=config.region,
        access_key_id=credential.access_key_id,
        secret_access_key=credential.secret_access_key,
        session_token=credential.session_token,
        ca_pem=_ca_pem(config),
        call_seconds=config.call_seconds,
        # As an object, a blob has one byte more.
        max_object_bytes=config.max_object_bytes + 1,
    )
    prefix = "/".join(part for part in (config.prefix, tenant.value) if part)
    return PrefixObjects(S3Objects(s3), prefix)


def _service_config(config: SharedStore, tenant: TenantId) -> ServiceConfig:
    del tenant  # the instance's name contains it
    token = ""
    if config.credentials:
        token = load_service_file(Path(config.credentials), ServiceCredential).token
    return ServiceConfig(
        endpoint=config.endpoint,
        instance=config.instance,
        token=token,
        ca_pem=_ca_pem(config),
        call_seconds=config.call_seconds,
        transfer_seconds=config.call_seconds + config.max_object_bytes / (1 << 20),
    )


def _ca_pem(config: SharedStore) -> bytes:
    if not config.ca_file:
        return b""
    with Path(config.ca_file).open("rb") as file:
        return file.read(_MAX_CA_BYTES)
