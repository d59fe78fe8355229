"""What a heartbeat says of the worker's machine, for people."""

from __future__ import annotations

import os
from collections.abc import Callable

from hpcc import __version__
from hpcc.ports import Clock
from hpcc.rpc.scheduler.api import WorkerFacts
from hpcc.worker.stores.storage import TenantStorage
from hpcc.worker.waits import RecentWaits


def worker_facts(
    storage: TenantStorage, waits: RecentWaits, clock: Clock
) -> Callable[[], WorkerFacts]:
    """Return what says the facts of now. It reads no disk: heartbeats must not wait for one."""
    began = clock.monotonic()

    def facts() -> WorkerFacts:
        uses = storage.uses().values()
        wait_seconds, count = waits.p95()
        return WorkerFacts(
            version=__version__,
            up_seconds=clock.monotonic() - began,
            load=_load(),
            store_bytes=sum(use.size_bytes for use in uses),
            store_limit_bytes=sum(use.limit_bytes for use in uses),
            wait_p95_seconds=wait_seconds,
            waits=count,
        )

    return facts


def _load() -> float:
    """Return the load for each processor; 0 where the system has none, as on Windows."""
    if not hasattr(os, "getloadavg"):
        return 0.0
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:
        return 0.0
