"""Which worker takes the next compile of a build that uses several."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from hpcc.core import GuestReuse, Isolation
from hpcc.dispatch.finder import OtherCaches
from hpcc.dispatch.lanes import LaneQueue
from hpcc.dispatch.local_slots import Place
from hpcc.dispatch.routes import SHUN_SECONDS, Lane, RouteBook
from hpcc.rpc.scheduler.api import Route, RouteChange
from hpcc_testkit.services.idp_tokens import FixedClock

NOW = 100.0
ROUTE = Route(
    endpoint="h:1", worker_certificate=b"c", token="t", token_expires_at=1e9, generation=1,
    isolation=Isolation.QEMU_TCG, worker_id="w1", principal="ann", guest_reuse=GuestReuse.TENANT,
    minimum_isolation=Isolation.QEMU_TCG, slots=2,
)  # fmt: skip


def route(name: str, **changes: object) -> Route:
    return replace(ROUTE, worker_id=name, endpoint=f"{name}:1", **changes)  # type: ignore[arg-type]  # by name


def book_of(*routes: Route) -> RouteBook:
    book = RouteBook()
    assert book.take(routes, NOW)
    return book


class Build:
    """Compiles that enter the lanes of a book and stay until they leave."""

    def __init__(self, *routes: Route) -> None:
        self.book = book_of(*routes)

    def enter(self, waiting: int = 1, now: float = NOW) -> str:
        lane = self.book.choose(now, waiting)
        if lane is None:
            return ""
        lane.enter(now)
        return lane.route.worker_id

    def lane(self, name: str) -> Lane:
        return next(x for x in self.book.lanes if x.route.worker_id == name)

    def open(self, *names: str) -> None:
        for name in names:
            self.lane(name).opened()


def test_a_second_worker_is_used_only_when_the_first_would_queue() -> None:
    build = Build(route("w1"), route("w2"))
    build.open("w1", "w2")
    assert [build.enter() for _ in range(4)] == ["w1", "w1", "w2", "w2"]


def test_a_place_that_becomes_free_at_the_first_worker_is_used_again() -> None:
    build = Build(route("w1"), route("w2"))
    build.open("w1", "w2")
    assert [build.enter() for _ in range(3)] == ["w1", "w1", "w2"]
    build.book.leave(build.lane("w1"))
    assert build.enter() == "w1"


def test_the_inputs_of_a_worker_are_sent_by_one_compile() -> None:
    """What the worker will take waits for it; the rest opens another worker."""
    build = Build(route("w1"), route("w2"))
    assert build.enter() == "w1"
    assert build.enter(waiting=1) == ""
    assert build.enter(waiting=2) == "w2"
    build.open("w1")
    assert build.enter() == "w1"


def test_a_worker_that_is_slow_to_open_does_not_hold_the_build() -> None:
    build = Build(route("w1"), route("w2"))
    assert build.enter() == "w1"
    assert build.enter(waiting=1, now=NOW + 1.0) == "w2"


def test_the_less_loaded_of_two_is_taken() -> None:
    build = Build(route("w1", slots=1), route("w2", slots=4), route("w3", slots=4))
    build.open("w1", "w2", "w3")
    assert [build.enter() for _ in range(5)] == ["w1", "w2", "w3", "w2", "w3"]


def test_full_workers_get_one_more_each_and_then_the_rest_waits_here() -> None:
    build = Build(route("w1"), route("w2"))
    build.open("w1", "w2")
    for _ in range(4):
        build.enter()
    assert sorted([build.enter(), build.enter()]) == ["w1", "w2"]
    assert build.enter() == ""


def test_a_scheduler_that_grants_nothing_in_numbers_gives_one_worker_without_a_limit() -> None:
    build = Build(route("w1", slots=0))
    assert [build.enter() for _ in range(200)] == ["w1"] * 200
    assert not LaneQueue(FixedClock()).is_short(build.book)


def test_a_worker_that_lets_compiles_wait_gets_fewer_and_recovers() -> None:
    build = Build(route("w1", slots=8))
    build.open("w1")
    lane = build.lane("w1")
    lane.waited(3.0, 1.0)
    assert lane.limit == 8, "the first one waited for a guest to boot"
    for _ in range(4):
        build.enter()
    lane.waited(3.0, 1.0)
    assert lane.limit == 3
    for _ in range(8):
        lane.waited(3.0, 1.0)
    assert lane.limit == 1, "never less"
    lane.waited(0.4, 1.0)
    assert lane.limit == 1, "a little late, as on a busy machine, says nothing"
    for _ in range(20):
        lane.waited(0.0, 1.0)
    assert lane.limit == 8, "never more than granted"


def test_a_worker_that_refused_for_want_of_room_is_the_last_resort() -> None:
    build = Build(route("w1"), route("w2"))
    build.open("w1", "w2")
    build.book.pause(build.lane("w1"), NOW + 5)
    assert build.enter() == "w2"
    build.book.pause(build.lane("w2"), NOW + 5)
    assert build.enter() == "w1"
    assert build.enter(now=NOW + 6) == "w1"


def test_a_second_attempt_goes_to_a_worker_that_has_answered() -> None:
    build = Build(route("w1"), route("w2"), route("w3"))
    assert build.book.proven(NOW) is None
    build.open("w2", "w3")
    build.lane("w2").enter(NOW)
    assert build.book.proven(NOW) is build.lane("w3")
    build.book.pause(build.lane("w3"), NOW + 1)
    assert build.book.proven(NOW) is build.lane("w2")


def test_an_answer_replaces_the_routes_and_keeps_places_and_order() -> None:
    build = Build(route("w1"), route("w2"))
    build.open("w1", "w2")
    build.enter()
    assert build.book.take((route("w3"), route("w2"), route("w1", token="new")), NOW)
    assert [x.route.worker_id for x in build.book.lanes] == ["w1", "w2", "w3"]
    assert (build.lane("w1").in_flight, build.lane("w1").route.token) == (1, "new")
    assert build.lane("w1").is_open


def test_a_new_life_of_a_worker_is_opened_anew() -> None:
    build = Build(route("w1"))
    build.open("w1")
    assert build.book.take((route("w1", generation=2),), NOW)
    assert not build.lane("w1").is_open


def test_a_worker_that_died_and_came_back_keeps_the_count_of_what_is_under_way() -> None:
    build = Build(route("w1"), route("w2"))
    build.open("w1")
    build.enter()
    lane = build.lane("w1")
    build.book.told(RouteChange("w1", 1, is_dead=True))
    assert [x.route.worker_id for x in build.book.lanes] == ["w2"]
    assert build.book.in_flight == 1
    assert build.book.take((route("w1", generation=2),), NOW)
    assert build.lane("w1") is lane
    build.book.leave(lane)
    assert build.book.in_flight == 0


def test_workers_with_compiles_under_way_are_named_also_without_a_route() -> None:
    """Their compiles count against the quota that the next answer splits."""
    build = Build(route("w1"), route("w2"), route("w3"), route("w4"))
    build.open("w1", "w2", "w3", "w4")
    for _ in range(8):
        build.enter()
    build.book.give_up(build.lane("w3").route, NOW, is_workers_fault=True)
    build.book.silent()
    assert build.book.in_use(NOW) == ["w1", "w2", "w4"]
    assert build.book.take((route("w4"),), NOW)
    assert build.book.in_use(NOW) == ["w4", "w1", "w2"]


def test_a_former_worker_is_forgotten_with_its_last_compile() -> None:
    build = Build(route("w1"))
    build.enter()
    lane = build.lane("w1")
    build.book.silent()
    build.book.leave(lane)
    assert build.book._former == {}


def test_dead_and_shunned_routes_of_an_answer_are_not_used() -> None:
    book = book_of(route("w1"), route("w2"), route("w3"))
    book.told(RouteChange("w1", 1, is_dead=True))
    book.give_up(book.lanes[0].route, NOW, is_workers_fault=True)
    assert [x.route.worker_id for x in book.lanes] == ["w3"]
    assert book.take((route("w1"), route("w2"), route("w3")), NOW)
    assert [x.route.worker_id for x in book.lanes] == ["w3"]
    later = NOW + SHUN_SECONDS
    assert book.take((route("w1"), route("w2")), later)
    assert [x.route.worker_id for x in book.lanes] == ["w2"], "death is for good, a shun is not"
    assert not book.take((route("w1"),), later)
    assert [x.route.worker_id for x in book.lanes] == ["w2"], "a bad answer takes nothing away"


async def test_places_are_given_in_the_order_of_arrival() -> None:
    book, queue = book_of(route("w1", slots=1)), LaneQueue(FixedClock())
    book.lanes[0].is_open = True
    places = [queue.join(book) for _ in range(5)]
    assert [p.done() for p in places] == [True, True, False, False, False]
    assert queue.is_short(book)
    assert queue.wanted(book) == 5
    lane = await queue.wait(book, places[0])
    assert lane is not None
    queue.leave(book, lane)
    assert [p.done() for p in places[2:]] == [True, False, False]


async def test_a_compile_that_is_cancelled_gives_its_place_back() -> None:
    book, queue = book_of(route("w1", slots=1)), LaneQueue(FixedClock())
    book.lanes[0].opened()
    first, second, *places = [queue.join(book) for _ in range(5)]
    waits = [asyncio.Task(queue.wait(book, p)) for p in places]
    await asyncio.sleep(0)
    waits[2].cancel()
    queue.leave(book, await _granted(first))
    waits[0].cancel()  # it was given the place, and has not run since
    await asyncio.wait(waits)
    assert [wait.cancelled() for wait in waits] == [True, False, True]
    for lane in (await _granted(second), await _granted(places[1])):
        queue.leave(book, lane)
    assert book.in_flight == 0


async def _granted(place: Place) -> Lane:
    lane = await place
    assert isinstance(lane, Lane)
    return lane


async def test_without_a_route_all_who_wait_ask_for_one() -> None:
    book, queue = book_of(route("w1", slots=1)), LaneQueue(FixedClock())
    places = [queue.join(book) for _ in range(3)]
    book.silent()
    queue.wake(book)
    assert [await p for p in places[1:]] == [None, None]


def test_other_caches_are_asked_while_they_answer_and_then_rarely() -> None:
    others = OtherCaches()
    for _ in range(8):
        assert others.are_due()
        others.note(is_found=False)
    asked = 0
    for _ in range(64):
        if others.are_due():
            asked += 1
            others.note(is_found=False)
    assert asked == 4
    while not others.are_due():
        pass
    others.note(is_found=True)
    assert all(others.are_due() for _ in range(5)), "one hit, and each is asked for again"
