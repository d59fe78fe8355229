"""A shared store that is slow or down costs a miss, never a build and never a wait."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from hpcc.core import EMPTY_DIGEST, Blob, Digest, InfrastructureError, NotFoundError
from hpcc.ports import ActionCache, BlobStore, Clock

# Told when the store is given up ("store-degraded") and when it works again ("store-recovered").
OnTurn = Callable[[str, tuple[tuple[str, str], ...]], Awaitable[None]]
_AWAY: Final = "store-away"
# Slower than this, the local disk and another compile are the better store.
_BYTES_PER_SECOND: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerConfig:
    """When a store is given up and for how long; one call may wait `patience_seconds` for it.

    `patience_seconds` bounds a whole question about many blobs, too.
    """

    failures: int = 3
    open_seconds: float = 10.0
    patience_seconds: float = 15.0


class Breaker:
    """Closed: calls go through. After `failures` in a row: open, nobody asks for `open_seconds`.

    Then one call may try; it decides. Decides without awaiting.
    """

    def __init__(self, config: BreakerConfig, clock: Clock, on_turn: OnTurn) -> None:
        self.config, self._clock, self._on_turn = config, clock, on_turn
        self.counters: Counter[str] = Counter()
        self._failures = 0
        self._opened_at: float | None = None
        self._tries_at = 0.0

    @property
    def is_open(self) -> bool:
        return self._opened_at is not None

    def admits(self) -> bool:
        """Say whether a call may go to the store now; one that may not is counted."""
        now = self._clock.monotonic()
        if self._opened_at is None:
            return True
        if now >= self._tries_at:
            self._tries_at = now + self.config.open_seconds  # the others wait for this one's word
            return True
        self.counters["skipped"] += 1
        return False

    async def succeeded(self) -> None:
        self._failures = 0
        opened_at, self._opened_at = self._opened_at, None
        if opened_at is not None:
            seconds = f"{self._clock.monotonic() - opened_at:.0f}"
            await self._on_turn("store-recovered", (("seconds", seconds),))

    async def failed(self, error: InfrastructureError) -> None:
        self.counters[f"failed.{error.reason}"] += 1
        self._failures += 1
        now = self._clock.monotonic()
        if self._opened_at is not None:
            self._tries_at = now + self.config.open_seconds
        elif self._failures >= self.config.failures or error.reason == "store-denied":
            self._opened_at, self._tries_at = now, now + self.config.open_seconds
            self.counters["opened"] += 1
            await self._on_turn("store-degraded", (("reason", error.reason),))

    async def call[T](self, work: Callable[[], Awaitable[T]], *, size_bytes: int = 0) -> T:
        """Do the work with the store, which may take longer for `size_bytes` to move.

        Raises:
            InfrastructureError: it failed, took too long, or was not tried.
            NotFoundError: the store works and has it not.
        """
        if not self.admits():
            raise InfrastructureError("the shared store is given up for now", reason=_AWAY)
        try:
            seconds = self.config.patience_seconds + size_bytes / _BYTES_PER_SECOND
            async with asyncio.timeout(seconds):
                result = await work()
        except TimeoutError as error:
            late = InfrastructureError("the shared store is too slow", reason="store-timeout")
            await self.failed(late)
            raise late from error
        except NotFoundError:
            await self.succeeded()
            raise
        except InfrastructureError as error:
            # An object that is too large says nothing about the store.
            if error.reason not in {"object-size", "record-size"}:
                await self.failed(error)
            raise
        await self.succeeded()
        return result


class DegradingBlobStore:
    """`BlobStore` that holds nothing while the store behind its breaker does not work."""

    def __init__(self, inner: BlobStore, breaker: Breaker) -> None:
        self._inner, self._breaker = inner, breaker

    async def get(self, digest: Digest) -> Blob:
        try:
            return await self._breaker.call(
                lambda: self._inner.get(digest), size_bytes=digest.size_bytes
            )
        except InfrastructureError as error:
            raise NotFoundError(f"no blob {digest}", reason=error.reason) from error

    async def put(self, blob: Blob) -> None:
        try:
            await self._breaker.call(
                lambda: self._inner.put(blob), size_bytes=blob.digest.size_bytes
            )
        except InfrastructureError as error:
            self._breaker.counters[f"lost-blob.{error.reason}"] += 1

    async def find_missing(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        wanted = frozenset(digests) - {EMPTY_DIGEST}
        try:
            return await self._breaker.call(lambda: self._inner.find_missing(wanted))
        except InfrastructureError:
            return wanted


class DegradingActionCache:
    """`ActionCache` likewise."""

    def __init__(self, inner: ActionCache, breaker: Breaker) -> None:
        self._inner, self._breaker = inner, breaker

    async def get(self, action: Digest) -> bytes:
        try:
            return await self._breaker.call(lambda: self._inner.get(action))
        except InfrastructureError as error:
            raise NotFoundError(f"no result for {action}", reason=error.reason) from error

    async def put(self, action: Digest, record: bytes) -> None:
        try:
            await self._breaker.call(lambda: self._inner.put(action, record))
        except InfrastructureError as error:
            self._breaker.counters[f"lost-result.{error.reason}"] += 1
