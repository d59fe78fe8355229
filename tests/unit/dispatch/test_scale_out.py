"""How well the choice of lanes fills a farm, by a simulation: the time in it is not the machine's."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from hpcc.core import GuestReuse, Isolation
from hpcc.dispatch.routes import OPENING_SECONDS, Lane, RouteBook
from hpcc.rpc.scheduler.api import Route

ROUTE = Route(
    endpoint="h:1", worker_certificate=b"c", token="t", token_expires_at=1e9, generation=1,
    isolation=Isolation.QEMU_TCG, worker_id="w", principal="ann", guest_reuse=GuestReuse.TENANT,
    minimum_isolation=Isolation.QEMU_TCG,
)  # fmt: skip
# To send the inputs to a new worker, to get the routes, and what a slot is idle between compiles.
OPEN, ROUTES, GAP = 0.3, 0.1, 0.03


class Worker:
    """Runs as many compiles as it has slots; the others wait here in the order of arrival."""

    def __init__(self, farm: Simulation, slots: int) -> None:
        self._farm, self._free = farm, slots
        self._queue: list[tuple[float, Lane]] = []

    def arrive(self, lane: Lane) -> None:
        lane.opened()
        self._queue.append((self._farm.now, lane))
        self._start()
        self._farm.pull()

    def _start(self) -> None:
        while self._free and self._queue:
            arrived, lane = self._queue.pop(0)
            self._free -= 1
            waited, seconds = self._farm.now - arrived, self._farm.next_seconds()
            self._farm.later(
                seconds + GAP, lambda lane=lane, w=waited, s=seconds: self._end(lane, w, s)
            )

    def _end(self, lane: Lane, waited: float, seconds: float) -> None:
        self._free += 1
        self._start()
        lane.waited(waited, seconds)
        self._farm.ended(lane)


class Simulation:
    """A build of units with some jobs; `workers` have `slots` each, and are granted `claimed`."""

    def __init__(
        self, workers: int, slots: int, jobs: int, units: int, *, claimed: int = 0
    ) -> None:
        self.now, self._book, self._events = (
            0.0,
            RouteBook(),
            list[tuple[float, int, Callable[[], None]]](),
        )
        self._numbers, self._random = itertools.count(), random.Random(1)
        self._left, self._waiting = units, 0
        self._under_way = 0
        routes = [
            replace(ROUTE, worker_id=f"w{n}", endpoint=f"w{n}:1", slots=claimed or slots)
            for n in range(workers)
        ]
        self._workers = {route.worker_id: Worker(self, slots) for route in routes}
        self._book.take(routes[:1], 0.0)
        self.later(ROUTES, lambda: self._more(routes))
        self._more_units(jobs)

    def next_seconds(self) -> float:
        return self._random.uniform(0.5, 1.5)

    def later(self, seconds: float, work: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), work))

    def run(self) -> float:
        """Return how long the build takes."""
        while self._left or self._waiting or self._under_way:
            self.now, _, work = heapq.heappop(self._events)
            work()
        return self.now

    def pull(self) -> None:
        """Give places to those who wait, as `LaneQueue.wake` does."""
        while self._waiting:
            lane = self._book.choose(self.now, self._waiting)
            if lane is None:
                if self._book.opens(self.now):
                    self.later(OPENING_SECONDS, self.pull)
                return
            lane.enter(self.now)
            self._waiting, self._under_way = self._waiting - 1, self._under_way + 1
            worker = self._workers[lane.route.worker_id]
            self.later(0.0 if lane.is_open else OPEN, lambda w=worker, lane=lane: w.arrive(lane))

    def ended(self, lane: Lane) -> None:
        self._book.leave(lane)
        self._under_way -= 1
        self._more_units(1)

    def _more(self, routes: list[Route]) -> None:
        self._book.take(routes, self.now)
        self.pull()

    def _more_units(self, count: int) -> None:
        taken = min(count, self._left)
        self._left, self._waiting = self._left - taken, self._waiting + taken
        self.pull()


@pytest.mark.parametrize("workers", [2, 4, 8])
@pytest.mark.parametrize(("slots", "extra"), [(1, 0), (1, 8), (4, 0), (4, 8), (32, 100)])
def test_a_build_on_n_workers_is_nearly_n_times_as_fast(
    workers: int, slots: int, extra: int
) -> None:
    units = 40 * slots * workers
    jobs = workers * slots + extra
    alone = Simulation(1, slots, jobs, units).run()
    assert alone / Simulation(workers, slots, jobs, units).run() >= 0.9 * workers


def test_workers_with_less_room_than_they_say_are_filled_all_the_same() -> None:
    honest = Simulation(4, 2, 64, 600).run()
    assert Simulation(4, 2, 64, 600, claimed=16).run() <= 1.1 * honest
