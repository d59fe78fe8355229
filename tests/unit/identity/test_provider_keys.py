"""A provider that stalls on purpose, and an endless number of callers that wait for it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from hpcc.identity.oidc.http import ProviderError
from hpcc.identity.oidc.keys import KeyCache, KeyCacheLimits


class Clock:
    at = 1000.0

    def monotonic(self) -> float:
        return self.at


class Stalling:
    """A provider that never answers: each request ends after eight seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self.asked, self.is_over = clock, 0, asyncio.Event()
        self.begun = asyncio.Event()

    async def get(self, url: str, *, max_bytes: int, issuer: str = "") -> Any:
        del url, max_bytes, issuer
        self.asked += 1
        self.begun.set()
        await self.is_over.wait()
        self._clock.at += 8.0
        raise ProviderError("takes too long")


async def test_a_provider_that_stalls_on_purpose_leaves_calls_to_other_tenants() -> None:
    clock = Clock()
    http = Stalling(clock)
    limits = KeyCacheLimits(max_waiting=10)
    cache = KeyCache("https://idp.example", cast("Any", http), cast("Any", clock), limits)
    ended, many = list[str](), asyncio.Event()

    async def call(number: int) -> None:
        try:
            await cache.keys(f"invented-{number}")
        except ProviderError as error:
            ended.append(str(error))
            if len(ended) == 190:
                many.set()

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(call(number))
        await many.wait()
        assert set(ended) == {"too many callers wait for the identity provider's keys"}
        http.is_over.set()
    assert len(ended) == 200
    assert http.asked == 1, "those who waited share one answer"


async def test_one_who_hangs_up_does_not_end_the_question_of_those_who_wait_with_him() -> None:
    clock = Clock()
    http = Stalling(clock)
    cache = KeyCache("https://idp.example", cast("Any", http), cast("Any", clock))
    hanging = asyncio.Task(cache.keys("a"))
    await http.begun.wait()
    waiting = asyncio.Task(cache.keys("b"))
    await asyncio.sleep(0)
    hanging.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    http.is_over.set()
    async with asyncio.timeout(10):
        await asyncio.wait([hanging, waiting])
    assert hanging.cancelled()
    assert str(waiting.exception()) == "takes too long"
    assert http.asked == 1
