"""How many workers a pool needs, from what its workers say. Pure.

A pool is a set of like workers that a cluster adds and removes, such as the pods of a StatefulSet.
Its size follows demand: the compiles that run or wait there. The aim is that a part of all places
is busy (`target`), so that a build that begins finds some.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from hpcc.routing.fleet import Member
from hpcc.routing.load import Load

# Below what one place in a million farms of a million places would add.
_DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSize:
    """The limits of a pool. `slots_per_worker` is for a pool of which no worker lives."""

    min_workers: int
    max_workers: int
    slots_per_worker: int
    target: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLoad:
    """What a pool has, and how many workers it needs. `ready` ones take compiles."""

    ready: int
    slots: int
    demand: int
    recommended: int

    @classmethod
    def of(cls, size: PoolSize, members: Iterable[Member]) -> PoolLoad:
        """Add up the workers of a pool whose lease has not ended.

        A silent worker is not ready, but what it said last still counts as demand: a fault of the
        network must not remove workers that compile. One that drains ends soon, and has neither.
        """
        every = list(members)
        load = Load.of(every)
        silent = [m for m in every if m.is_stale and not m.is_draining]
        demand = load.demand + sum(min(m.running, m.capacity) + m.queued for m in silent)
        each = load.capacity / load.live if load.live else size.slots_per_worker
        wanted = math.ceil(round(demand / (each * size.target), _DIGITS))
        return cls(
            ready=load.live,
            slots=load.capacity,
            demand=demand,
            recommended=min(max(wanted, size.min_workers), size.max_workers),
        )
