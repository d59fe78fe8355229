"""Objects in an S3-compatible service, through obstore."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from hpcc.core import CallerError, InfrastructureError, NotFoundError, check_endpoint
from hpcc.obs.faults import fault_in
from hpcc.store.objects import checked_key, too_large

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import S3Credential, S3Store

# A body is read in pieces of this size, so that an endless one is noticed.
_CHUNK_BYTES: Final = 256 << 10
# The slowest useful link. If the service is slower, the local disk is the better store.
_BYTES_PER_SECOND: Final = 1 << 20
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGION: Final = re.compile(r"[a-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Config:
    """One bucket and one identity. `endpoint` is https://host[:port]; http only on loopback.

    `ca_pem` holds roots that are trusted in addition to the system's. A call may take
    `call_seconds` and one second more for each MiB. `max_object_bytes` limits the size of a put.
    """

    endpoint: str
    bucket: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)
    region: str = "us-east-1"
    ca_pem: bytes = b""
    call_seconds: float = 5.0
    max_object_bytes: int = 256 << 20
    # Bounds the sockets, and with the size of an object the memory.
    max_calls: int = 32

    def __post_init__(self) -> None:
        """Check the names and that no credential or object is sent unencrypted.

        Raises:
            CallerError: a field is malformed or missing, or the endpoint is plain http elsewhere
                than on loopback.
        """
        check_endpoint(self.endpoint, secure="https", plain="http")
        if not _BUCKET.fullmatch(self.bucket) or not _REGION.fullmatch(self.region):
            raise CallerError("not the name of a bucket and its region", reason="config")
        if not self.access_key_id or not self.secret_access_key:
            raise CallerError("a credential for S3 needs both its parts", reason="config")


class S3Objects:
    """`Objects` in one bucket. Every call has a time limit; bodies are bounded while received.

    A refused credential or permission is an `InfrastructureError` with reason `store-denied`.
    Error texts never contain text from the service.
    """

    def __init__(self, config: S3Config) -> None:
        self._config = config
        self._store = _open(config)
        self._slots = asyncio.Semaphore(config.max_calls)

    async def get(self, key: str, limit: int) -> bytes:
        import obstore

        async with self._call("read", limit):
            return await _body(await obstore.get_async(self._store, checked_key(key)), limit)

    async def put(self, key: str, data: bytes) -> None:
        import obstore

        if len(data) > self._config.max_object_bytes:
            raise InfrastructureError("the object is too large to keep", reason="object-size")
        async with self._call("write", len(data)):
            # One request: a worker that dies would leave the parts of a multipart upload behind.
            await obstore.put_async(self._store, checked_key(key), data, use_multipart=False)

    async def has(self, key: str) -> bool:
        import obstore

        try:
            async with self._call("ask", 0):
                await obstore.head_async(self._store, checked_key(key))
        except NotFoundError:
            return False
        return True

    @asynccontextmanager
    async def _call(self, what: str, size_bytes: int) -> AsyncIterator[None]:
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        seconds = _seconds(self._config, size_bytes)
        try:
            async with asyncio.timeout(seconds), self._slots:
                yield
        except TimeoutError as error:
            raise InfrastructureError(
                f"the store did not {what} within {seconds:.0f} s", reason="store-timeout"
            ) from error
        except FileNotFoundError as error:
            raise NotFoundError("no such object") from error
        except (PermissionDeniedError, UnauthenticatedError):
            # `from None`: the service's text may quote the request.
            raise InfrastructureError(
                f"the store refuses to {what}: its credential or policy is wrong",
                reason="store-denied",
            ) from None
        except (BaseError, OSError, ValueError) as error:
            is_late = "TimedOut" in str(error) or "timed out" in str(error)
            why = fault_in(str(error)) or type(error).__name__
            raise InfrastructureError(
                f"the store failed to {what}: {why}",
                reason="store-timeout" if is_late else "store-s3",
            ) from None


async def _body(result: GetResult, limit: int) -> bytes:
    try:
        announced = result.meta["size"]
        if announced > limit:
            raise too_large(limit)
        data = bytearray()
        async for piece in result.stream(min_chunk_size=_CHUNK_BYTES):
            data += piece
            if len(data) > limit:
                raise too_large(limit)
    finally:
        # The traceback of a refusal refers to this frame, and so would keep a half-read
        # connection open.
        del result
    if len(data) != announced:
        raise InfrastructureError("the store ended an object early", reason="store-s3")
    return bytes(data)


def _seconds(config: S3Config, size_bytes: int) -> float:
    size = min(size_bytes, config.max_object_bytes)
    return config.call_seconds + size / _BYTES_PER_SECOND


def _open(config: S3Config) -> S3Store:
    from obstore.exceptions import BaseError  # imported late: it costs 0.1 s and 10 MiB
    from obstore.store import S3Store

    credential: S3Credential = {
        "access_key_id": config.access_key_id,
        "secret_access_key": config.secret_access_key,
        "token": config.session_token or None,
        "expires_at": None,
    }
    whole = timedelta(seconds=_seconds(config, config.max_object_bytes))
    try:
        return S3Store(
            config.bucket,
            endpoint=config.endpoint,
            region=config.region,
            virtual_hosted_style_request=False,
            # Only this credential is used: no profile, instance role or environment variable.
            credential_provider=lambda: credential,
            client_options={
                "allow_http": config.endpoint.startswith("http:"),
                "connect_timeout": timedelta(seconds=config.call_seconds),
                "read_timeout": timedelta(seconds=config.call_seconds),
                "timeout": whole,
                **({"root_certificate": config.ca_pem} if config.ca_pem else {}),
            },
            # A caller that waits has a better choice than a retry: its local disk.
            retry_config={"max_retries": 0, "retry_timeout": whole},
        )
    except (BaseError, ValueError, TypeError) as error:  # their texts may quote the configuration
        raise CallerError(
            f"the S3 store cannot be opened ({type(error).__name__}): "
            "check endpoint, bucket and CA",
            reason="config",
        ) from None
