"""Counts the calls to a store."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from hpcc.core import HpccError, NotFoundError
from hpcc.ports import Clock
from hpcc.store.objects import Objects

type OnCall = Callable[[str, float], None]


def _nobody(operation: str, seconds: float) -> None:
    del operation, seconds


class MeteredObjects:
    """Counts calls, bytes, milliseconds and failures: `get.calls`, `get.failed.<reason>`.

    `on_call` gets the operation and the seconds of each call.
    """

    def __init__(
        self, inner: Objects, counters: Counter[str], clock: Clock, on_call: OnCall = _nobody
    ) -> None:
        self._inner, self._counters, self._clock = inner, counters, clock
        self._on_call = on_call

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
            seconds = self._clock.monotonic() - started
            self._counters[f"{call}.ms"] += round(seconds * 1000)
            self._on_call(call, seconds)
