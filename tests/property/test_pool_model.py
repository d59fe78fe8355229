"""The pool's core under all events that can happen to it, in any order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hpcc.core import GuestReuse, ImageDigest, Isolation, TenantId
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.pool.core import PoolCore
from hpcc.worker.pool.decisions import (
    Boot,
    Decision,
    Grant,
    GuestPhase,
    PoolLimits,
    Refusal,
    Refuse,
    Retire,
)
from hpcc_testkit.suite.examples import examples

IMAGE = ImageDigest("sha256:" + "ab" * 32)
IDLE, SESSION = 60.0, 600.0
# More than any chain of boots, turns and ends that a queue of this size can need.
MANY_STEPS = 2000


def domain(tenant: str, principal: str, reuse: GuestReuse) -> TrustDomain:
    return TrustDomain.of(
        tenant=TenantId(tenant), image=IMAGE, isolation=Isolation.QEMU_TCG,
        reuse=reuse, principal=principal,
    )  # fmt: skip


DOMAINS = [domain(t, p, r) for t in "abc" for p in ("ann", "bob") for r in GuestReuse]


class Pool(RuleBasedStateMachine):
    """Replaces the pool's I/O: carries out decisions on guests and leases, and checks the rules."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.last = 0.0, 0
        self.waiting: dict[int, TrustDomain] = {}
        self.counts: dict[int, bool] = {}
        self.leases: list[tuple[int, int]] = []  # waiter, guest
        self.guests: dict[int, TrustDomain] = {}
        self.booting: set[int] = set()
        self.retiring: set[int] = set()
        self.lost: set[int] = set()
        self.execs: dict[int, int] = {}
        self.is_draining = False

    @initialize(
        guests=st.integers(1, 4), vcpus=st.integers(1, 3), memory=st.integers(1, 5),
        queue=st.integers(1, 12),
    )  # fmt: skip
    def start(self, guests: int, vcpus: int, memory: int, queue: int) -> None:
        self.limits = PoolLimits(
            max_guests=guests, vcpus=vcpus, guest_mib=100, memory_mib=memory * 100 + 50,
            max_queue=queue, idle_seconds=IDLE, session_seconds=SESSION,
        )  # fmt: skip
        self.core = PoolCore(self.limits)

    def act(self) -> None:
        decisions, self.core.decisions = list(self.core.decisions), []
        for decision in decisions:
            self.do(decision)

    def do(self, decision: Decision) -> None:
        match decision:
            case Boot(guest, domain):
                assert not self.is_draining
                assert guest not in self.guests
                self.guests[guest] = domain
                self.booting.add(guest)
                self.execs[guest] = 0
            case Grant(waiter, guest, execs_before):
                assert not self.is_draining
                # Never a guest of another trust domain; each waiter is answered once.
                assert self.waiting.pop(waiter) == self.guests[guest]
                assert guest not in self.booting | self.retiring | self.lost
                assert execs_before == self.execs[guest]
                if self.guests[guest].is_single_use:
                    assert execs_before == 0
                self.execs[guest] += self.counts[waiter]
                self.leases.append((waiter, guest))
            case Refuse(waiter, why):
                self.waiting.pop(waiter)
                if why is Refusal.DRAINING:
                    assert self.is_draining
            case Retire(guest):
                assert guest not in self.retiring
                self.retiring.add(guest)
                if not self.is_draining:
                    assert all(g != guest for _, g in self.leases), "a busy guest is not ended"

    @rule(domain=st.sampled_from(DOMAINS), counts=st.sampled_from([True, True, True, False]))
    def ask(self, domain: TrustDomain, counts: bool) -> None:
        self.last += 1
        self.waiting[self.last], self.counts[self.last] = domain, counts
        self.core.ask(self.last, domain, self.now, counts=counts)
        self.act()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(sorted(self.waiting)))
        del self.waiting[waiter]
        self.core.leave(waiter, self.now)
        self.act()

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        self.leases.remove(lease)
        self.core.release(lease[1], self.now)
        self.act()

    @precondition(lambda self: self.booting)
    @rule(data=st.data(), is_well=st.sampled_from([True, True, False]))
    def boot_ends(self, data: st.DataObject, is_well: bool) -> None:
        guest = data.draw(st.sampled_from(sorted(self.booting)))
        self.booting.discard(guest)
        if is_well:
            self.core.booted(guest, self.now)
        else:
            del self.guests[guest]
            self.retiring.discard(guest)
            self.core.boot_failed(guest, self.now)
        self.act()

    @precondition(lambda self: set(self.guests) - self.booting)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        guest = data.draw(st.sampled_from(sorted(set(self.guests) - self.booting)))
        self.lost.add(guest)
        self.core.lost(guest, self.now)
        self.act()

    @precondition(lambda self: self.retiring | self.lost)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.end_of(data.draw(st.sampled_from(sorted(self.retiring | self.lost))))

    def end_of(self, guest: int) -> None:
        del self.guests[guest]
        for group in (self.booting, self.retiring, self.lost):
            group.discard(guest)
        self.core.ended(guest, self.now)
        self.act()

    @rule(seconds=st.sampled_from([0.0, 0.4, 1.0, 11.0, 61.0, 601.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.core.tick(self.now)
        self.act()

    @precondition(lambda self: not self.is_draining)
    @rule(is_wanted=st.sampled_from([False, False, False, True]))
    def drain(self, is_wanted: bool) -> None:
        if is_wanted:
            self.is_draining = True
            self.core.drain(self.now, 5.0)
            self.act()

    @precondition(lambda self: self.is_draining)
    @rule(is_wanted=st.sampled_from([False, True]))
    def resume(self, is_wanted: bool) -> None:
        if is_wanted:
            self.is_draining = False
            self.core.resume(self.now)
            self.act()

    @invariant()
    def bounds_hold(self) -> None:
        guests = self.core.guests
        assert {g.number for g in guests} == set(self.guests)
        assert len(guests) <= self.limits.max_guests
        assert len(guests) * self.limits.guest_mib <= self.limits.memory_mib
        for guest in guests:
            held = sum(g == guest.number for _, g in self.leases)
            assert guest.refs == held <= guest.places <= self.limits.vcpus
            if guest.domain.is_single_use:
                assert self.execs[guest.number] <= 1
        assert self.core.queued == len(self.waiting) <= self.limits.max_queue
        if self.is_draining:
            assert not self.waiting

    @invariant()
    def what_is_left_waits_for_something(self) -> None:
        """No waiter waits in vain: a place is coming, a lease must end, or a timeout is set."""
        if self.waiting:
            assert self.leases or self.guests or self.core.next_deadline is not None

    def teardown(self) -> None:
        """From any state, further steps answer every waiter, and a drain ends."""
        if not hasattr(self, "core"):
            return
        for _ in range(MANY_STEPS):
            if not self.waiting:
                break
            self.go_on()
        assert not self.waiting, "starved"
        if not self.is_draining:
            self.is_draining = True
            self.core.drain(self.now, 5.0)
            self.act()
        self.now += 5.0
        self.core.tick(self.now)
        self.act()
        assert all(g.phase is GuestPhase.ENDING for g in self.core.guests)
        for guest in sorted(self.guests):
            self.end_of(guest)
        assert not self.core.guests
        assert self.core.next_deadline is None or self.core.next_deadline <= self.now

    def go_on(self) -> None:
        """Do one ordinary step: running work ends, boots finish, time passes."""
        if gone := self.retiring | self.lost:
            self.end_of(min(gone))
        elif self.booting:
            guest = min(self.booting)
            self.booting.discard(guest)
            self.core.booted(guest, self.now)
        elif self.leases:
            self.core.release(self.leases.pop(0)[1], self.now)
        elif (deadline := self.core.next_deadline) is not None:
            self.now = deadline
            self.core.tick(self.now)
        self.act()


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=examples(150), stateful_step_count=40)
