"""Bytes by key: what a blob store or an action cache in a remote service is built on.

Leaves and decorators of `Objects` know nothing of digests; those above them do. There is no call
that lists: what a service says it holds is never believed, only what it returns for a key.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from hpcc.core import CallerError, InfrastructureError, IntegrityError, NotFoundError

_KEY: Final = re.compile(r"[a-z0-9][a-z0-9._-]*(?:/[a-z0-9][a-z0-9._-]*)*")
_MAX_KEY_CHARS: Final = 512


class Objects(Protocol):
    """A place for bytes by key. Nothing rests on a conditional write: a put replaces."""

    async def get(self, key: str, limit: int) -> bytes:
        """Return what the key holds, of `limit` bytes at most.

        Raises:
            NotFoundError: nothing.
            IntegrityError: it is larger, or not whole; never more than `limit` was kept.
            InfrastructureError: the service does not work.
        """
        ...

    async def put(self, key: str, data: bytes) -> None:
        """Keep the bytes under the key, whole or not at all.

        Raises:
            InfrastructureError: they could not be kept.
        """
        ...

    async def has(self, key: str) -> bool:
        """Say whether the service claims to hold the key.

        Raises:
            InfrastructureError: the service does not work.
        """
        ...


class MemoryObjects:
    """`Objects` in a dict; `limit_bytes` bounds one object."""

    def __init__(self, limit_bytes: int = 1 << 30) -> None:
        self._limit_bytes = limit_bytes
        self.content: dict[str, bytes] = {}

    async def get(self, key: str, limit: int) -> bytes:
        data = self.content.get(key)
        if data is None:
            raise NotFoundError("no such object")
        if len(data) > limit:
            raise too_large(limit)
        return data

    async def put(self, key: str, data: bytes) -> None:
        if len(data) > self._limit_bytes:
            raise InfrastructureError("the object is too large to keep", reason="object-size")
        self.content[key] = data

    async def has(self, key: str) -> bool:
        return key in self.content


class PrefixObjects:
    """Another `Objects` below a prefix: what makes a tenant's keys its own."""

    def __init__(self, inner: Objects, prefix: str) -> None:
        self._inner, self._prefix = inner, checked_key(prefix.removesuffix("/"))

    async def get(self, key: str, limit: int) -> bytes:
        return await self._inner.get(self._key(key), limit)

    async def put(self, key: str, data: bytes) -> None:
        await self._inner.put(self._key(key), data)

    async def has(self, key: str) -> bool:
        return await self._inner.has(self._key(key))

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{checked_key(key)}"


def checked_key(key: str) -> str:
    """Return the key if no service can read it as another one: no `..`, escapes or empty parts.

    Raises:
        CallerError: it could be.
    """
    if len(key) > _MAX_KEY_CHARS or not _KEY.fullmatch(key):
        raise CallerError(f"not a key of an object: {key[:80]!r}", reason="object-key")
    return key


def too_large(limit: int) -> IntegrityError:
    """The error for an object that holds more than it may."""
    return IntegrityError(f"the object has more than {limit} bytes", reason="object-size")
