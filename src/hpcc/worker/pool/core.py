"""What a pool of guests does next. Pure: told what happened and when, it says what to do.

A guest belongs to one trust domain from boot to end. Its places are its vCPUs, one place ever with
reuse "exec". Memory is taken from the boot's start until the guest's end was seen.

Under pressure (somebody waits, nothing more may boot) room is made in this order: the idle guest
that was used longest ago; a boot that nobody waits for any more; and, for a domain without any
guest, a busy guest that has had its turn: it takes no further exec and ends with its last one.
"""

from __future__ import annotations

from collections.abc import Iterator

from hpcc.core import TenantId
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.pool.decisions import (
    Boot,
    Decision,
    Grant,
    GuestPhase,
    PooledGuest,
    PoolLimits,
    Refusal,
    Refuse,
    Retire,
)
from hpcc.worker.pool.queue import FairQueue


class PoolCore:
    """Every method is one event at `now`; `decisions` then holds what it led to, in order."""

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        self._queue = FairQueue(limits.max_queue)
        self._guests: dict[int, PooledGuest] = {}
        self._last_guest = 0
        # Waiters whose lease runs nothing of a tenant's.
        self._uncounted: set[int] = set()
        self._no_boot_until: dict[TrustDomain, float] = {}
        self._drained_at: float | None = None
        self._is_short = False
        self._now = 0.0
        self.decisions: list[Decision] = []

    @property
    def guests(self) -> tuple[PooledGuest, ...]:
        """Those that take memory."""
        return tuple(self._guests.values())

    @property
    def running(self) -> int:
        return sum(g.refs for g in self._guests.values())

    @property
    def queued(self) -> int:
        return len(self._queue)

    def ask(self, waiter: int, domain: TrustDomain, now: float, *, counts: bool = True) -> None:
        """A waiter wants a place; numbers ascend. It is answered exactly once, unless it leaves.

        `counts=False`: no tenant's code will run in the lease, so the guest stays unused.
        """
        if self._drained_at is not None:
            self.decisions.append(Refuse(waiter, Refusal.DRAINING))
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

    def leave(self, waiter: int, now: float) -> None:
        """A waiter that has no answer yet wants none any more."""
        self._queue.discard(waiter)
        self._uncounted.discard(waiter)
        self._settle(now)

    def release(self, number: int, now: float) -> None:
        """A lease is over; that of a guest which has ended is of no interest."""
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
        """A guest answers."""
        guest = self._guests[number]
        if guest.phase is GuestPhase.BOOTING:
            guest.phase, guest.ready_at, guest.idle_since = GuestPhase.READY, now, now
        self._settle(now)

    def boot_failed(self, number: int, now: float) -> None:
        """A boot came to nothing, and nothing of it is left."""
        guest = self._guests.pop(number)
        if guest.phase is GuestPhase.BOOTING:
            if any(g.domain == guest.domain and g.serves for g in self._guests.values()):
                self._no_boot_until[guest.domain] = now + self._limits.retry_seconds
            else:
                for waiter in self._queue.clear(guest.domain):
                    self._refuse(waiter, Refusal.BOOT_FAILED)
        self._settle(now)

    def lost(self, number: int, now: float) -> None:
        """A guest died by itself, or is as good as dead; its end is being seen to."""
        guest = self._guests.get(number)
        if guest is not None:
            guest.phase = GuestPhase.ENDING
        self._settle(now)

    def ended(self, number: int, now: float) -> None:
        """Nothing of a guest is left."""
        self._guests.pop(number, None)
        self._settle(now)

    def tick(self, now: float) -> None:
        """Time went by; see `next_deadline`."""
        self._no_boot_until = {d: t for d, t in self._no_boot_until.items() if t > now}
        for guest in list(self._guests.values()):
            is_old = now - guest.ready_at >= self._limits.session_seconds
            if guest.is_idle and (is_old or now - guest.idle_since >= self._limits.idle_seconds):
                self._retire(guest)
            elif guest.phase is GuestPhase.READY and is_old:
                guest.phase = GuestPhase.CLOSING
            elif self._drained_at is not None and now >= self._drained_at:
                self._retire(guest)
        self._settle(now)

    def drain(self, now: float, seconds: float) -> None:
        """Take nothing new; what runs has `seconds` to finish. Over when there are no guests."""
        self._drained_at = now + seconds
        for waiter in self._queue.clear():
            self._refuse(waiter, Refusal.DRAINING)
        for guest in list(self._guests.values()):
            if guest.refs and guest.phase is GuestPhase.READY:
                guest.phase = GuestPhase.CLOSING
            elif guest.serves:
                self._retire(guest)
        self.tick(now)

    @property
    def next_deadline(self) -> float | None:
        """When `tick` will have something to do, if nothing else happens before."""
        limits = self._limits
        times = [t for d, t in self._no_boot_until.items() if self._queue.count(d)]
        if self._drained_at is not None:
            times.append(self._drained_at)
        for guest in self._guests.values():
            if guest.phase is not GuestPhase.READY:
                continue
            times.append(guest.ready_at + limits.session_seconds)
            if guest.is_idle:
                times.append(guest.idle_since + limits.idle_seconds)
            if self._is_short:
                times.append(guest.ready_at + limits.turn_seconds)
                if guest.is_idle:
                    times.append(guest.idle_since + limits.settle_seconds)
        return min((t for t in times if t > self._now), default=None)

    def _settle(self, now: float) -> None:
        """Fill places, start boots, make room; the one place that all events lead to."""
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

    def _wanting(self, now: float) -> Iterator[TrustDomain]:
        """Yield, in turn, domains with more waiters than places that are coming."""
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
        if len(self._guests) >= self._limits.capacity:
            return None
        return next(self._wanting(now), None)

    def _boot(self, domain: TrustDomain) -> None:
        self._last_guest += 1
        places = 1 if domain.is_single_use else self._limits.vcpus
        self._guests[self._last_guest] = PooledGuest(self._last_guest, domain, places)
        self._queue.had_its_turn(domain.tenant)
        self.decisions.append(Boot(self._last_guest, domain))

    def _make_room(self, now: float) -> None:
        """See the module's text; room that is coming is counted against who waits first."""
        coming = sum(not g.serves for g in self._guests.values())
        for domain in self._wanting(now):
            if coming:
                coming -= 1
            elif (victim := self._victim(domain, now)) is None:
                self._is_short = True
            elif victim.refs:
                victim.phase = GuestPhase.CLOSING
                self._queue.had_its_turn(victim.domain.tenant)
            else:
                self._retire(victim)

    def _victim(self, domain: TrustDomain, now: float) -> PooledGuest | None:
        limits, guests = self._limits, self._guests.values()

        def had_its_turn(guest: PooledGuest) -> bool:
            return now - guest.ready_at >= limits.turn_seconds

        idle = [
            g
            for g in guests
            if g.is_idle and (now - g.idle_since >= limits.settle_seconds or had_its_turn(g))
        ]
        if idle:
            return min(idle, key=lambda g: g.idle_since)
        unwanted = (
            g for g in guests if g.phase is GuestPhase.BOOTING and not self._queue.count(g.domain)
        )
        if (victim := next(unwanted, None)) is not None:
            return victim
        if any(g.domain == domain and g.serves for g in guests):
            return None
        mine = self._serving(domain.tenant)
        busy = [
            g
            for g in guests
            if g.phase is GuestPhase.READY
            and had_its_turn(g)
            and (g.domain.tenant == domain.tenant or self._serving(g.domain.tenant) > mine)
        ]
        return max(
            busy, key=lambda g: (self._serving(g.domain.tenant), now - g.ready_at), default=None
        )

    def _serving(self, tenant: TenantId) -> int:
        return sum(g.domain.tenant == tenant and g.serves for g in self._guests.values())

    def _free(self, domain: TrustDomain) -> PooledGuest | None:
        """The least busy guest of a domain; of equals the last used, so that others may go."""
        fit = (g for g in self._guests.values() if g.domain == domain and g.is_free)
        return min(fit, key=lambda g: (g.refs, -g.idle_since), default=None)

    def _grant(self, waiter: int, guest: PooledGuest) -> None:
        guest.refs += 1
        self.decisions.append(Grant(waiter, guest.number, guest.execs))
        if waiter in self._uncounted:
            self._uncounted.discard(waiter)
            return
        guest.execs += 1
        if guest.domain.is_single_use:
            guest.phase = GuestPhase.CLOSING

    def _displace(self, newcomer: TrustDomain) -> bool:
        """Make place in a full queue; False when the newcomer's own share is no smaller."""
        youngest = self._queue.youngest_of_the_greediest(newcomer)
        if youngest is None:
            return False
        self._queue.discard(youngest)
        self._refuse(youngest, Refusal.QUEUE_FULL)
        return True

    def _refuse(self, waiter: int, why: Refusal) -> None:
        self._uncounted.discard(waiter)
        self.decisions.append(Refuse(waiter, why))

    def _retire(self, guest: PooledGuest) -> None:
        if guest.phase is not GuestPhase.ENDING:
            guest.phase = GuestPhase.ENDING
            self.decisions.append(Retire(guest.number))
