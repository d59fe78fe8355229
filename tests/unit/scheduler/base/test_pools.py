"""The pools of a config file, and what `/api/v1/scale` says about them."""

from __future__ import annotations

import json
from http import HTTPStatus
from pathlib import Path

import pytest

from hpcc.core import CallerError
from hpcc.routing.fleet import Member
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.base.pools import WorkerPool, read_pools
from hpcc.scheduler.base.scale import ScaleBook
from hpcc_testkit.services.idp_tokens import FixedClock

POOL = {"prefix": "farm-worker-", "max_workers": 12}


@pytest.mark.parametrize(
    ("name", "is_in"),
    [
        ("farm-worker-0", True),
        ("farm-worker-11", True),
        ("farm-worker-12", False),
        ("farm-worker-01", False),
        ("farm-worker-", False),
        ("farm-worker-x", False),
        ("farm-worker-1-1", False),
        ("farm-worker--1", False),
        ("farm-worker-٣", False),
        ("0", False),
        ("other-0", False),
        ("farm-worker-" + "1" * 100, False),
    ],
)
def test_a_workers_name_tells_its_pool(name: str, is_in: bool) -> None:
    (pool,) = read_pools({"cpu": POOL})
    assert pool.has(name) is is_in


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"cpu": 1}, "pools.cpu must be an object"),
        ({"CPU": POOL}, "the name must be 1 to 40"),
        ({"a" * 41: POOL}, "the name must be 1 to 40"),
        ({"cpu": {"prefix": "w-"}}, "key 'max_workers' is missing"),
        ({"cpu": POOL | {"prefixes": "w"}}, "unknown key 'prefixes'; did you mean 'prefix'?"),
        ({"cpu": POOL | {"colour": "w"}}, "unknown key 'colour'; known: prefix"),
        ({"cpu": POOL | {"prefix": "w"}}, "prefix must be"),
        ({"cpu": POOL | {"prefix": 7}}, "prefix: must be str"),
        ({"cpu": POOL | {"max_workers": "7"}}, "max_workers: must be int"),
        ({"cpu": POOL | {"max_workers": True}}, "max_workers: must be int"),
        ({"cpu": POOL | {"min_workers": 0}}, "a pool without a worker has no demand"),
        ({"cpu": POOL | {"min_workers": 13}}, "1 <= min_workers"),
        ({"cpu": POOL | {"slots_per_worker": 0}}, "slots_per_worker must be"),
        ({"cpu": POOL | {"target": 1.5}}, "target must be"),
        ({"cpu": POOL | {"target": float("nan")}}, "target must be"),
        ({"cpu": POOL, "gpu": POOL}, "two have the same prefix"),
        ({f"p{n}": POOL | {"prefix": f"w{n}-"} for n in range(17)}, "at most 16"),
    ],
)
def test_pools_that_cannot_work_are_refused(table: dict[str, object], said: str) -> None:
    with pytest.raises(CallerError, match=said):
        SchedulerConfig(keys=Path("/k"), state=Path("/s"), tenants="/t", pools=table)


def member(name: str, running: int, queued: int = 0) -> Member:
    return Member(
        worker_id=name, generation=1, rank=1, capacity=8, images=frozenset(), lease_until=1.0,
        running=running, queued=queued,
    )  # fmt: skip


class Farm:
    """Workers and a store, as a test sets them."""

    def __init__(self) -> None:
        self.members, self.is_up, self.asked = list[Member](), True, 0
        self.clock = FixedClock()
        self.book = ScaleBook(
            tuple(WorkerPool(name=n, prefix=f"{n}-", max_workers=9) for n in ("cpu", "gpu")),
            members=self._read, is_store_up=lambda: self.is_up, lease_seconds=10.0,
            clock=self.clock,
        )  # fmt: skip

    def _read(self) -> list[Member]:
        self.asked += 1
        return self.members


def test_each_pool_has_its_own_number() -> None:
    farm = Farm()
    farm.clock.time += 31.0
    farm.members = [member("cpu-0", 8, 30), member("cpu-1", 8), member("w1", 3)]
    answer = farm.book.page()
    assert (answer.status, answer.kind) == (HTTPStatus.OK, "application/json")
    assert json.loads(answer.body) == {
        "demand_slots": 49, "slots": 24,
        "pools": {
            "cpu": {"ready_workers": 2, "slots": 16, "demand_slots": 46, "recommended_workers": 8},
            "gpu": {"ready_workers": 0, "slots": 0, "demand_slots": 0, "recommended_workers": 1},
        },
    }  # fmt: skip
    farm.book.page()
    assert farm.asked == 1, "once a second, whoever asks"
    farm.clock.time += 1.0
    farm.book.page()
    assert farm.asked == 2


def test_there_is_no_number_while_the_farm_is_not_known() -> None:
    """A small number would remove workers that compile."""
    farm = Farm()
    farm.members = [member("cpu-0", 8)]
    answer = farm.book.page()
    assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert b"just started" in answer.body
    assert farm.book.loads() == {}
    farm.clock.time += 31.0
    assert farm.book.loads()["cpu"].ready == 1
    farm.is_up = False
    assert b"control store" in farm.book.page().body
    assert farm.book.loads() == {}
