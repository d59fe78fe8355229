"""What stops a scheduler, and what it may lose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest

from hpcc.audit.log import SpoolAuditLog
from hpcc.obs.health.health import Health
from hpcc.obs.health.watched import LEAST_FREE_BYTES, Watched
from hpcc.ports import ControlStoreError, SystemClock
from hpcc.routing.load import Load
from hpcc.scheduler import serve
from hpcc.scheduler.audit.anchors import Anchors
from hpcc.scheduler.audit.recent import RecentEvents
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.health import SchedulerSources, watch_scheduler
from hpcc.scheduler.registry import WorkerRegistry
from hpcc.scheduler.store_sync import ControlStoreSync
from hpcc.scheduler.watchers import Watchers

DATABASE: Final = "postgresql://hpcc@127.0.0.1/hpcc"


@dataclass
class Parts:
    store: str = ""
    tenants: str = ""
    ends_at: float = float("inf")


def scheduler_config(directory: Path, *, database: str = "") -> SchedulerConfig:
    if database:
        place: dict[str, Any] = {"database": database, "sealing_key": "/seal"}
    else:
        place = {"state": directory / "state"}
    return SchedulerConfig(keys=directory / "keys", tenants="/t.toml", **place)


def watched(directory: Path, parts: Parts, **fields: str) -> tuple[Health, Watched]:
    health, clock, config = Health(), SystemClock(), scheduler_config(directory, **fields)
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


@pytest.mark.parametrize("database", ["", DATABASE])
async def test_a_full_disk_stops_one_that_keeps_its_farm_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    monkeypatch.setattr("hpcc.obs.health.watched.size_of_disk", lambda _: (0, 1 << 40))
    health, disk = watched(tmp_path, Parts(), database=database)
    await disk.look()
    assert [f.name for f in health.conditions().failed()] == ["disk"]
    assert health.conditions().is_serving == bool(database)


@pytest.mark.parametrize("size", [1 << 20, 16 << 20, 1 << 30, 1 << 42])
def test_events_of_strangers_leave_the_disk_its_room(tmp_path: Path, size: int) -> None:
    limits = scheduler_config(tmp_path, database=DATABASE).event_limits(size)
    # With their index. What `disk` needs, and half of the disk for the rest, stays free.
    assert 3 * limits.max_bytes <= size // 2 - min(LEAST_FREE_BYTES, size // 16)
    assert limits.max_bytes == min(size // 8, 1 << 30)


async def test_the_trail_of_events_is_opened_for_its_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes gives a scheduler with a database 16 MiB of memory for keys and events."""
    shown: list[SpoolAuditLog] = []
    monkeypatch.setattr(serve, "size_of_disk", lambda _: (0, 16 << 20))
    audit = SimpleNamespace(show=shown.append, event=lambda _: None)
    metrics = cast("Any", SimpleNamespace(service=None, audit=audit))
    (tmp_path / "keys").mkdir(mode=0o700)
    config = scheduler_config(tmp_path, database=DATABASE)
    recent = RecentEvents(SystemClock())
    key_of = serve.load_or_create_signing_key
    async with serve._events(config, "farm", SystemClock(), metrics, recent, key_of):
        assert shown[0].size[1] == 2 << 20


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
