"""Counts the calls to a store."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hpcc.core import HpccError, NotFoundError
from hpcc.ports import Clock
from hpcc.store.objects import Objects


class MeteredObjects:
    """Counts calls, bytes, milliseconds and failures: `get.calls`, `get.failed.<reason>`."""

    def __init__(self, inner: Objects, counters: Counter[str], clock: Clock) -> None:
        self._inner, self._counters, self._clock = inner, counters, clock

    async def get(self, key: str, limit: int) -> bytes:
        async with self._counted("get"):
            data = await self._inner.get(key, limit)
        self._counters["get.bytes"] += len(data)
        return data

    async def put(self, key: str, data: bytes) -> None:
        async with self._counted("put"):
            await self._inner.put(key, data)
        self._counters["put.bytes"] += len(data)

    async def has(self, key: str) -> bool:
        async with self._counted("has"):
            return await self._inner.has(key)

    @asynccontextmanager
    async def _counted(self, call: str) -> AsyncIterator[None]:
        started = self._clock.monotonic()
        self._counters[f"{call}.calls"] += 1
        try:
            yield
        except NotFoundError:
            self._counters[f"{call}.absent"] += 1
            raise
        except HpccError as error:
            self._counters[f"{call}.failed.{error.reason}"] += 1
            raise
        finally:
            self._counters[f"{call}.ms"] += round((self._clock.monotonic() - started) * 1000)
