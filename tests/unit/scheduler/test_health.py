"""What stops a scheduler, and what it may lose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from hpcc.obs.health.health import Health
from hpcc.obs.health.watched import Watched
from hpcc.ports import ControlStoreError, SystemClock
from hpcc.routing.load import Load
from hpcc.scheduler.audit.anchors import Anchors
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.health import SchedulerSources, watch_scheduler
from hpcc.scheduler.registry import WorkerRegistry
from hpcc.scheduler.store_sync import ControlStoreSync
from hpcc.scheduler.watchers import Watchers


@dataclass
class Parts:
    store: str = ""
    tenants: str = ""
    ends_at: float = float("inf")


def watched(directory: Path, parts: Parts, **fields: Any) -> tuple[Health, Watched]:
    health, clock = Health(), SystemClock()
    place = {} if fields else {"state": directory / "state"}
    config = SchedulerConfig(keys=directory / "keys", tenants="/t.toml", **place, **fields)
    sources = SchedulerSources(
        store_trouble=lambda: parts.store,
        tenants_trouble=lambda: parts.tenants,
        certificate_ends_at=lambda: parts.ends_at,
        load=lambda: Load(live=3, stale=1, capacity=48, running=12, queued=2),
    )
    disk = watch_scheduler(health, config, sources, clock)
    health.serving()
    return health, disk


async def test_it_routes_without_its_store_and_with_an_old_table(tmp_path: Path) -> None:
    parts = Parts()
    health, disk = watched(tmp_path, parts)
    assert not health.conditions().is_serving, "the disk was not looked at yet"
    await disk.look()
    assert health.conditions().failed() == ()
    assert health.line() == "workers: 3 live, 1 silent; places: 12 of 48 busy; waiting: 2"
    parts.store, parts.tenants = "no answer in time", "the old table stays in force: line 7"
    conditions = health.conditions()
    assert [f.name for f in conditions.failed()] == ["control-store", "tenants"]
    assert conditions.is_serving
    parts.ends_at = 0.0
    assert not health.conditions().is_serving


@pytest.mark.parametrize("database", ["", "postgresql://hpcc@127.0.0.1/hpcc"])
async def test_a_full_disk_stops_one_that_keeps_its_farm_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    monkeypatch.setattr("hpcc.obs.health.watched.size_of_disk", lambda _: (0, 1 << 40))
    fields: dict[str, str] = {}
    if database:
        fields = {"database": database, "sealing_key": "/seal"}
    health, disk = watched(tmp_path, Parts(), **fields)
    await disk.look()
    assert [f.name for f in health.conditions().failed()] == ["disk"]
    assert health.conditions().is_serving == bool(database)


async def test_why_the_store_failed_is_known_until_it_answers() -> None:
    class Store:
        is_away = True

        async def session_floors(self, now: float) -> tuple[()]:
            del now
            if self.is_away:
                raise ControlStoreError("the database does not answer")
            return ()

    clock, store = SystemClock(), Store()
    sharing = ControlStoreSync(
        cast("Any", store),
        clock,
        registry=WorkerRegistry(clock, 10.0),
        watchers=Watchers(),
        sessions=cast("Any", None),
        lease_seconds=10.0,
        anchors=Anchors(clock, check=lambda _: None, on_cut=lambda _: None),
        is_alone=True,
    )
    assert (sharing.is_up, sharing.trouble) == (True, "")
    with pytest.raises(ControlStoreError) as caught:
        await sharing.exchange()
    sharing._away(caught.value)  # as its loop does
    assert (sharing.is_up, sharing.trouble) == (False, "the database does not answer")
    store.is_away = False
    await sharing.exchange()
    assert (sharing.is_up, sharing.trouble) == (True, "")
