"""The pool's decisions: who gets which guest, which guest makes room, and who is refused."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import pytest

from hpcc.core import GuestReuse, ImageDigest, Isolation, TenantId
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.pool.core import PoolCore
from hpcc.worker.pool.decisions import Boot, Decision, Grant, PoolLimits, Refusal, Refuse, Retire

IMAGE = ImageDigest("sha256:" + "ab" * 32)
LIMITS = PoolLimits(
    max_guests=2, vcpus=2, guest_mib=100, memory_mib=1000, max_queue=100,
    idle_seconds=60.0, session_seconds=600.0,
)  # fmt: skip


def domain(
    tenant: str = "acme", who: str = "ann", reuse: GuestReuse = GuestReuse.PRINCIPAL
) -> TrustDomain:
    return TrustDomain.of(
        tenant=TenantId(tenant), image=IMAGE, isolation=Isolation.QEMU_TCG,
        reuse=reuse, principal=who,
    )  # fmt: skip


class Driver:
    """Feeds events to a core and advances its time."""

    def __init__(self, **changes: float) -> None:
        self.core = PoolCore(replace(LIMITS, **changes))
        self.now = 0.0
        self.numbers = itertools.count(1)

    def taken(self) -> list[Decision]:
        decisions, self.core.decisions = list(self.core.decisions), []
        return decisions

    def ask(self, of: TrustDomain) -> list[Decision]:
        self.core.ask(next(self.numbers), of, self.now)
        return self.taken()

    def booted(self, guest: int) -> list[Decision]:
        self.core.booted(guest, self.now)
        return self.taken()

    def release(self, guest: int) -> list[Decision]:
        self.core.release(guest, self.now)
        return self.taken()

    def ended(self, guest: int) -> list[Decision]:
        self.core.ended(guest, self.now)
        return self.taken()

    def after(self, seconds: float) -> list[Decision]:
        self.now += seconds
        self.core.tick(self.now)
        return self.taken()


ANN, BOB, CAT = domain(who="ann"), domain(who="bob"), domain(who="cat")


def test_a_guest_takes_as_many_compiles_as_it_has_vcpus() -> None:
    pool = Driver()
    assert pool.ask(ANN) == [Boot(1, ANN)]
    assert pool.ask(ANN) == []
    assert pool.booted(1) == [Grant(1, 1, 0), Grant(2, 1, 1)]
    assert pool.ask(ANN) == [Boot(2, ANN)]
    assert pool.release(1) == [Grant(3, 1, 2)]


def test_principals_never_share_a_guest() -> None:
    pool = Driver()
    assert pool.ask(ANN) == [Boot(1, ANN)]
    pool.booted(1)
    pool.release(1)
    assert pool.ask(BOB) == [Boot(2, BOB)]


def test_members_share_a_guest_only_where_reuse_is_tenant() -> None:
    ann, bob = (domain(who=w, reuse=GuestReuse.TENANT) for w in ("ann", "bob"))
    pool = Driver()
    pool.ask(ann)
    pool.booted(1)
    assert pool.ask(bob) == [Grant(2, 1, 1)]


def test_with_reuse_exec_a_guest_runs_one_compile_and_ends() -> None:
    single = domain(reuse=GuestReuse.EXEC)
    pool = Driver()
    assert pool.ask(single) == [Boot(1, single)]
    assert pool.ask(single) == [Boot(2, single)]
    assert pool.booted(1) == [Grant(1, 1, 0)]
    assert pool.release(1) == [Retire(1)]
    assert pool.booted(2) == [Grant(2, 2, 0)]


def test_a_prewarmed_guest_counts_as_unused_also_with_reuse_exec() -> None:
    single = domain(reuse=GuestReuse.EXEC)
    pool = Driver()
    pool.core.ask(next(pool.numbers), single, 0.0, counts=False)
    assert pool.taken() == [Boot(1, single)]
    assert pool.booted(1) == [Grant(1, 1, 0)]
    assert pool.release(1) == []
    assert pool.ask(single) == [Grant(2, 1, 0)]


def test_memory_bounds_the_guests_whatever_max_guests_says() -> None:
    pool = Driver(max_guests=8, memory_mib=250, vcpus=1)
    booted = [d for _ in range(8) for d in pool.ask(ANN)]
    assert booted == [Boot(1, ANN), Boot(2, ANN)]


def test_memory_is_free_only_when_the_end_was_seen() -> None:
    pool = Driver(max_guests=1)
    pool.ask(ANN)
    pool.booted(1)
    pool.release(1)
    pool.ask(BOB)
    assert pool.after(1.0) == [Retire(1)]
    assert pool.ended(1) == [Boot(2, BOB)]


def test_an_idle_guest_ends_after_a_while_and_a_used_one_does_not() -> None:
    pool = Driver()
    pool.ask(ANN)
    pool.booted(1)
    assert pool.after(61.0) == []
    pool.release(1)
    assert pool.core.next_deadline == pool.now + 60.0
    assert pool.after(60.0) == [Retire(1)]


def test_a_busy_guest_is_looked_at_when_its_session_ends() -> None:
    pool = Driver()
    pool.now = 1000.0
    pool.ask(ANN)
    assert pool.core.next_deadline is None, "a boot has its own limit"
    pool.now += 7.0
    pool.booted(1)
    ready_at = pool.now
    assert pool.core.next_deadline == ready_at + LIMITS.session_seconds
    assert pool.after(LIMITS.session_seconds - 1.0) == []
    assert pool.core.next_deadline == ready_at + LIMITS.session_seconds
    assert pool.after(1.0) == []
    assert pool.core.next_deadline is None, "it ends with its last compile"


def test_an_idle_guest_ends_with_its_session_if_that_is_sooner() -> None:
    pool = Driver(session_seconds=100.0)
    pool.ask(ANN)
    pool.booted(1)
    pool.now += 90.0
    pool.release(1)
    assert pool.core.next_deadline == 100.0
    assert pool.after(9.0) == []
    assert pool.after(1.0) == [Retire(1)]


def test_an_old_guest_ends_with_its_last_compile_and_takes_no_other() -> None:
    pool = Driver()
    pool.ask(ANN)
    pool.booted(1)
    assert pool.after(600.0) == []
    assert pool.ask(ANN) == [Boot(2, ANN)]
    assert pool.release(1) == [Retire(1)]


def test_the_idle_guest_that_was_used_longest_ago_makes_room() -> None:
    pool = Driver()
    for guest, who in enumerate([ANN, BOB], 1):
        pool.ask(who)
        pool.booted(guest)
        pool.release(guest)
        pool.after(1.0)
    pool.ask(ANN)
    pool.release(1)
    pool.after(1.0)
    assert pool.ask(CAT) == [Retire(2)]


def test_a_guest_between_two_compiles_of_a_build_is_not_taken_at_once() -> None:
    pool = Driver(max_guests=1)
    pool.ask(ANN)
    pool.booted(1)
    pool.release(1)
    assert pool.ask(BOB) == []
    assert pool.core.next_deadline == pool.now + LIMITS.settle_seconds
    assert pool.ask(ANN) == [Grant(3, 1, 1)]
    pool.release(1)
    assert pool.after(LIMITS.settle_seconds) == [Retire(1)]


def test_a_guest_that_is_never_idle_gives_way_after_its_turn() -> None:
    pool = Driver(max_guests=1, vcpus=1)
    pool.ask(ANN)
    pool.booted(1)
    pool.ask(BOB)
    for _ in range(4):
        pool.ask(ANN)
    assert pool.after(LIMITS.turn_seconds) == []
    assert pool.release(1) == [Retire(1)]
    assert pool.ended(1) == [Boot(2, BOB)]


class World(Driver):
    """A driver whose boots succeed and whose compiles end with each `step`."""

    def __init__(self, **changes: float) -> None:
        super().__init__(**changes)
        self.busy: set[int] = set()
        self.waiting: dict[int, str] = {}
        self.served: Counter[str] = Counter()

    def wants(self, of: TrustDomain) -> None:
        number = next(self.numbers)
        self.waiting[number] = of.tenant.value
        self.core.ask(number, of, self.now)
        self.act(self.taken())

    def act(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Boot(guest):
                    self.act(self.booted(guest))
                case Grant(waiter, guest):
                    self.busy.add(guest)
                    self.served[self.waiting.pop(waiter)] += 1
                case Refuse(waiter):
                    self.waiting.pop(waiter)
                case Retire(guest):
                    self.act(self.ended(guest))

    def step(self) -> None:
        self.act(self.after(1.0))
        done, self.busy = sorted(self.busy), set()
        for guest in done:
            self.act(self.release(guest))


@pytest.mark.parametrize("principals", [2, 8], ids=["always-busy", "in-turns"])
@pytest.mark.parametrize("others", [("small",), ("small", "third")])
def test_a_tenant_that_floods_starves_nobody(others: tuple[str, ...], principals: int) -> None:
    """One tenant always fills the queue; the others still get their turns."""
    world = World(max_guests=2, vcpus=1, max_queue=40)
    flood = itertools.cycle(domain("flood", f"p{i}") for i in range(principals))
    for _ in range(600):
        while len(world.waiting) < 39:
            world.wants(next(flood))
        for tenant in set(others) - set(world.waiting.values()):
            world.wants(domain(tenant))
        world.step()
    # 600 s are 60 turns on each of two guests.
    assert all(world.served[t] >= 20 for t in others), world.served


def test_a_full_queue_makes_place_for_who_has_none_of_it() -> None:
    pool = Driver(max_guests=1, vcpus=1, max_queue=4)
    flood, small = domain("flood"), domain("small")
    pool.ask(flood)
    pool.booted(1)
    for _ in range(4):
        assert pool.ask(flood) == []
    assert pool.ask(flood) == [Refuse(6, Refusal.QUEUE_FULL)]
    assert pool.ask(small) == [Refuse(5, Refusal.QUEUE_FULL)]
    # Two places each now: nobody holds so much more that a newcomer would put him out.
    assert pool.ask(small) == [Refuse(4, Refusal.QUEUE_FULL)]
    assert pool.ask(small) == [Refuse(9, Refusal.QUEUE_FULL)]


def test_a_principal_that_floods_makes_place_for_a_colleague() -> None:
    pool = Driver(max_guests=1, vcpus=1, max_queue=4)
    pool.ask(ANN)
    pool.booted(1)
    for _ in range(4):
        pool.ask(ANN)
    assert pool.ask(BOB) == [Refuse(5, Refusal.QUEUE_FULL)]


def test_who_waits_hears_of_a_boot_that_failed_unless_another_guest_serves() -> None:
    pool = Driver(vcpus=1)
    pool.ask(ANN)
    pool.ask(ANN)
    pool.core.boot_failed(1, pool.now)
    assert pool.taken() == []
    pool.core.boot_failed(2, pool.now)
    assert pool.taken() == [Refuse(1, Refusal.BOOT_FAILED), Refuse(2, Refusal.BOOT_FAILED)]


def test_a_boot_that_failed_beside_a_guest_is_tried_again_later() -> None:
    pool = Driver(vcpus=1)
    pool.ask(ANN)
    pool.ask(ANN)
    pool.booted(1)
    pool.core.boot_failed(2, pool.now)
    assert pool.taken() == []
    assert pool.after(LIMITS.retry_seconds) == [Boot(3, ANN)]


def test_a_lost_guest_takes_nobody_and_its_room_comes_with_its_end() -> None:
    pool = Driver(max_guests=1)
    pool.ask(ANN)
    pool.booted(1)
    pool.core.lost(1, pool.now)
    assert pool.ask(ANN) == []
    assert pool.ended(1) == [Boot(2, ANN)]
    assert pool.release(1) == []


def test_a_boot_that_nobody_waits_for_any_more_makes_room() -> None:
    pool = Driver(max_guests=1)
    pool.ask(ANN)
    pool.core.leave(1, pool.now)
    assert pool.taken() == []
    assert pool.ask(BOB) == [Retire(1)]


def test_a_drain_refuses_what_is_new_and_ends_what_is_idle_at_once() -> None:
    pool = Driver(vcpus=1)
    for guest, who in enumerate([ANN, BOB], 1):
        pool.ask(who)
        pool.booted(guest)
    pool.release(2)
    pool.ask(ANN)
    pool.core.drain(pool.now, 5.0)
    assert pool.taken() == [Refuse(3, Refusal.DRAINING), Retire(2)]
    assert pool.ask(ANN) == [Refuse(4, Refusal.DRAINING)]
    assert pool.release(1) == [Retire(1)]


def test_a_drain_ends_what_runs_when_its_time_is_over() -> None:
    pool = Driver()
    pool.ask(ANN)
    pool.booted(1)
    pool.core.drain(pool.now, 5.0)
    assert pool.taken() == []
    assert pool.core.next_deadline == 5.0
    assert pool.after(5.0) == [Retire(1)]
