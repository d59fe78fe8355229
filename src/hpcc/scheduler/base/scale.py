"""`/api/v1/scale`: how many workers each pool needs, for KEDA and for the metrics.

A number from a scheduler that does not know the farm would remove workers that compile. So there is
none while the control store is away, and until workers had time to speak after a start.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Final

from hpcc.obs.http.serve import HttpAnswer
from hpcc.ports import Clock
from hpcc.routing.fleet import Member
from hpcc.routing.load import Load
from hpcc.routing.pools import PoolLoad
from hpcc.scheduler.base.pools import WorkerPool

PATH: Final = "/api/v1/scale"
# Workers are counted at most so often, for all clients together.
_COUNT_SECONDS: Final = 1.0
# A worker that is alive speaks at least once in a lease.
_SETTLE_LEASES: Final = 3.0
_JSON: Final = "application/json"


class ScaleBook:
    """The loads of all pools, at most a second old."""

    def __init__(
        self,
        pools: tuple[WorkerPool, ...],
        *,
        members: Callable[[], Iterable[Member]],
        is_store_up: Callable[[], bool],
        lease_seconds: float,
        clock: Clock,
    ) -> None:
        self._pools, self._members, self._is_store_up = pools, members, is_store_up
        self._clock = clock
        self._settled_at = clock.monotonic() + _SETTLE_LEASES * lease_seconds
        self._counted_at = float("-inf")
        self._load, self._loads = Load(), dict[str, PoolLoad]()

    @property
    def trouble(self) -> str:
        """Why there is no number; "" if there is one."""
        if not self._is_store_up():
            return "the control store does not answer, so other schedulers' workers are not known"
        if self._clock.monotonic() < self._settled_at:
            return "the scheduler has just started, and workers have not spoken yet"
        return ""

    def loads(self) -> Mapping[str, PoolLoad]:
        """Return the load of each pool, by name; none while nothing is known."""
        if self.trouble:
            return {}
        now = self._clock.monotonic()
        if now - self._counted_at >= _COUNT_SECONDS:
            every = list(self._members())
            self._load = Load.of(every)
            self._loads = {
                p.name: PoolLoad.of(p.size, (m for m in every if p.has(m.worker_id)))
                for p in self._pools
            }
            self._counted_at = now
        return self._loads

    def page(self) -> HttpAnswer:
        """Return what the admin port answers."""
        if why := self.trouble:
            return HttpAnswer(HTTPStatus.SERVICE_UNAVAILABLE, f"{why}\n".encode())
        loads = self.loads()
        document = {
            "demand_slots": self._load.demand,
            "slots": self._load.capacity,
            "pools": {
                name: {
                    "ready_workers": load.ready,
                    "slots": load.slots,
                    "demand_slots": load.demand,
                    "recommended_workers": load.recommended,
                }
                for name, load in loads.items()
            },
        }
        text = json.dumps(document, indent=1, sort_keys=True) + "\n"
        return HttpAnswer(HTTPStatus.OK, text.encode(), _JSON)
