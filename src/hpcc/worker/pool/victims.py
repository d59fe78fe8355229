"""Chooses the guest that ends so that a trust domain which waits can get one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from hpcc.core import TenantId
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.pool.decisions import GuestPhase, PooledGuest, PoolLimits


def choose_victim(
    domain: TrustDomain,
    guests: Sequence[PooledGuest],
    waiting: Callable[[TrustDomain], int],
    limits: PoolLimits,
    now: float,
) -> PooledGuest | None:
    """Return the guest to end for `domain`; None if each has to stay.

    The order: the guest that has been idle longest; a boot that no waiter needs any more; for a
    domain without a guest, a busy guest that has served for `turn_seconds`. `waiting` returns the
    number of a domain's waiters.
    """

    def had_its_turn(guest: PooledGuest) -> bool:
        return now - guest.ready_at >= limits.turn_seconds

    idle = [
        g
        for g in guests
        if g.is_idle and (now - g.idle_since >= limits.settle_seconds or had_its_turn(g))
    ]
    if idle:
        return min(idle, key=lambda g: g.idle_since)
    unwanted = (g for g in guests if g.phase is GuestPhase.BOOTING and not waiting(g.domain))
    if (victim := next(unwanted, None)) is not None:
        return victim
    if any(g.domain == domain and g.serves for g in guests):
        return None
    mine = serving(domain.tenant, guests)
    busy = [
        g
        for g in guests
        if g.phase is GuestPhase.READY
        and had_its_turn(g)
        and (g.domain.tenant == domain.tenant or serving(g.domain.tenant, guests) > mine)
    ]
    return max(
        busy, key=lambda g: (serving(g.domain.tenant, guests), now - g.ready_at), default=None
    )


def serving(tenant: TenantId, guests: Iterable[PooledGuest]) -> int:
    """Return how many guests serve a tenant."""
    return sum(g.domain.tenant == tenant and g.serves for g in guests)
