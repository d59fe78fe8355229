"""Which workers are asked for a result before it is made again, and how many at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hpcc.dispatch.channels import RoutedWorker
from hpcc.dispatch.compile import Dispatcher
from hpcc.dispatch.meeting import Trail
from hpcc.ports import SystemClock
from hpcc.rpc.base.errors import DeadlineError, UnavailableError
from hpcc_testkit.farm.connections import connected


class Caches:
    """A first worker and three others, without a common store; `answer` says what each knows."""

    def __init__(self, directory: Path, answer: Callable[[str, int], Any]) -> None:
        connection, route = connected(directory)
        route = replace(route, has_others=True)
        self.workers = [
            connection._channels.worker(replace(route, worker_id=f"w{n}")) for n in range(1, 5)
        ]
        self.asked, self.most, self.now = Counter[str](), 0, 0
        self.cancelled, self.given_up = list[str](), list[str]()
        self._answer = answer
        self.dispatcher = Dispatcher(SystemClock(), timeout_seconds=60.0, version="t", build_id="b")
        results: Any = self.dispatcher._results
        results.cached, results.was_cached = self._cached, False
        self.connection: Any = SimpleNamespace(
            may_have_others=lambda _: True, reached=self._reached,
            give_up=lambda route, _: self.given_up.append(route.worker_id),
            places=SimpleNamespace(at=self._nowhere, others=self._others, drop=lambda _: None),
        )  # fmt: skip

    async def _nowhere(self, _action: object) -> None:
        return None

    async def _others(self, _first: RoutedWorker) -> list[RoutedWorker]:
        return self.workers[1:]

    @asynccontextmanager
    async def _reached(self, _worker: RoutedWorker) -> AsyncGenerator[None]:
        yield

    async def _cached(
        self, _c: object, worker: RoutedWorker, _r: object, prepared: Any, **_: object
    ) -> Any:
        name = worker.route.worker_id
        self.asked[name] += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0)
            found = self._answer(name, prepared.digest)
            return await found if asyncio.iscoroutine(found) else found
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        finally:
            self.now -= 1

    async def find(self, count: int) -> list[Any]:
        async def one(number: Any) -> Any:
            prepared: Any = SimpleNamespace(digest=number)
            return await self.dispatcher._finder.find(
                self.connection, self.workers[0], number, prepared, Trail()
            )

        async with asyncio.timeout(10):
            return await asyncio.gather(*(one(n) for n in range(count)))


async def test_a_cold_build_of_many_jobs_asks_for_its_first_few_actions(tmp_path: Path) -> None:
    caches = Caches(tmp_path, lambda *_: None)
    assert await caches.find(64) == [None] * 64
    assert caches.asked == dict.fromkeys(("w1", "w2", "w3", "w4"), 8 + 64 // 16)
    assert caches.most <= 4 * 8


async def test_a_build_that_others_made_finds_everything(tmp_path: Path) -> None:
    caches = Caches(tmp_path, lambda name, n: n + 1 if name == f"w{n % 4 + 1}" else None)
    assert await caches.find(64) == list(range(1, 65))
    assert caches.most <= 4 * 8


async def test_the_first_worker_that_has_a_result_ends_the_questions(tmp_path: Path) -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    caches = Caches(tmp_path, lambda name, n: n + 7 if name == "w3" else never())
    assert await caches.find(1) == [7]
    assert set(caches.cancelled) <= {"w1", "w2", "w4"}
    assert caches.now == 0, "no question is left behind"


async def test_a_worker_that_fails_is_the_same_as_one_that_does_not_know(tmp_path: Path) -> None:
    def answer(name: str, number: int) -> int | None:
        if name == "w2":
            raise UnavailableError("gone")
        if name == "w3":
            raise DeadlineError("slow")
        return number if name == "w4" and number else None

    caches = Caches(tmp_path, answer)
    assert await caches.find(1) == [None]
    assert caches.given_up == ["w2"]
    assert await caches.find(2) == [None, 1]
    assert caches.asked["w3"] == 1, "it is not asked again for a while"
