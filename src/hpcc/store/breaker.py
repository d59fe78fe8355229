"""Stops calls to a store that is slow or down for a while, so that no caller waits in vain."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from hpcc.core import Blob, Digest, HpccError, InfrastructureError
from hpcc.core.breaker import CircuitBreaker
from hpcc.ports import ActionCache, BlobStore, Clock
from hpcc.store.objects import Objects

# Called with an event's name and fields when calls stop, when the store works again, and when its
# content is damaged.
OnEvent = Callable[..., Awaitable[None]]
_AWAY: Final = "store-away"
# Failures because of one object. They do not mean that the store is down.
_OF_THE_OBJECT: Final = frozenset({"object-size", "record-size"})
# One of these is enough: the next caller would wait as long, or get the same refusal.
_AT_ONCE: Final = frozenset({"store-timeout", "store-denied", "store-config"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerConfig:
    """Calls stop after `failures` in a row, or one timeout or refusal, for `open_seconds`."""

    failures: int = 3
    open_seconds: float = 10.0


class Breaker:
    """Decides which calls pass. After `open_seconds` one caller tries; the others follow it."""

    def __init__(self, config: BreakerConfig, clock: Clock, on_event: OnEvent) -> None:
        self._clock, self._event = clock, on_event
        self.counters: Counter[str] = Counter()
        self._breaker = CircuitBreaker(
            failures=config.failures, open_seconds=config.open_seconds, tries_one=True
        )

    @property
    def is_open(self) -> bool:
        """Whether calls are stopped, or one caller tries whether the store works again."""
        return self._breaker.is_open

    @asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        """Guard one call to the store.

        Raises:
            InfrastructureError: reason `store-away`: calls are stopped now.
        """
        if not self._breaker.admits(self._clock.monotonic()):
            self.counters["skipped"] += 1
            raise InfrastructureError("the shared store is not called for now", reason=_AWAY)
        is_try = self._breaker.is_open
        try:
            yield
        except InfrastructureError as error:
            if error.reason not in _OF_THE_OBJECT:
                await self._failed(error.reason)
            raise
        except HpccError:  # absent or damaged: the store did answer
            await self._succeeded()
            raise
        except asyncio.CancelledError:
            # The one caller that tries is often one of a group whose other calls are refused at
            # once, and they cancel it. Without this a store that is back can stay unused for long.
            if is_try:
                self._breaker.abandoned()
            raise
        else:
            await self._succeeded()

    async def _succeeded(self) -> None:
        seconds = self._breaker.succeeded(self._clock.monotonic())
        if seconds is not None:
            await self._event("store-recovered", ("seconds", f"{seconds:.0f}"))

    async def _failed(self, reason: str) -> None:
        self.counters[f"failed.{reason}"] += 1
        if self._breaker.failed(self._clock.monotonic(), at_once=reason in _AT_ONCE):
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
    """`BlobStore` behind a breaker."""

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
    """`ActionCache` behind a breaker."""

    def __init__(self, inner: ActionCache, breaker: Breaker) -> None:
        self._inner, self._breaker = inner, breaker

    async def get(self, action: Digest) -> bytes:
        async with self._breaker.guard():
            return await self._inner.get(action)

    async def put(self, action: Digest, record: bytes) -> None:
        async with self._breaker.guard():
            await self._inner.put(action, record)
