"""When a scheduler serves, and what it may lose without ceasing to.

Without the control store routes come from memory, and with a tenants table that cannot be read the
previous one stays in force. All schedulers of a farm meet both at the same moment, so neither is a
fault: a load balancer that took all of them out would end builds that go on now.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hpcc.obs.health.health import Health
from hpcc.obs.health.watched import DiskRoom, Watched
from hpcc.ports import Clock
from hpcc.routing.load import Load
from hpcc.scheduler.base.config import SchedulerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerSources:
    """The parts of a scheduler that its health is read from. Reasons are "" while all is well."""

    store_trouble: Callable[[], str]
    tenants_trouble: Callable[[], str]
    certificate_ends_at: Callable[[], float]
    load: Callable[[], Load]


def watch_scheduler(
    health: Health, config: SchedulerConfig, parts: SchedulerSources, clock: Clock
) -> Watched:
    """Name the conditions of a scheduler; return the one that its `run` keeps current."""
    written = (config.keys, config.events, *(() if config.database else (config.state,)))
    disk = Watched("the disk", DiskRoom(written).look, clock)

    def store() -> str:
        trouble = parts.store_trouble()
        return trouble and f"the last exchange failed, routes come from memory: {trouble}"

    def certificate() -> str:
        is_over = parts.certificate_ends_at() <= clock.now()
        return "the certificate has ended: `hpcc scheduler use-certificate`" if is_over else ""

    def summary() -> str:
        load = parts.load()
        stale = f", {load.stale} silent" if load.stale else ""
        return (
            f"workers: {load.live} live{stale}; places: {load.running} of {load.capacity} busy; "
            f"waiting: {load.queued}"
        )

    health.add("certificate", certificate)
    health.add("control-store", store, is_fault=False)
    health.add("tenants", parts.tenants_trouble, is_fault=False)
    # With a database only this scheduler's own events are written here.
    health.add("disk", disk.reason, is_fault=not config.database)
    health.summary = summary
    return disk
