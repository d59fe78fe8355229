"""A store that is slow or down is given up for a while, so that nobody waits for it in vain."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from hpcc.core import Blob, Digest, HpccError, InfrastructureError
from hpcc.ports import ActionCache, BlobStore, Clock
from hpcc.store.objects import Objects

# Told by name when the store is given up, works again, or is not what it should be.
OnEvent = Callable[..., Awaitable[None]]
_AWAY: Final = "store-away"
# Of one object, nothing about the store.
_OF_THE_OBJECT: Final = frozenset({"object-size", "record-size"})
# Another try would cost everyone the same wait, or the same refusal.
_AT_ONCE: Final = frozenset({"store-timeout", "store-denied", "store-config"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerConfig:
    """Given up after so many failures in a row, or one timeout or refusal; tried again later."""

    failures: int = 3
    open_seconds: float = 10.0


class Breaker:
    """Decides who may ask; after `open_seconds` one caller tries, and the others go by its word."""

    def __init__(self, config: BreakerConfig, clock: Clock, on_event: OnEvent) -> None:
        self._config, self._clock, self._event = config, clock, on_event
        self.counters: Counter[str] = Counter()
        self._failures = 0
        self._opened_at: float | None = None
        self._tries_at = 0.0

    @property
    def is_open(self) -> bool:
        return self._opened_at is not None

    @asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        """Guard one call to the store.

        Raises:
            InfrastructureError: reason `store-away`: it is given up for now.
        """
        self._admit()
        try:
            yield
        except InfrastructureError as error:
            if error.reason not in _OF_THE_OBJECT:
                await self._failed(error.reason)
            raise
        except HpccError:  # absent, or damaged: it answered
            await self._succeeded()
            raise
        else:
            await self._succeeded()

    def _admit(self) -> None:
        now = self._clock.monotonic()
        if self._opened_at is None:
            return
        if now < self._tries_at:
            self.counters["skipped"] += 1
            raise InfrastructureError("the shared store is given up for now", reason=_AWAY)
        self._tries_at = now + self._config.open_seconds

    async def _succeeded(self) -> None:
        self._failures = 0
        opened_at, self._opened_at = self._opened_at, None
        if opened_at is not None:
            seconds = f"{self._clock.monotonic() - opened_at:.0f}"
            await self._event("store-recovered", ("seconds", seconds))

    async def _failed(self, reason: str) -> None:
        self.counters[f"failed.{reason}"] += 1
        self._failures += 1
        now = self._clock.monotonic()
        self._tries_at = now + self._config.open_seconds
        is_enough = self._failures >= self._config.failures or reason in _AT_ONCE
        if self._opened_at is None and is_enough:
            self._opened_at = now
            self.counters["opened"] += 1
            await self._event("store-degraded", ("reason", reason))


class GuardedObjects:
    """`Objects` behind a breaker."""

    def __init__(self, inner: Objects, breaker: Breaker) -> None:
        self._inner, self._breaker = inner, breaker

    async def get(self, key: str, limit: int) -> bytes:
        async with self._breaker.guard():
            return await self._inner.get(key, limit)

    async def put(self, key: str, data: bytes) -> None:
        async with self._breaker.guard():
            await self._inner.put(key, data)

    async def has(self, key: str) -> bool:
        async with self._breaker.guard():
            return await self._inner.has(key)


class GuardedBlobStore:
    """A leaf of blobs behind a breaker."""

    def __init__(self, inner: BlobStore, breaker: Breaker) -> None:
        self._inner, self._breaker = inner, breaker

    async def get(self, digest: Digest) -> Blob:
        async with self._breaker.guard():
            return await self._inner.get(digest)

    async def put(self, blob: Blob) -> None:
        async with self._breaker.guard():
            await self._inner.put(blob)

    async def find_missing(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        async with self._breaker.guard():
            return await self._inner.find_missing(digests)


class GuardedActionCache:
    """A leaf of results behind a breaker."""

    def __init__(self, inner: ActionCache, breaker: Breaker) -> None:
        self._inner, self._breaker = inner, breaker

    async def get(self, action: Digest) -> bytes:
        async with self._breaker.guard():
            return await self._inner.get(action)

    async def put(self, action: Digest, record: bytes) -> None:
        async with self._breaker.guard():
            await self._inner.put(action, record)
