"""Which route a dispatcher may dial: decisions about deaths told and dials that failed. No I/O."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from hpcc.rpc.scheduler.api import Route, RouteChange

# A generation that let a dial or a call fail is not dialled again so long: a dead worker's lease
# ends meanwhile, and the scheduler names it no more.
SHUN_SECONDS: Final = 10.0
# Workers whose deaths are remembered; what is forgotten costs one dial.
MAX_REMEMBERED: Final = 16_384


class RouteBook:
    """The current route, and what is known against routes.

    News and answers come over different streams in any order: a death may be told before the
    answer comes that still names the dead.
    """

    def __init__(self) -> None:
        self.current: Route | None = None
        # By worker: this generation and all before it are dead.
        self._dead: OrderedDict[str, int] = OrderedDict()
        # By worker: this generation and all before it failed us; until when (monotonic).
        self._shunned: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def is_dead(self, route: Route) -> bool:
        return route.generation <= self._dead.get(route.worker_id, 0)

    def is_good(self, route: Route, now: float) -> bool:
        """Say whether nothing is known against a route at the monotonic time `now`."""
        generation, until = self._shunned.get(route.worker_id, (0, 0.0))
        is_shunned = route.generation <= generation and now < until
        return not is_shunned and not self.is_dead(route)

    def take(self, route: Route, now: float) -> bool:
        """Make a route the current one, unless something is known against it."""
        self.current = route if self.is_good(route, now) else None
        return self.current is not None

    def told(self, change: RouteChange) -> None:
        """Hear of a generation: it is dead, or it lives and those before it are dead."""
        dead = change.generation if change.is_dead else change.generation - 1
        if dead > self._dead.get(change.worker_id, 0):
            self._dead[change.worker_id] = dead
            self._dead.move_to_end(change.worker_id)
            if len(self._dead) > MAX_REMEMBERED:
                self._dead.popitem(last=False)
        if self.current is not None and self.is_dead(self.current):
            self.current = None

    def silent(self) -> None:
        """Hear nothing any more: anything may have died."""
        self.current = None

    def give_up(self, route: Route, now: float, *, is_workers_fault: bool) -> None:
        """Drop a route that failed; shun its generation for a while if its worker is at fault."""
        if self.current is route:
            self.current = None
        if not is_workers_fault:
            return
        self._shunned[route.worker_id] = (route.generation, now + SHUN_SECONDS)
        self._shunned.move_to_end(route.worker_id)
        if len(self._shunned) > MAX_REMEMBERED:
            self._shunned.popitem(last=False)
        if self.current is not None and not self.is_good(self.current, now):
            self.current = None
