"""Guests that start because a build announced compiles, and guests that are parked."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from hpcc.core import GuestReuse, ImageDigest, Isolation, TenantId
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.pool.ahead import EXPECT_SECONDS
from hpcc.worker.pool.core import PoolCore
from hpcc.worker.pool.decisions import Boot, Decision, Grant, PoolCounts, PoolLimits, Retire

LIMITS = PoolLimits(
    max_guests=8, vcpus=2, guest_mib=100, memory_mib=1000, max_queue=100,
    idle_seconds=60.0, session_seconds=600.0, ahead_guests=100,
)  # fmt: skip


def domain(
    tenant: str = "acme", who: str = "ann", reuse: GuestReuse = GuestReuse.PRINCIPAL
) -> TrustDomain:
    return TrustDomain.of(
        tenant=TenantId(tenant), image=ImageDigest("sha256:" + "ab" * 32),
        isolation=Isolation.QEMU_TCG, reuse=reuse, principal=who,
    )  # fmt: skip


ANN, BOB = domain("acme", "ann"), domain("other", "bob")


class Driver:
    """Feeds events to a core and advances its time."""

    def __init__(self, **changes: float) -> None:
        self.core = PoolCore(replace(LIMITS, **changes))
        self.now, self.numbers = 0.0, itertools.count(1)

    def taken(self) -> list[Decision]:
        decisions, self.core.decisions = list(self.core.decisions), []
        return decisions

    def expect(self, of: TrustDomain, count: int) -> list[Decision]:
        self.core.expect(of, count, self.now)
        return self.taken()

    def ask(self, of: TrustDomain) -> list[Decision]:
        self.core.ask(next(self.numbers), of, self.now)
        return self.taken()

    def booted(self, guest: int) -> list[Decision]:
        self.core.booted(guest, self.now)
        return self.taken()

    def ended(self, guest: int) -> list[Decision]:
        self.core.ended(guest, self.now)
        return self.taken()

    def after(self, seconds: float) -> list[Decision]:
        self.now += seconds
        self.core.tick(self.now)
        return self.taken()


def test_a_burst_gets_the_guests_that_it_can_use_before_a_compile_asks() -> None:
    pool = Driver()
    assert pool.expect(ANN, 6) == [Boot(1, ANN), Boot(2, ANN), Boot(3, ANN)]
    assert pool.expect(ANN, 6) == []
    for guest in (1, 2, 3):
        assert pool.booted(guest) == []
    granted = [pool.ask(ANN) for _ in range(6)]
    assert sorted(d.guest for [d] in granted if isinstance(d, Grant)) == [1, 1, 2, 2, 3, 3]
    assert pool.core.counts == PoolCounts(started=3, ahead=3, ahead_used=3)


def test_a_burst_of_64_gets_no_more_guests_than_the_worker_allows() -> None:
    assert len(Driver().expect(ANN, 64)) == 8
    assert len(Driver(memory_mib=350).expect(ANN, 64)) == 3
    assert len(Driver(ahead_guests=2).expect(ANN, 64)) == 2
    assert Driver(ahead_guests=0).expect(ANN, 64) == []


def test_guests_that_the_domain_has_count() -> None:
    pool = Driver()
    assert pool.ask(ANN) == [Boot(1, ANN)]
    assert pool.expect(ANN, 2) == [], "the one that boots has two places"
    pool.booted(1)
    assert pool.expect(ANN, 3) == [Boot(2, ANN)]
    assert pool.expect(BOB, 1) == [Boot(3, BOB)], "no other domain's guest counts"


def test_unused_guests_are_bounded_and_used_ones_make_room_for_more() -> None:
    pool = Driver(ahead_guests=1, vcpus=1)
    assert pool.expect(ANN, 3) == [Boot(1, ANN)]
    assert pool.booted(1) == []
    assert pool.ask(ANN) == [Grant(1, 1, 0)]
    assert pool.expect(ANN, 3) == [Boot(2, ANN)]
    assert pool.expect(ANN, 3) == []


def test_with_reuse_exec_each_announced_compile_gets_a_guest_of_its_own() -> None:
    single = domain(reuse=GuestReuse.EXEC)
    pool = Driver()
    assert len(pool.expect(single, 3)) == 3
    for guest in (1, 2, 3):
        pool.booted(guest)
    assert [pool.ask(single) for _ in range(3)] == [[Grant(n, n, 0)] for n in (1, 2, 3)]
    assert pool.expect(single, 3) == [], "three run, in guests that take nothing more"


def test_tenants_that_announce_together_share_what_becomes_free() -> None:
    pool = Driver(max_guests=4, vcpus=1)
    cat = domain("third", "cat")
    booted = [d for _ in range(4) for d in pool.ask(cat)]
    assert len(booted) == 4
    for guest in (1, 2, 3, 4):
        pool.booted(guest)
        pool.core.release(guest, pool.now)
    assert pool.expect(ANN, 8) == pool.expect(BOB, 8) == []
    for guest in (1, 2, 3, 4):
        pool.core.lost(guest, pool.now)
    assert [pool.ended(guest) for guest in (1, 2, 3, 4)] == [
        [Boot(5, ANN)], [Boot(6, BOB)], [Boot(7, ANN)], [Boot(8, BOB)]
    ]  # fmt: skip


def test_an_announcement_ends_no_guest_and_passes_no_waiter() -> None:
    pool = Driver(max_guests=2, vcpus=1)
    pool.ask(ANN)
    pool.booted(1)
    pool.core.release(1, pool.now)  # idle
    pool.ask(BOB)
    pool.booted(2)
    pool.ask(BOB)  # waits
    pool.now += 0.1
    cat = domain("third", "cat")
    assert pool.expect(cat, 9) == []
    assert pool.after(0.4) == [Retire(1)], "for the one that waits"
    assert pool.ended(1) == [Boot(3, BOB)]
    assert pool.expect(cat, 9) == []


def test_who_waits_gets_the_room_of_a_guest_that_boots_ahead() -> None:
    pool = Driver(max_guests=2, vcpus=1)
    assert pool.expect(ANN, 2) == [Boot(1, ANN), Boot(2, ANN)]
    assert pool.ask(BOB) == [Retire(1)]
    assert pool.ended(1) == [Boot(3, BOB)]
    pool.booted(3)
    assert pool.core.counts == PoolCounts(started=3, ahead=2, ahead_unused=1)


def test_a_compile_that_asks_takes_the_guest_that_boots_ahead() -> None:
    pool = Driver(vcpus=1)
    assert pool.expect(ANN, 1) == [Boot(1, ANN)]
    assert pool.ask(ANN) == []
    assert pool.booted(1) == [Grant(1, 1, 0)]


def test_an_announcement_is_replaced_by_the_next_and_forgotten_after_a_while() -> None:
    pool = Driver(max_guests=1, vcpus=1)
    pool.ask(BOB)
    pool.booted(1)
    assert pool.expect(ANN, 5) == []
    pool.now += EXPECT_SECONDS
    pool.core.lost(1, pool.now)
    assert pool.ended(1) == []
    pool.ask(BOB)
    assert pool.expect(ANN, 5) == pool.expect(ANN, 0) == []
    pool.core.lost(2, pool.now)
    assert pool.ended(2) == [Boot(3, BOB)]


def test_a_boot_ahead_that_failed_is_not_repeated_for_the_same_word() -> None:
    pool = Driver(max_guests=1)
    assert pool.expect(ANN, 5) == [Boot(1, ANN)]
    pool.core.boot_failed(1, pool.now)
    assert pool.taken() == []
    assert pool.ask(ANN) == [Boot(2, ANN)]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_that_drains_starts_nothing_ahead(when: str) -> None:
    pool = Driver(max_guests=1)
    if when == "before":
        pool.ask(BOB)
        pool.expect(ANN, 5)
    pool.core.drain(pool.now, 5.0)
    pool.taken()
    if when == "before":
        assert pool.ended(1) == []
    assert pool.expect(ANN, 5) == []


def idle_guest(pool: Driver, start_seconds: float) -> None:
    """Start a guest in so many seconds, use it once, and leave it idle."""
    pool.ask(ANN)
    pool.now += start_seconds
    pool.booted(1)
    pool.core.release(1, pool.now)


@pytest.mark.parametrize(
    ("start", "held"),
    [(0.01, 5.0), (0.2, 20.0), (0.5, 50.0), (30.0, 60.0)],
    ids=["at-least", "starts", "more-starts", "at-most"],
)
def test_an_idle_guest_is_parked_when_its_memory_has_cost_as_much_as_a_start(
    start: float, held: float
) -> None:
    pool = Driver(park_after_starts=100.0, park_seconds=5.0)
    idle_guest(pool, start)
    assert pool.core.next_deadline == pytest.approx(pool.now + held)
    assert pool.after(held - 0.01) == []
    assert pool.after(0.02) == [Retire(1)]
    assert pool.core.counts.parked == (held < LIMITS.idle_seconds)
    assert pool.ended(1) == []
    assert pool.ask(ANN) == [Boot(2, ANN)], "the next compile has another"


def test_without_a_policy_an_idle_guest_stays_for_idle_seconds() -> None:
    pool = Driver(park_after_starts=0.0, park_seconds=5.0)
    idle_guest(pool, 0.1)
    assert pool.core.next_deadline == pytest.approx(pool.now + LIMITS.idle_seconds)
    pool.after(LIMITS.idle_seconds)
    assert pool.core.counts.parked == 0


def test_the_last_start_of_an_image_decides_for_all_its_guests() -> None:
    """The first guest boots for 30 s. The next is restored: then neither is worth its memory."""
    pool = Driver(park_after_starts=100.0, park_seconds=5.0, vcpus=1)
    pool.ask(ANN)
    pool.now += 30.0
    pool.booted(1)
    pool.ask(BOB)
    pool.now += 0.2
    pool.booted(2)
    for guest in (1, 2):
        pool.core.release(guest, pool.now)
    assert pool.after(20.1) == [Retire(1), Retire(2)]


def test_a_guest_that_is_used_is_not_parked_and_begins_anew() -> None:
    pool = Driver(park_after_starts=100.0, park_seconds=5.0)
    idle_guest(pool, 0.01)
    assert pool.after(4.9) == []
    assert pool.ask(ANN) == [Grant(2, 1, 1)]
    assert pool.after(50.0) == []
    pool.core.release(1, pool.now)
    assert pool.after(4.9) == []
    assert pool.after(0.2) == [Retire(1)]


def test_a_guest_that_started_ahead_and_got_no_compile_is_parked_first() -> None:
    pool = Driver(park_after_starts=100.0, park_seconds=5.0, vcpus=1)
    pool.expect(ANN, 1)
    pool.now += 30.0
    pool.booted(1)
    assert pool.after(5.1) == [Retire(1)]
    pool.ended(1)
    assert pool.core.counts == PoolCounts(started=1, ahead=1, ahead_unused=1, parked=1)
