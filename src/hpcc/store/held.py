"""Keeps a store and its credential open only while calls use it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from hpcc.core import InfrastructureError
from hpcc.store.objects import Objects

# The credential's file may contain a new one by now.
_REFUSED = "store-denied"


class Held[T]:
    """An object that is opened at the first call and released `idle_seconds` after the last.

    `open_it` reads the credential. If the store refuses it, the object is released at once, so
    that the next call reads a rotated credential.
    """

    def __init__(self, open_it: Callable[[], Awaitable[T]], *, idle_seconds: float) -> None:
        self._open, self._idle_seconds = open_it, idle_seconds
        self._lock = asyncio.Lock()
        self._inner: T | None = None
        self._calls = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_held(self) -> bool:
        """Return whether the object is open now."""
        return self._inner is not None

    def let_go(self) -> None:
        """Release the object now; running calls end with the one that they use."""
        if self._timer is not None:
            self._timer.cancel()
        self._inner = self._timer = None

    @asynccontextmanager
    async def use(self) -> AsyncIterator[T]:
        """Return the object for one call, and open it if needed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._calls += 1
        try:
            async with self._lock:
                inner = self._inner
                if inner is None:
                    inner = self._inner = await self._open()
            yield inner
        except InfrastructureError as error:
            if error.reason == _REFUSED:
                self.let_go()
            raise
        finally:
            self._calls -= 1
            if not self._calls and self._inner is not None:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(self._idle_seconds, self.let_go)


class HeldObjects:
    """`Objects` that are open only while they are used."""

    def __init__(self, held: Held[Objects]) -> None:
        self._held = held

    async def get(self, key: str, limit: int) -> bytes:
        async with self._held.use() as inner:
            return await inner.get(key, limit)

    async def put(self, key: str, data: bytes) -> None:
        async with self._held.use() as inner:
            await inner.put(key, data)

    async def has(self, key: str) -> bool:
        async with self._held.use() as inner:
            return await inner.has(key)
