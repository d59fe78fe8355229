"""Bytes by key: the interface under blob stores and action caches in remote services.

Implementations of `Objects` do not use digests; the stores above them do. There is no call that
lists keys: a service's claim about its content is not trusted, only the bytes that it returns.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from hpcc.core import CallerError, InfrastructureError, IntegrityError, NotFoundError

_KEY: Final = re.compile(r"[a-z0-9][a-z0-9._-]*(?:/[a-z0-9][a-z0-9._-]*)*")
_MAX_KEY_CHARS: Final = 512


class Objects(Protocol):
    """Stores bytes by key. No caller relies on conditional writes: a `put` replaces."""

    async def get(self, key: str, limit: int) -> bytes:
        """Return the bytes under a key, at most `limit`.

        Raises:
            NotFoundError: the key is absent.
            IntegrityError: the object is larger than `limit`, or incomplete. At most `limit` bytes
                were held in memory.
            InfrastructureError: the service does not work.
        """
        ...

    async def put(self, key: str, data: bytes) -> None:
        """Store the bytes under a key, whole or not at all.

        Raises:
            InfrastructureError: the bytes could not be stored.
        """
        ...

    async def has(self, key: str) -> bool:
        """Return whether the service claims to have the key.

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
    """The keys of another `Objects` below a prefix. It separates tenants."""

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
    """Return the key if every service reads it as the same one: no `..`, escapes or empty parts.

    Raises:
        CallerError: the key has another form, or over 512 characters.
    """
    if len(key) > _MAX_KEY_CHARS or not _KEY.fullmatch(key):
        raise CallerError(f"not a key of an object: {key[:80]!r}", reason="object-key")
    return key


def too_large(limit: int) -> IntegrityError:
    """Return the error for an object over its size limit."""
    return IntegrityError(f"the object has more than {limit} bytes", reason="object-size")
