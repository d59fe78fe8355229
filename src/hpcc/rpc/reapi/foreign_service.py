"""A foreign REAPI service: the channel to it, and blob store and action cache in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import grpc

from hpcc.core import (
    EMPTY_DIGEST,
    Blob,
    CallerError,
    Digest,
    HpccError,
    InfrastructureError,
    IntegrityError,
    NotFoundError,
    PolicyError,
    TenantId,
    check_endpoint,
)
from hpcc.reapi.foreign import encode_entry_result, parse_foreign_result
from hpcc.reapi.resource import check_instance
from hpcc.rpc.base.channel import COMMON_OPTIONS, ClientTls
from hpcc.rpc.base.errors import DeadlineError
from hpcc.rpc.base.method import check_token
from hpcc.rpc.reapi.client import ReapiClient
from hpcc.rpc.reapi.service_calls import ReapiClientConfig

# Hashed into the names of entries, so that no entry has the digest of a real action.
_ENTRY_DOMAIN: Final = b"hpcc-action-cache-1\0"
# A larger entry is a blob beside the result. Every service accepts messages of this size.
MAX_INLINE_ENTRY_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """A foreign REAPI service. `endpoint` is grpcs://HOST[:PORT], or grpc:// on loopback.

    `ca_pem` replaces gRPC's built-in roots. `token` is sent as a bearer, only over TLS or to
    loopback. `client` is the certificate for a service that asks for one.
    """

    endpoint: str
    instance: str = ""
    token: str = field(default="", repr=False)
    ca_pem: bytes = b""
    client: ClientTls | None = None
    call_seconds: float = 30.0
    transfer_seconds: float = 120.0
    execute_seconds: float = 600.0
    tool_version: str = ""

    def __post_init__(self) -> None:
        """Check endpoint, instance and token.

        Raises:
            CallerError: the token would be sent unencrypted or is not one word, or the instance
                would change the meaning of a resource name.
        """
        check_endpoint(self.endpoint, secure="grpcs", plain="grpc")
        check_instance(self.instance)
        check_token(self.token)


@asynccontextmanager
async def connect_service(config: ServiceConfig) -> AsyncIterator[ReapiClient]:
    """Open a client of the service; nothing is sent before its first call."""
    async with open_service_channel(config) as channel:
        yield service_client(channel, config)


def open_service_channel(
    config: ServiceConfig, more: Sequence[tuple[str, int]] = ()
) -> grpc.aio.Channel:
    """Open a channel to the service; the port defaults to 443, or 80 without TLS.

    `more` are gRPC options that override those of all channels.
    """
    parts = urlsplit(config.endpoint)
    is_plain = parts.scheme == "grpc"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    target = f"dns:///{host}:{parts.port or (80 if is_plain else 443)}"
    options = tuple(
        {
            **dict(COMMON_OPTIONS),
            "grpc.enable_http_proxy": 0,
            "grpc.max_reconnect_backoff_ms": 2_000,
            **dict(more),
        }.items()
    )
    if is_plain:
        return grpc.aio.insecure_channel(target, options=options)
    client = config.client
    credentials = grpc.ssl_channel_credentials(
        root_certificates=config.ca_pem or None,
        private_key=client.key_pem if client else None,
        certificate_chain=client.certificate_pem if client else None,
    )
    return grpc.aio.secure_channel(target, credentials, options=options)


def service_client(channel: grpc.aio.Channel, config: ServiceConfig) -> ReapiClient:
    """Return a client over a channel that the caller owns."""
    return ReapiClient(
        channel,
        config.token,
        ReapiClientConfig(
            tenant=TenantId("foreign"),
            instance=config.instance,
            tool_version=config.tool_version,
            call_seconds=config.call_seconds,
            transfer_seconds=config.transfer_seconds,
            execute_seconds=config.execute_seconds,
        ),
    )


class ServiceBlobStore:
    """`BlobStore` in the CAS of a foreign service. Errors have the reasons that breakers count."""

    def __init__(self, client: ReapiClient, *, max_blob_bytes: int = 256 << 20) -> None:
        self._client, self._max_blob_bytes = client, max_blob_bytes

    async def get(self, digest: Digest) -> Blob:
        if digest == EMPTY_DIGEST:
            return Blob.of(b"")
        if digest.size_bytes > self._max_blob_bytes:
            raise NotFoundError(f"no blob {digest}")
        try:
            return (await self._client.download([digest]))[digest]
        except IntegrityError as error:
            raise NotFoundError(f"blob {digest} was damaged", reason="damaged") from error
        except HpccError as error:
            raise store_error(error) from error

    async def put(self, blob: Blob) -> None:
        if blob.digest == EMPTY_DIGEST:
            return
        if blob.digest.size_bytes > self._max_blob_bytes:
            raise InfrastructureError("the blob is too large for this store", reason="object-size")
        try:
            await self._client.upload([blob])
        except HpccError as error:
            raise store_error(error) from error

    async def find_missing(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        wanted = {d for d in digests if d != EMPTY_DIGEST}
        if not wanted:
            return frozenset()
        try:
            return await self._client.find_missing(wanted)
        except HpccError as error:
            raise store_error(error) from error


class ServiceActionCache:
    """`ActionCache` in the action cache of a foreign service, for one trust domain, `scope`.

    An entry is stored under a digest of scope and action. So the service's other clients never
    read it as the result of an action, and hpcc never reads their results as entries.
    """

    def __init__(self, client: ReapiClient, scope: str) -> None:
        self._client, self._scope = client, scope

    async def get(self, action: Digest) -> bytes:
        try:
            result = parse_foreign_result(await self._client.action_result(self._name(action), ()))
            if result.stdout_digest is None:
                return result.stdout
            return (await self._client.download([result.stdout_digest]))[result.stdout_digest].data
        except (IntegrityError, CallerError) as error:
            if isinstance(error, PolicyError):
                raise store_error(error) from error
            raise NotFoundError(f"result for {action} was damaged", reason="damaged") from error
        except HpccError as error:
            raise store_error(error) from error

    async def put(self, action: Digest, record: bytes) -> None:
        try:
            blob = Blob.of(record) if len(record) > MAX_INLINE_ENTRY_BYTES else None
            if blob is not None:
                await self._client.upload([blob])
            result = encode_entry_result(record, blob.digest if blob else None)
            await self._client.update_action_result(self._name(action), result)
        except HpccError as error:
            raise store_error(error) from error

    def _name(self, action: Digest) -> Digest:
        return Digest.of(_ENTRY_DOMAIN + f"{self._scope}\0{action}".encode())


def store_error(error: HpccError) -> HpccError:
    """Return a call's error with a reason that breakers count."""
    match error:
        case NotFoundError():
            return NotFoundError("the service does not have it")
        case PolicyError():
            return InfrastructureError(
                "the service refuses: credential, instance or policy is wrong",
                reason="store-denied",
            )
        case DeadlineError():
            return InfrastructureError("the service is too slow", reason="store-timeout")
        case _:
            return InfrastructureError(f"the service failed ({error.reason})", reason="store-reapi")
