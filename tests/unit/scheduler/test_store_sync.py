"""Schedulers exchange news over a store that is unreachable now and then."""

from __future__ import annotations

from typing import Any, cast

import pytest

from hpcc.control.embedded import EmbeddedControlStore
from hpcc.ports import ControlStoreError, SystemClock
from hpcc.scheduler.audit.anchors import Anchors
from hpcc.scheduler.registry import WorkerRegistry
from hpcc.scheduler.store_sync import WORKER_JOINED, ControlStoreSync
from hpcc.scheduler.watchers import Watchers


class Store:
    """An embedded store whose first `failures` broadcasts fail."""

    def __init__(self, inner: EmbeddedControlStore, failures: int) -> None:
        self._inner, self._failures = inner, failures
        self.told: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def tell(self, topic: str, text: str) -> None:
        if self._failures:
            self._failures -= 1
            raise ControlStoreError("away")
        self.told.append((topic, text))


async def test_that_a_worker_moved_is_told_when_the_store_is_back(tmp_path: Any) -> None:
    """Otherwise the scheduler that the worker left removes it although it still runs."""
    clock = SystemClock()
    with EmbeddedControlStore(tmp_path / "s.sqlite", clock) as inner:
        store = Store(inner, failures=1)
        sharing = ControlStoreSync(
            cast("Any", store),
            clock,
            registry=WorkerRegistry(clock, 10.0),
            watchers=Watchers(),
            sessions=cast("Any", None),
            lease_seconds=10.0,
            anchors=Anchors(clock, check=lambda _: None, on_cut=lambda _: None),
        )
        for worker_id in ("w1", "w2"):
            sharing.joined(worker_id)
        with pytest.raises(ControlStoreError):
            await sharing.exchange()
        await sharing.exchange()
        await sharing.exchange()
    assert sorted(store.told) == [(WORKER_JOINED, "w1"), (WORKER_JOINED, "w2")]
