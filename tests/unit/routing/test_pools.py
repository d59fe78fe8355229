"""How many workers a pool should have."""

from __future__ import annotations

import pytest

from hpcc.routing.fleet import Member
from hpcc.routing.pools import PoolLoad, PoolSize

SIZE = PoolSize(min_workers=2, max_workers=10, slots_per_worker=8, target=0.75)


def worker(running: int = 0, queued: int = 0, **state: bool) -> Member:
    return Member(
        worker_id="w", generation=1, rank=1, capacity=8, images=frozenset(), lease_until=1.0,
        running=running, queued=queued, **state,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("members", "load"),
    [
        # (ready, slots, demand, recommended)
        ([], (0, 0, 0, 2)),
        ([worker()] * 3, (3, 24, 0, 2)),
        # 12 of 16 are three quarters.
        ([worker(6), worker(6)], (2, 16, 12, 2)),
        ([worker(6), worker(7)], (2, 16, 13, 3)),
        ([worker(8, 20), worker(8)], (2, 16, 36, 6)),
        ([worker(8, 1000)], (1, 8, 1008, 10)),
        # A worker says anything.
        ([worker(10**9)] * 2, (2, 16, 16, 3)),
        # What drains ends soon; it is neither room nor demand.
        ([worker(6), worker(6), worker(8, 50, is_draining=True)], (2, 16, 12, 2)),
        # A silent one may still compile.
        ([worker(8), worker(8), worker(8, 8, is_stale=True)], (2, 16, 32, 6)),
        ([worker(8, 8, is_stale=True)], (0, 0, 16, 3)),
        ([worker(8, 8, is_stale=True, is_draining=True)], (0, 0, 0, 2)),
    ],
)
def test_a_pool_has_room_for_a_build_that_begins(
    members: list[Member], load: tuple[int, int, int, int]
) -> None:
    found = PoolLoad.of(SIZE, members)
    assert (found.ready, found.slots, found.demand, found.recommended) == load


def test_workers_of_other_sizes_count_as_they_are() -> None:
    small = [worker(8) for _ in range(4)]
    for member in small:
        member.capacity, member.running = 2, 2
    assert PoolLoad.of(SIZE, small).recommended == 6
