"""Lets the metrics of a worker read its parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hpcc.audit.log import SpoolAuditLog
from hpcc.ports import Clock
from hpcc.worker.audit.sinks import TrailSink
from hpcc.worker.base.metrics import WorkerMetrics
from hpcc.worker.execute.runner import Runner
from hpcc.worker.link import SchedulerLink
from hpcc.worker.pool.core import PoolCore
from hpcc.worker.pool.decisions import PoolLimits
from hpcc.worker.pool.figures import show_pool
from hpcc.worker.stores.shared import SharedStores
from hpcc.worker.stores.storage import TenantStorage
from hpcc.worker.waits import RecentWaits


def show_execution(
    metrics: WorkerMetrics, core: PoolCore, limits: PoolLimits, runner: Runner, waits: RecentWaits
) -> None:
    """Show guests, how long compiles wait for them, and which compiles get none."""
    show_pool(metrics, core, limits)

    def waited(tenant: str, seconds: float) -> None:
        metrics.waited(tenant, seconds)
        waits.add(seconds)

    runner.waited = waited
    clock = waits.clock
    metrics.quarantined.read = lambda: [((), runner.quarantine.held(clock.monotonic()))]


def show_stores(metrics: WorkerMetrics, storage: TenantStorage, shared: SharedStores) -> None:
    """Show the tenants' disks and shared stores. Call it before the first one is opened."""
    shared.called = metrics.store_called
    metrics.read_stores(lambda: shared.counters().values())
    metrics.store_open.read = lambda: metrics.by_tenant(shared.open_breakers())
    metrics.store_bytes.read = lambda: metrics.by_tenant(
        {tenant: use.size_bytes for tenant, use in storage.uses().items()}
    )
    metrics.store_limit.read = lambda: metrics.by_tenant(
        {tenant: use.limit_bytes for tenant, use in storage.uses().items()}
    )
    metrics.store_evicted.read = lambda: [
        ((), sum(use.evicted_bytes for use in storage.uses().values()))
    ]


def show_trail(
    metrics: WorkerMetrics, trail: SpoolAuditLog | None, sinks: Callable[[], Sequence[TrailSink]]
) -> None:
    """Show the trail's size and events, and how many of its records each sink lacks."""
    metrics.audit.show(trail)
    if trail is not None:
        trail.listen(metrics.event)
        metrics.sink_lag.read = lambda: [
            ((sink.name,), max(trail.anchor[0] - sink.acknowledged, 0)) for sink in sinks()
        ]


def show_link(
    metrics: WorkerMetrics, link: Callable[[], SchedulerLink | None], clock: Clock
) -> None:
    """Show whether a scheduler hears this worker, and since when it has the trail's end."""

    def is_up() -> bool:
        return (now := link()) is not None and now.is_up

    def age() -> list[tuple[tuple[()], float]]:
        now = link()
        if now is None or now.answered_at is None:
            return []
        return [((), clock.monotonic() - now.answered_at)]

    metrics.connected.read = lambda: [((), is_up())]
    metrics.anchor_age.read = age
