"""Blobs and results as objects: the digest is the key, and every received byte is checked."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from hpcc.core import (
    EMPTY_DIGEST,
    Blob,
    Digest,
    InfrastructureError,
    IntegrityError,
    NotFoundError,
)
from hpcc.store.disk_actions import MAX_RECORD_BYTES
from hpcc.store.objects import Objects

_MAGIC: Final = b"hpcc-oa1"
_HEADER_BYTES: Final = len(_MAGIC) + 32

# Called for an object that does not match its key, with "blob" or "result" and the reason.
OnDamage = Callable[[str, str], Awaitable[None]]


async def _ignore(what: str, reason: str) -> None:
    del what, reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectBlobsConfig:
    """Limits of one call.

    Digests after the first `max_probes` are reported as missing: uploading some again costs less
    than thousands of requests.
    """

    max_blob_bytes: int = 256 << 20
    max_probes: int = 2048
    max_parallel: int = 32


class ObjectBlobStore:
    """`BlobStore` over `Objects`. It checks digests; a damaged blob is absent until put again."""

    def __init__(
        self,
        objects: Objects,
        config: ObjectBlobsConfig | None = None,
        *,
        on_damage: OnDamage = _ignore,
    ) -> None:
        self._objects, self._config = objects, config or ObjectBlobsConfig()
        self._on_damage = on_damage

    async def get(self, digest: Digest) -> Blob:
        if digest == EMPTY_DIGEST:
            return Blob.of(b"")
        if digest.size_bytes > self._config.max_blob_bytes:
            raise NotFoundError(f"no blob {digest}")
        try:
            data = await self._objects.get(_key(digest), digest.size_bytes)
            return await asyncio.to_thread(Blob.checked, digest, data)
        except IntegrityError as error:
            await self._on_damage("blob", error.reason)
            raise NotFoundError(f"blob {digest} was damaged", reason="damaged") from error

    async def put(self, blob: Blob) -> None:
        if blob.digest == EMPTY_DIGEST:
            return
        if blob.digest.size_bytes > self._config.max_blob_bytes:
            raise InfrastructureError("the blob is too large for this store", reason="object-size")
        await self._objects.put(_key(blob.digest), blob.data)

    async def find_missing(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        wanted = sorted({d for d in digests if d != EMPTY_DIGEST})
        asked = iter(wanted[: self._config.max_probes])
        missing = set(wanted[self._config.max_probes :])

        async def probe() -> None:
            for digest in asked:  # the tasks share this iterator: each takes the next digest
                if not await self._objects.has(_key(digest)):
                    missing.add(digest)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(len(wanted), self._config.max_parallel)):
                    group.create_task(probe())
        except* InfrastructureError as errors:
            raise _first(errors) from None
        return frozenset(missing)


class ObjectActionCache:
    """`ActionCache` over `Objects`, with keys below `scope`: the results of one trust domain.

    The hash over scope, action and record detects accidents. It does not detect forgery: a party
    that can write the store can compute it (docs/security.md, "writes the shared store").
    """

    def __init__(self, objects: Objects, scope: str, *, on_damage: OnDamage = _ignore) -> None:
        self._objects, self._scope, self._on_damage = objects, scope, on_damage

    async def get(self, action: Digest) -> bytes:
        try:
            data = await self._objects.get(self._key(action), MAX_RECORD_BYTES + _HEADER_BYTES)
        except IntegrityError as error:
            await self._on_damage("result", error.reason)
            raise NotFoundError(f"result for {action} was damaged", reason="damaged") from error
        record = data[_HEADER_BYTES:]
        if data[:_HEADER_BYTES] != self._header(action, record):
            await self._on_damage("result", "digest-mismatch")
            raise NotFoundError(f"result for {action} was damaged", reason="damaged")
        return record

    async def put(self, action: Digest, record: bytes) -> None:
        if len(record) > MAX_RECORD_BYTES:
            raise InfrastructureError("result record is too large to keep", reason="record-size")
        await self._objects.put(self._key(action), self._header(action, record) + record)

    def _key(self, action: Digest) -> str:
        return f"{self._scope}/{action.hash[:2]}/{action.hash}-{action.size_bytes}"

    def _header(self, action: Digest, record: bytes) -> bytes:
        name = f"{self._scope}\0{action}\0".encode()
        return _MAGIC + hashlib.sha256(name + record).digest()


def _key(digest: Digest) -> str:
    # The key includes the size, so a correct hash with a wrong size names another object.
    return f"cas/{digest.hash[:2]}/{digest.hash}-{digest.size_bytes}"


def _first(group: BaseExceptionGroup[InfrastructureError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
