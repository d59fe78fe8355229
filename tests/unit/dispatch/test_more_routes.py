"""When a dispatcher asks for more routes."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpcc.core import HpccError, RemoteFailure
from hpcc.dispatch import lanes
from hpcc.dispatch.compile import Dispatcher
from hpcc.dispatch.lanes import LaneQueue, MoreRoutes
from hpcc.rpc.base.errors import BusyError, UnavailableError
from hpcc.rpc.scheduler.api import Route
from hpcc_testkit.farm.connections import connected
from hpcc_testkit.services.idp_tokens import FixedClock


class Asked:
    """Stands for a build that is short of routes, and for what the scheduler answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lanes, "_GATHER_SECONDS", 0.0)
        monkeypatch.setattr(lanes.random, "uniform", lambda _, most: most)
        self.clock, self.at = FixedClock(0.0), list[float]()
        self.is_short = True
        self.is_more = False
        self.during: Callable[[], None] | None = None
        self.more = MoreRoutes(self.clock, is_short=lambda: self.is_short, ask=self._ask)

    async def _ask(self) -> bool:
        self.at.append(self.clock.time)
        if self.during is not None:
            self.during()
        return self.is_more

    async def run(self, seconds: float) -> None:
        """Let the time pass in steps of an eighth of a second."""
        for _ in range(int(seconds * 8)):
            self.more._is_news.set()  # ends the pause: the task looks at the clock again
            for _ in range(4):
                await asyncio.sleep(0)
            self.clock.time += 0.125


async def test_a_full_farm_is_asked_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)
    asked.more.want()
    await asked.run(34)
    assert asked.at == [0, 1, 3, 7, 15, 23, 31]
    await asked.more.close()


async def test_an_answer_with_more_places_brings_the_next_request_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = Asked(monkeypatch)
    asked.is_more = True
    asked.more.want()
    await asked.run(3.5)
    assert asked.at == [0, 1, 2, 3]
    asked.is_short = False
    await asked.run(3)
    assert len(asked.at) == 4, "nothing is asked for a build that has enough"


async def test_news_of_a_worker_bring_a_request_within_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = Asked(monkeypatch)
    asked.more.want()
    await asked.run(8)
    assert asked.at[-1] == 7
    asked.more.news()
    await asked.run(1)
    assert asked.at[-1] == 8.5


async def test_news_that_come_during_a_request_are_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The answer may be older than the worker that is announced."""
    asked = Asked(monkeypatch)
    asked.more.want()
    await asked.run(8)
    asked.during = asked.more.news
    asked.more.news()
    await asked.run(1)
    asked.during = None
    await asked.run(1)
    assert asked.at[-2:] == [8.5, 9.5]


async def test_a_worker_that_flaps_neither_hurries_nor_delays_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = Asked(monkeypatch)
    asked.more.want()
    for _ in range(40):
        asked.more.news()
        await asked.run(0.25)
    pauses = [b - a for a, b in zip(asked.at, asked.at[1:], strict=False)]
    assert pauses == [1.0] * 9


async def test_a_request_that_breaks_does_not_end_all_later_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = Asked(monkeypatch)

    def fail() -> None:
        raise RuntimeError

    asked.during = fail
    asked.more.want()
    await asked.run(0.5)
    assert asked.more._task is not None
    with pytest.raises(RuntimeError):
        await asked.more._task
    asked.during = None
    asked.more.want()
    await asked.run(1.5)
    assert asked.at == [0, 1]
    await asked.more.close()


async def test_one_wait_for_a_scheduler_is_enough_for_all_compiles(tmp_path: Path) -> None:
    connection, _ = connected(tmp_path)
    asked = list[int]()

    async def answer(failed_generation: int, _wanted: int) -> Any:
        asked.append(failed_generation)
        await asyncio.sleep(0.01)
        raise UnavailableError("no scheduler answers")

    connection._answer = answer  # type: ignore[method-assign]  # no scheduler runs

    async def compile() -> str:
        try:
            async with connection.lease():
                return ""
        except HpccError as error:
            return str(error)

    said = await asyncio.gather(*(compile() for _ in range(20)))
    assert said == ["no scheduler answers"] * 20
    assert len(asked) == 1
    assert await compile() == "no scheduler answers"
    assert len(asked) == 2, "a later compile asks again"
    await connection.close()


async def test_the_first_request_for_more_routes_counts_all_compiles_of_a_build(
    tmp_path: Path,
) -> None:
    connection, route = connected(tmp_path)
    route = dataclasses.replace(route, token_expires_at=2.0**40, slots=1)
    asked = list[int]()

    async def answer(_failed_generation: int, _wanted: int) -> Route:
        asked.append(connection._queue.wanted(connection._book))
        return route

    connection._answer = answer  # type: ignore[method-assign]  # no scheduler runs

    async def compile() -> None:
        async with connection.lease():
            await asyncio.Event().wait()

    compiles = [asyncio.Task(compile()) for _ in range(40)]
    await asyncio.sleep(0.5)
    for task in compiles:
        task.cancel()
    await asyncio.wait(compiles)
    assert asked == [0, 40]
    assert connection._queue.wanted(connection._book) == 0
    await connection.close()


async def test_the_farm_is_full_only_if_every_worker_has_refused(tmp_path: Path) -> None:
    connection, route = connected(tmp_path)
    busy = BusyError("no room", retry_after_seconds=60.0)
    named = [dataclasses.replace(route, worker_id=f"w{n}", slots=1) for n in range(3)]
    assert connection._book.take(named, connection._clock.monotonic())
    for one in named:
        assert not connection.is_full
        connection.give_up(one, busy)
    assert connection.is_full
    assert connection._book.take(named[:1], connection._clock.monotonic())
    assert connection.is_full, "another worker is not there"
    await connection.close()


async def test_a_compile_that_leaves_the_queue_is_not_counted(tmp_path: Path) -> None:
    connection, route = connected(tmp_path)
    book, queue = connection._book, LaneQueue(FixedClock())
    assert book.take([dataclasses.replace(route, slots=1)], connection._clock.monotonic())
    places = [queue.join(book) for _ in range(4)]
    wait = asyncio.Task(queue.wait(book, places[2]))
    await asyncio.sleep(0)
    wait.cancel()
    await asyncio.wait([wait])
    assert queue.wanted(book) == 3
    await connection.close()


async def test_one_worker_without_room_does_not_close_the_way_to_the_farm() -> None:
    dispatcher = Dispatcher(FixedClock(), timeout_seconds=60.0, version="t", build_id="b")
    tried = list[int]()

    async def prepared(*_: object) -> None:
        return

    async def routed(*_: object) -> Any:
        tried.append(1)
        raise BusyError("no room", retry_after_seconds=60.0)

    parts: Any = dispatcher
    parts._prepared, parts._routed = prepared, routed
    connection: Any = SimpleNamespace(image=None, is_full=False)
    request: Any = None
    for _ in range(2):
        outcome = await dispatcher.compile(connection, request)
        assert isinstance(outcome, RemoteFailure)
        assert outcome.reason == "busy"
    assert len(tried) == 2
    connection.is_full = True
    for _ in range(3):
        await dispatcher.compile(connection, request)
    assert len(tried) == 3, "the way is closed when no worker has room"
    dispatcher.close()
