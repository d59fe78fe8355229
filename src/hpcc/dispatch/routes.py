"""Which route a dispatcher may dial, given reported deaths and failed dials. No I/O."""

from __future__ import annotations

from typing import Final

from hpcc.core.memo import LruMemo
from hpcc.rpc.scheduler.api import Route, RouteChange

# A generation with a failed dial or call is not dialled again for this long. By then a dead
# worker's lease has ended, and the scheduler does not name it any more.
SHUN_SECONDS: Final = 10.0
# Workers whose deaths are kept; a dropped one costs one dial.
MAX_REMEMBERED: Final = 16_384


class RouteBook:
    """The current route, and which routes are dead or shunned.

    Deaths and routes come over different streams in any order: a death may be reported before the
    route to that worker arrives.
    """

    def __init__(self) -> None:
        self.current: Route | None = None
        # By worker: this generation and all before it are dead.
        self._dead: LruMemo[str, int] = LruMemo(MAX_REMEMBERED)
        # By worker: this generation and all before it failed us; until when (monotonic).
        self._shunned: LruMemo[str, tuple[int, float]] = LruMemo(MAX_REMEMBERED)

    def is_dead(self, route: Route) -> bool:
        """Report whether this generation of the worker, or a later one, was reported dead."""
        return route.generation <= self._dead.get(route.worker_id, 0)

    def is_good(self, route: Route, now: float) -> bool:
        """Report whether a route is neither dead nor shunned at the monotonic time `now`."""
        generation, until = self._shunned.get(route.worker_id, (0, 0.0))
        is_shunned = route.generation <= generation and now < until
        return not is_shunned and not self.is_dead(route)

    def take(self, route: Route, now: float) -> bool:
        """Make a route the current one if it `is_good`; returns whether it is."""
        self.current = route if self.is_good(route, now) else None
        return self.current is not None

    def told(self, change: RouteChange) -> None:
        """Note a generation's death, or its life: then all generations before it are dead."""
        dead = change.generation if change.is_dead else change.generation - 1
        if dead > self._dead.get(change.worker_id, 0):
            self._dead[change.worker_id] = dead
        if self.current is not None and self.is_dead(self.current):
            self.current = None

    def silent(self) -> None:
        """Drop the current route, because deaths are not reported any more."""
        self.current = None

    def give_up(self, route: Route, now: float, *, is_workers_fault: bool) -> None:
        """Drop a route that failed; shun its generation for 10 s if its worker is at fault."""
        if self.current is route:
            self.current = None
        if not is_workers_fault:
            return
        self._shunned[route.worker_id] = (route.generation, now + SHUN_SECONDS)
        if self.current is not None and not self.is_good(self.current, now):
            self.current = None
