"""Shows what a pool holds now as metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from hpcc.obs.metrics.registry import Values
from hpcc.worker.base.metrics import WorkerMetrics
from hpcc.worker.pool.core import PoolCore
from hpcc.worker.pool.decisions import GuestPhase, PooledGuest, PoolLimits, Refusal

_STATES: Final = ("booting", "idle", "busy", "ending")
_MIB: Final = 1 << 20


def show_pool(metrics: WorkerMetrics, core: PoolCore, limits: PoolLimits) -> None:
    """Let the metrics read this pool."""
    places = limits.capacity * limits.vcpus
    core.on_start = metrics.guest_start_seconds.observe
    metrics.slots.read = lambda: (
        (("busy",), core.running),
        (("idle",), max(places - core.running, 0)),
    )
    metrics.queue.read = lambda: metrics.by_tenant(
        {tenant.value: count for tenant, count in core.queued_by_tenant.items()}
    )
    metrics.guests.read = lambda: _by_state(core.guests)
    metrics.guest_starts.read = lambda: (
        (("ahead",), core.counts.ahead),
        (("demand",), core.counts.started - core.counts.ahead),
    )
    metrics.guest_start_failures.read = lambda: (((), core.counts.failed),)
    metrics.guest_memory.read = lambda: (((), core.taken_mib * _MIB),)
    metrics.guest_memory_limit.read = lambda: (((), limits.memory_mib * _MIB),)
    metrics.refusals.read = lambda: (
        ((why.name.lower().replace("_", "-"),), core.refused[why]) for why in Refusal
    )
    metrics.guests_parked.read = lambda: (((), core.counts.parked),)
    metrics.draining.read = lambda: (((), core.is_draining),)


def _by_state(guests: Iterable[PooledGuest]) -> Iterable[tuple[Values, float]]:
    found = Counter(map(_state, guests))
    return [((state,), found[state]) for state in _STATES]


def _state(guest: PooledGuest) -> str:
    if guest.phase is GuestPhase.BOOTING:
        return "booting"
    if guest.phase is GuestPhase.ENDING:
        return "ending"
    return "busy" if guest.refs else "idle"
