"""Whom the look-up of a result asks, and that a meeting place that lies or is away costs little."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hpcc.core import CallerError, IntegrityError
from hpcc.dispatch.channels import RoutedWorker
from hpcc.dispatch.finder import ResultFinder
from hpcc.dispatch.meeting import Trail
from hpcc.ports import SystemClock
from hpcc.rpc.base.errors import DeadlineError, UnavailableError
from hpcc.rpc.reapi.meeting import Known, Made
from hpcc_testkit.farm.connections import connected

NAMES = ("w1", "w2", "w3", "w4")


class Farm:
    """Four workers, of which w1 is the first and w2 each action's meeting place."""

    def __init__(self, directory: Path, answer: Callable[[str], Any]) -> None:
        connection, route = connected(directory)
        route = replace(route, has_others=True)
        self.workers = {n: connection._channels.worker(replace(route, worker_id=n)) for n in NAMES}
        self.looks, self.everywhere = list[str](), list[str]()
        self.dropped, self.noted = list[str](), list[Made]()
        self._answer = answer
        self.place: str | None = "w2"
        results: Any = SimpleNamespace(look=self._look, cached=self._cached, was_cached=True)
        self.finder = ResultFinder(SystemClock(), results)
        self.connection: Any = SimpleNamespace(
            may_have_others=lambda _: True, reached=self._reached, give_up=lambda *_: None,
            places=self,
        )  # fmt: skip

    async def at(self, _action: object) -> RoutedWorker | None:
        return self.workers[self.place] if self.place else None

    def named(self, names: Any) -> list[RoutedWorker]:
        return [self.workers[n] for n in names if n in self.workers]

    async def others(self, first: RoutedWorker) -> list[RoutedWorker]:
        return [w for w in self.workers.values() if w is not first]

    def drop(self, name: str) -> None:
        self.dropped.append(name)
        self.place = None

    def note(self, _place: RoutedWorker, made: Made) -> None:
        self.noted.append(made)

    @asynccontextmanager
    async def _reached(self, _worker: RoutedWorker) -> AsyncGenerator[None]:
        yield

    async def _look(self, _c: object, worker: RoutedWorker, *_: object, **__: object) -> Any:
        self.looks.append(worker.route.worker_id)
        answer = self._answer(worker.route.worker_id)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _cached(self, _c: object, worker: RoutedWorker, *_: object, **__: object) -> Any:
        self.everywhere.append(worker.route.worker_id)
        answer = self._answer(worker.route.worker_id)
        return None if isinstance(answer, (Known, Exception)) else answer

    async def find(self) -> Any:
        prepared: Any = SimpleNamespace(digest="a")
        request: Any = None
        first = self.workers["w1"]
        return await self.finder.find(self.connection, first, request, prepared, Trail())


RESULT = SimpleNamespace(exit_code=0)


async def test_a_hit_at_the_meeting_place_is_one_question(tmp_path: Path) -> None:
    farm = Farm(tmp_path, lambda _: RESULT)
    assert await farm.find() is RESULT
    assert (farm.looks, farm.everywhere, farm.noted) == (["w2"], [], [])


async def test_a_result_elsewhere_is_one_question_more_and_a_name_without_route_none(
    tmp_path: Path,
) -> None:
    known = Known(("stranger", "w2", "w4"))
    farm = Farm(tmp_path, lambda name: RESULT if name == "w4" else known)
    assert await farm.find() is RESULT
    assert (farm.looks, farm.everywhere) == (["w2", "w4"], [])


async def test_a_meeting_place_that_names_everybody_costs_two_questions(tmp_path: Path) -> None:
    farm = Farm(tmp_path, lambda _: Known(NAMES))
    assert await farm.find() is None
    assert farm.looks == ["w2", "w1", "w3"]
    assert farm.everywhere == ["w4"], "who said no is not asked again"


async def test_a_meeting_place_with_a_forged_result_is_a_miss_there(tmp_path: Path) -> None:
    forged = IntegrityError("not signed", reason="result-signature")
    farm = Farm(tmp_path, lambda name: forged if name == "w2" else RESULT)
    assert await farm.find() is RESULT
    assert farm.looks == ["w2"]
    assert farm.noted == [], "it gets no notes either"


async def test_a_meeting_place_that_is_gone_or_hangs_is_asked_once(tmp_path: Path) -> None:
    for error in (UnavailableError("gone"), DeadlineError("slow")):
        answers = dict.fromkeys(NAMES, Known()) | {"w2": error}
        farm = Farm(tmp_path, answers.__getitem__)
        for _ in range(3):
            assert await farm.find() is None
        assert (farm.looks, farm.dropped) == (["w2"], ["w2"])


async def test_an_older_worker_is_asked_as_before(tmp_path: Path) -> None:
    old = CallerError("no such method")
    farm = Farm(tmp_path, lambda name: old if name == "w2" else Known())
    for _ in range(3):
        assert await farm.find() is None
    assert farm.looks == ["w2"]
    assert farm.everywhere.count("w2") == 3
    assert farm.dropped == []
