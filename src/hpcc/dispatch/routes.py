"""Which workers a dispatcher may use, and which of them takes the next compile. No I/O.

A build uses several workers at the same time. Each has a `Lane`: its route, how many compiles are
under way there, and how many it takes. The rules of `RouteBook.choose`:

- A second worker is used only if the first would have to queue, because each further worker has to
  receive the inputs.
- A worker that has no inputs yet gets one compile. The others follow when its inputs are there, so
  that they are sent once, and a dead worker delays one compile only.
  Until then those that it will take do not go to further workers, unless it takes too long.
- Among workers that have the inputs, the less loaded one of the first two with room is taken.
- If all are full, each gets a few compiles more, so that none idles between two compiles. The rest
  waits in the dispatcher, for the worker that has room first.
- A worker that lets a compile wait has less room than it said. Its limit goes down by one, and goes
  up again when compiles start at once.

Deaths and routes come over different streams in any order: a death may be reported before the route
to that worker arrives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hpcc.core.memo import LruMemo
from hpcc.rpc.scheduler.api import Route, RouteChange

# A generation with a failed dial or call is not dialled again for this long. By then a dead
# worker's lease has ended, and the scheduler does not name it any more.
SHUN_SECONDS: Final = 10.0
# Workers whose deaths are kept; a dropped one costs one dial.
MAX_REMEMBERED: Final = 16_384
# The limit of a worker of which the scheduler said none.
_NO_LIMIT: Final = 1 << 20
# A compile that waited longer than this for a guest was in a queue.
_QUEUED_SECONDS: Final = 0.25
_AT_ONCE_SECONDS: Final = 0.05
# A worker that receives its first inputs is expected to be ready for more within this time.
OPENING_SECONDS: Final = 1.0


@dataclass(slots=True, eq=False)
class Lane:
    """One worker as this dispatcher uses it. Times are monotonic seconds.

    `is_open`: it has the inputs of a compile, so that more compiles may follow. `is_opening`: it
    receives them. `is_warm`: a compile has run there, so that a wait is one for room and not for a
    guest that boots.
    """

    route: Route
    in_flight: int = 0
    limit: int = 0
    is_open: bool = False
    is_opening: bool = False
    opening_at: float = 0.0
    is_warm: bool = False
    paused_until: float = float("-inf")

    def __post_init__(self) -> None:
        """Begin with what the scheduler said about the worker's room."""
        self.limit = self.slots

    @property
    def slots(self) -> int:
        """How many compiles at once the scheduler grants here."""
        return self.route.slots or _NO_LIMIT

    @property
    def load(self) -> float:
        """The share of its limit that is under way."""
        return self.in_flight / self.limit

    @property
    def room(self) -> int:
        """How many compiles more would not queue."""
        if self.route.slots and not self.is_open:
            return 0 if self.is_opening else 1
        return self.limit - self.in_flight

    @property
    def spare(self) -> int:
        """How many compiles more may wait at the worker, so that it has the next one at hand."""
        return self.limit + max(self.limit // 4, 1) - self.in_flight if self.is_open else 0

    def enter(self, now: float) -> None:
        """Take a place."""
        self.in_flight += 1
        self.is_opening, self.opening_at = not self.is_open, now

    def opened(self) -> None:
        """Note that the worker has the inputs of a compile."""
        self.is_open, self.is_opening = True, False

    def leave(self) -> None:
        """Give a place back."""
        self.in_flight -= 1
        self.is_opening = False

    def renew(self, route: Route) -> None:
        """Use another route to the same worker; a new life of the worker begins anew."""
        before, self.route = self.route, route
        is_same = (before.generation, before.endpoint) == (route.generation, route.endpoint)
        if before.slots != route.slots or not is_same:
            self.limit = self.slots
        if not is_same:
            self.is_open = self.is_opening = self.is_warm = False

    def waited(self, seconds: float, run_seconds: float) -> None:
        """Note how long a compile waited for its guest, and how long it ran there.

        In a queue it waits for about half of a compile. A machine that is slow for everything
        delays the start by less.
        """
        is_queued = seconds > max(_QUEUED_SECONDS, run_seconds / 2)
        if self.is_warm and is_queued and self.route.slots:
            self.limit = max(min(self.limit, self.in_flight) - 1, 1)
        elif seconds < max(_AT_ONCE_SECONDS, run_seconds / 10):
            self.limit = min(self.limit + 1, self.slots)
        self.is_warm = True


class RouteBook:
    """The present routes, the first first, and which routes are dead or shunned."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []
        # Lanes without a route whose compiles are still under way, by worker.
        self._former: dict[str, Lane] = {}
        # By worker: this generation and all before it are dead.
        self._dead: LruMemo[str, int] = LruMemo(MAX_REMEMBERED)
        # By worker: this generation and all before it failed us; until when (monotonic).
        self._shunned: LruMemo[str, tuple[int, float]] = LruMemo(MAX_REMEMBERED)

    @property
    def current(self) -> Route | None:
        """The route that is used first; None if there is none."""
        return self.lanes[0].route if self.lanes else None

    @property
    def slots(self) -> int:
        """How many compiles at once all routes together take."""
        return sum(lane.slots for lane in self.lanes)

    @property
    def limits(self) -> int:
        """How many compiles at once the workers have shown that they take; at most `slots`."""
        return sum(lane.limit for lane in self.lanes)

    @property
    def in_flight(self) -> int:
        """How many compiles are under way, also on routes that were dropped."""
        return sum(lane.in_flight for lane in (*self.lanes, *self._former.values()))

    def in_use(self, now: float) -> list[str]:
        """Return the workers in use, the first first, then those whose routes were dropped.

        What is still under way there counts against a quota, so the next answer has to name them.
        """
        former = (lane for lane in self._former.values() if self.is_good(lane.route, now))
        return [lane.route.worker_id for lane in (*self.lanes, *former)]

    def is_dead(self, route: Route) -> bool:
        """Report whether this generation of the worker, or a later one, was reported dead."""
        return route.generation <= self._dead.get(route.worker_id, 0)

    def is_good(self, route: Route, now: float) -> bool:
        """Report whether a route is neither dead nor shunned at the monotonic time `now`."""
        generation, until = self._shunned.get(route.worker_id, (0, 0.0))
        is_shunned = route.generation <= generation and now < until
        return not is_shunned and not self.is_dead(route)

    def take(self, routes: Sequence[Route], now: float) -> bool:
        """Use the good ones of an answer's routes, and no others; return whether there are any.

        If there is none, the present routes stay.
        Workers that were used before keep their places before the new ones.
        """
        good = {r.worker_id: r for r in routes if self.is_good(r, now)}
        if not good:
            return False
        kept = [lane for lane in self.lanes if lane.route.worker_id in good]
        self._drop([lane for lane in self.lanes if lane not in kept])
        for lane in kept:
            lane.renew(good.pop(lane.route.worker_id))
        self.lanes = kept
        for worker_id, route in good.items():
            former = self._former.pop(worker_id, None)
            if former is not None:
                former.renew(route)
            self.lanes.append(former or Lane(route))
        return True

    def choose(self, now: float, waiting: int) -> Lane | None:
        """Return the lane for the next of so many compiles; None if they have to wait."""
        lanes = [x for x in self.lanes if x.paused_until <= now] or self.lanes
        if not lanes:
            return None
        if lanes[0].room > 0:
            return lanes[0]
        soon = [x for x in lanes if x.is_opening and now - x.opening_at < OPENING_SECONDS]
        if waiting <= sum(x.limit - x.in_flight for x in soon):
            return None
        ready = [x for x in lanes if x.room > 0]
        if opened := [x for x in ready if x.is_open][:2]:
            return min(opened, key=lambda x: x.load)
        if ready:
            return ready[0]
        return min((x for x in lanes if x.spare > 0), key=lambda x: x.load, default=None)

    def proven(self, now: float) -> Lane | None:
        """Return the least loaded lane that has taken inputs; None if there is none."""
        opened = [x for x in self.lanes if x.is_open and x.paused_until <= now]
        return min(opened, key=lambda x: x.load, default=None)

    def opens(self, now: float) -> bool:
        """Whether compiles are held back for a worker that receives its first inputs."""
        return any(x.is_opening and now - x.opening_at < OPENING_SECONDS for x in self.lanes)

    def leave(self, lane: Lane) -> None:
        """Note the end of a compile."""
        lane.leave()
        if not lane.in_flight and self._former.get(lane.route.worker_id) is lane:
            del self._former[lane.route.worker_id]

    def pause(self, lane: Lane, until: float) -> None:
        """Use a worker that refused for want of room only if all have refused, for a while."""
        lane.paused_until = until

    def told(self, change: RouteChange) -> None:
        """Note a generation's death, or its life: then all generations before it are dead."""
        dead = change.generation if change.is_dead else change.generation - 1
        if dead > self._dead.get(change.worker_id, 0):
            self._dead[change.worker_id] = dead
        self._drop([lane for lane in self.lanes if self.is_dead(lane.route)])

    def silent(self) -> None:
        """Drop all routes, because deaths are not reported any more, or all tokens are invalid."""
        self._drop(list(self.lanes))

    def give_up(self, route: Route, now: float, *, is_workers_fault: bool) -> None:
        """Drop a route that failed; shun its generation for 10 s if its worker is at fault."""
        failed = [lane for lane in self.lanes if lane.route is route]
        if is_workers_fault:
            self._shunned[route.worker_id] = (route.generation, now + SHUN_SECONDS)
            failed = [lane for lane in self.lanes if not self.is_good(lane.route, now)]
        self._drop(failed)

    def _drop(self, lanes: Sequence[Lane]) -> None:
        self.lanes = [lane for lane in self.lanes if lane not in lanes]
        for lane in lanes:
            if lane.in_flight:
                self._former[lane.route.worker_id] = lane
