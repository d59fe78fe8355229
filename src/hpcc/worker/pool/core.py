"""Decides who gets a guest, which guests boot and which end. Pure: events in, decisions out.

The problem: booting a guest takes seconds and much memory, a compile takes less than either, and
several tenants share the machine. Guests are therefore reused, and memory moves between trust
domains without starving one of them.

The rules:

- A guest belongs to one trust domain from boot to end. It has as many places as vCPUs, and with
  reuse "exec" one place for one exec.
- A waiter gets a free place of its domain in the order of arrival. If there is none, a guest boots
  as long as `PoolLimits` allow, by number and by the memory of its image. Tenants take turns (see
  `queue`).
- A guest takes memory from the start of its boot until its end is reported by `ended`, so that the
  sum never exceeds the limit.
- When a domain waits and no guest may boot, room is made in this order: the guest that has been
  idle longest; a boot that no waiter needs any more; and, for a domain without a guest, a busy
  guest that has served for `turn_seconds`. That guest takes no further exec and ends with its last.
- A build announces compiles before they ask. Where a further guest may boot and no waiter needs it,
  guests boot for them; at most `PoolLimits.ahead_guests` are unused. The tenant with the fewest
  guests comes first. Nothing ends because of an announcement (see `ahead`).

Example: two guests fit. Tenant A runs `make -j64` in both, then tenant B asks. After at most
`turn_seconds` one guest of A closes, ends with its last exec, and B's guest boots in its place.
A's waiters stay queued.

What must never happen: a guest runs code of a second trust domain; a single-use guest is granted
twice; a waiter is answered twice, or never although it stays.

The caller passes `now` in monotonic seconds to every event, carries out `decisions` in order, and
calls `tick` at `next_deadline`. No method awaits, so no other event can come between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from hpcc.core import ImageDigest, TenantId
from hpcc.core.memo import LruMemo
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.pool.ahead import Announcements
from hpcc.worker.pool.decisions import (
    Boot,
    Decision,
    Grant,
    GuestPhase,
    PoolCounts,
    PooledGuest,
    PoolLimits,
    Refusal,
    Refuse,
    Retire,
)
from hpcc.worker.pool.queue import FairQueue
from hpcc.worker.pool.victims import choose_victim, serving

_MAX_IMAGES: Final = 1024


class PoolCore:
    """Takes one event per method, at `now`; appends what follows to `decisions`, in order."""

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        self._queue = FairQueue(limits.max_queue)
        self._guests: dict[int, PooledGuest] = {}
        self._last_guest = 0
        # Waiters whose lease runs no tenant's code.
        self._uncounted: set[int] = set()
        self._no_boot_until: dict[TrustDomain, float] = {}
        self._announced = Announcements()
        # How long the last start of a guest took, in seconds, by image.
        self._starts: LruMemo[ImageDigest, float] = LruMemo(_MAX_IMAGES)
        self._drained_at: float | None = None
        self._is_short, self._now = False, 0.0
        self.decisions: list[Decision] = []
        self.counts, self.refused = PoolCounts(), Counter[Refusal]()
        self.on_start: Callable[[float], None] = lambda _: None  # the seconds of a guest's start

    @property
    def guests(self) -> tuple[PooledGuest, ...]:
        """The guests that take memory."""
        return tuple(self._guests.values())

    @property
    def taken_mib(self) -> int:
        """The host's cost of all guests in MiB."""
        return sum(self._limits.cost_mib(g.domain.image) for g in self._guests.values())

    @property
    def running(self) -> int:
        return sum(g.refs for g in self._guests.values())

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def queued_by_tenant(self) -> dict[TenantId, int]:
        return self._queue.by_tenant

    @property
    def is_draining(self) -> bool:
        return self._drained_at is not None

    def counts_of(self, number: int) -> tuple[int, int]:
        """Return how many leases of a guest run a tenant's code: now, and since its start.

        Both are 0 for a guest that has ended.
        """
        guest = self._guests.get(number)
        return (guest.refs, guest.execs) if guest is not None else (0, 0)

    def ask(self, waiter: int, domain: TrustDomain, now: float, *, counts: bool = True) -> None:
        """Ask for a place. `waiter` numbers ascend; each gets one answer unless it leaves.

        `counts=False`: the lease runs no tenant's code, so the guest still counts as unused.
        """
        if self._drained_at is not None:
            self._refuse(waiter, Refusal.DRAINING)
            return
        if not counts:
            self._uncounted.add(waiter)
        guest = self._free(domain)
        if guest is not None and not self._queue.count(domain):
            self._grant(waiter, guest)
        elif not self._queue.is_full or self._displace(domain):
            self._queue.add(waiter, domain)
            self._settle(now)
        else:
            self._refuse(waiter, Refusal.QUEUE_FULL)

    def expect(self, domain: TrustDomain, count: int, now: float) -> None:
        """Note that so many compiles of the domain run, wait or will ask soon, by a client's word.

        It gives nobody a place, and takes none from anybody.
        """
        if self._drained_at is None and self._limits.ahead_guests:
            self._announced.note(domain, count, now)
            self._settle(now)

    def leave(self, waiter: int, now: float) -> None:
        """Withdraw a waiter that has no answer yet."""
        self._queue.discard(waiter)
        self._uncounted.discard(waiter)
        self._settle(now)

    def release(self, number: int, now: float) -> None:
        """End a lease; without effect if the guest has ended."""
        guest = self._guests.get(number)
        if guest is None:
            return
        guest.refs -= 1
        if not guest.refs:
            guest.idle_since = now
            if guest.phase is GuestPhase.CLOSING:
                self._retire(guest)
        self._settle(now)

    def booted(self, number: int, now: float) -> None:
        """Record that a guest answers."""
        guest = self._guests[number]
        if guest.phase is GuestPhase.BOOTING:
            guest.phase, guest.ready_at, guest.idle_since = GuestPhase.READY, now, now
            self._starts[guest.domain.image] = now - guest.began_at
            self.on_start(now - guest.began_at)
        self._settle(now)

    def boot_failed(self, number: int, now: float) -> None:
        """Record that a boot failed and that nothing of the guest is left.

        If another guest serves the domain, its waiters stay and the next boot waits
        `retry_seconds`; otherwise all waiters of the domain are refused.
        """
        guest = self._guests.pop(number)
        self.counts.failed += 1
        self._announced.drop(guest.domain)
        if guest.phase is GuestPhase.BOOTING:
            if any(g.domain == guest.domain and g.serves for g in self._guests.values()):
                self._no_boot_until[guest.domain] = now + self._limits.retry_seconds
            else:
                for waiter in self._queue.clear(guest.domain):
                    self._refuse(waiter, Refusal.BOOT_FAILED)
        self._settle(now)

    def lost(self, number: int, now: float) -> None:
        """Record that a guest died or was condemned. It takes memory until `ended`."""
        guest = self._guests.get(number)
        if guest is not None:
            guest.phase = GuestPhase.ENDING
        self._settle(now)

    def ended(self, number: int, now: float) -> None:
        """Record that nothing of a guest is left."""
        guest = self._guests.pop(number, None)
        if guest is not None and guest.is_unused_ahead:
            self.counts.ahead_unused += 1
        self._settle(now)

    def tick(self, now: float) -> None:
        """Apply the time limits; call it at `next_deadline`."""
        self._no_boot_until = {d: t for d, t in self._no_boot_until.items() if t > now}
        for guest in list(self._guests.values()):
            is_old = now - guest.ready_at >= self._limits.session_seconds
            hold = self._hold_seconds(guest)
            if guest.is_idle and (is_old or now - guest.idle_since >= hold):
                self.counts.parked += not is_old and hold < self._limits.idle_seconds
                self._retire(guest)
            elif guest.phase is GuestPhase.READY and is_old:
                guest.phase = GuestPhase.CLOSING
            elif self._drained_at is not None and now >= self._drained_at:
                self._retire(guest)
        self._settle(now)

    def drain(self, now: float, seconds: float) -> None:
        """Accept no new waiters; give running execs `seconds`. Done when `guests` is empty.

        A later call sets another time.
        """
        self._drained_at = now + seconds
        self._announced.clear()
        for waiter in self._queue.clear():
            self._refuse(waiter, Refusal.DRAINING)
        for guest in list(self._guests.values()):
            if guest.refs and guest.phase is GuestPhase.READY:
                guest.phase = GuestPhase.CLOSING
            elif guest.serves:
                self._retire(guest)
        self.tick(now)

    def resume(self, now: float) -> None:
        """Accept waiters again."""
        self._drained_at = None
        self._settle(now)

    @property
    def next_deadline(self) -> float | None:
        """When `tick` has something to do, in the caller's monotonic seconds; None for never."""
        limits = self._limits
        times = [t for d, t in self._no_boot_until.items() if self._queue.count(d)]
        if self._drained_at is not None:
            times.append(self._drained_at)
        for guest in self._guests.values():
            if guest.phase is not GuestPhase.READY:
                continue
            times.append(guest.ready_at + limits.session_seconds)
            if guest.is_idle:
                times.append(guest.idle_since + self._hold_seconds(guest))
            if self._is_short:
                times.append(guest.ready_at + limits.turn_seconds)
                if guest.is_idle:
                    times.append(guest.idle_since + limits.settle_seconds)
        return min((t for t in times if t > self._now), default=None)

    def _hold_seconds(self, guest: PooledGuest) -> float:
        start = self._starts.get(guest.domain.image)
        return self._limits.hold_seconds(start, is_unused_ahead=guest.is_unused_ahead)

    def _settle(self, now: float) -> None:
        """Grant places, start boots, make room. Every event ends here."""
        self._now = now
        for domain in list(self._queue.in_turn()):
            while self._queue.count(domain) and (guest := self._free(domain)) is not None:
                waiter = self._queue.pop(domain)
                assert waiter is not None
                self._grant(waiter, guest)
        self._is_short = False
        if self._drained_at is None:
            while (wanted := self._next_boot(now)) is not None:
                self._boot(wanted)
            self._make_room(now)
            self._boot_ahead(now)

    def _wanting(self, now: float) -> Iterator[TrustDomain]:
        """Yield, in turn, domains with more waiters than places in booting guests."""
        for domain in self._queue.in_turn():
            coming = sum(
                g.places
                for g in self._guests.values()
                if g.domain == domain and g.phase is GuestPhase.BOOTING
            )
            if self._queue.count(domain) > coming and self._no_boot_until.get(domain, now) <= now:
                self._no_boot_until.pop(domain, None)
                yield domain

    def _next_boot(self, now: float) -> TrustDomain | None:
        """Return who is next, if a guest fits: a smaller one does not pass a larger one."""
        domain = next(self._wanting(now), None)
        return domain if domain is not None and self.fits(domain) else None

    def fits(self, domain: TrustDomain) -> bool:
        """Whether one more guest of the domain may be there."""
        limits, guests = self._limits, self._guests.values()
        taken, needed = self.taken_mib, limits.cost_mib(domain.image)
        return len(guests) < limits.max_guests and taken + needed <= limits.memory_mib

    def _boot(self, domain: TrustDomain, *, is_ahead: bool = False) -> None:
        self._last_guest += 1
        places = 1 if domain.is_single_use else self._limits.vcpus
        guest = PooledGuest(self._last_guest, domain, places, is_ahead=is_ahead, began_at=self._now)
        self._guests[guest.number] = guest
        self.counts.started += 1
        if is_ahead:
            self.counts.ahead += 1
        else:
            self._queue.had_its_turn(domain.tenant)
        self.decisions.append(Boot(guest.number, domain))

    def _boot_ahead(self, now: float) -> None:
        """Boot guests for announced compiles, in room that no waiter needs."""
        while next(self._wanting(now), None) is None:
            unused = sum(g.is_unused_ahead and g.serves for g in self._guests.values())
            short = self._announced.short(now, self._places, lambda d: self._serving(d.tenant))
            ready = (d for d in short if self._no_boot_until.get(d, now) <= now)
            domain = next((d for d in ready if self.fits(d)), None)
            if domain is None or unused >= self._limits.ahead_guests:
                return
            self._boot(domain, is_ahead=True)

    def _places(self, domain: TrustDomain) -> int:
        """How many compiles of a domain its guests run or can take."""
        guests = [g for g in self._guests.values() if g.domain == domain]
        return sum(g.places if g.serves else g.refs for g in guests)

    def _make_room(self, now: float) -> None:
        """Make room as the module's text says; guests that are ending serve the first in turn."""
        coming = sum(not g.serves for g in self._guests.values())
        for domain in self._wanting(now):
            if coming:
                coming -= 1
            elif (victim := self._victim_for(domain, now)) is None:
                self._is_short = True
            elif victim.refs:
                victim.phase = GuestPhase.CLOSING
                self._queue.had_its_turn(victim.domain.tenant)
            else:
                self._retire(victim)

    def _victim_for(self, domain: TrustDomain, now: float) -> PooledGuest | None:
        guests = tuple(self._guests.values())
        return choose_victim(domain, guests, self._queue.count, self._limits, now)

    def _serving(self, tenant: TenantId) -> int:
        return serving(tenant, self._guests.values())

    def _free(self, domain: TrustDomain) -> PooledGuest | None:
        """Return the least busy guest; among equals the last used, so that others become idle."""
        fit = (g for g in self._guests.values() if g.domain == domain and g.is_free)
        return min(fit, key=lambda g: (g.refs, -g.idle_since), default=None)

    def _grant(self, waiter: int, guest: PooledGuest) -> None:
        guest.refs += 1
        self.decisions.append(Grant(waiter, guest.number, guest.execs))
        if waiter in self._uncounted:
            self._uncounted.discard(waiter)
            return
        self.counts.ahead_used += guest.is_unused_ahead
        guest.execs += 1
        if guest.domain.is_single_use:
            guest.phase = GuestPhase.CLOSING

    def _displace(self, newcomer: TrustDomain) -> bool:
        """Make a place in a full queue; False if no other share is larger than the newcomer's."""
        youngest = self._queue.youngest_of_the_greediest(newcomer)
        if youngest is None:
            return False
        self._queue.discard(youngest)
        self._refuse(youngest, Refusal.QUEUE_FULL)
        return True

    def _refuse(self, waiter: int, why: Refusal) -> None:
        self._uncounted.discard(waiter)
        self.refused[why] += 1
        self.decisions.append(Refuse(waiter, why))

    def _retire(self, guest: PooledGuest) -> None:
        if guest.phase is not GuestPhase.ENDING:
            guest.phase = GuestPhase.ENDING
            self.decisions.append(Retire(guest.number))
