"""Guests of several sizes: the sum of their memory is what counts."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

from hpcc.core import GuestMitigations, GuestReuse, ImageDigest, Isolation, TenantId
from hpcc.worker.base.config import WorkerConfig
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.pool.core import PoolCore
from hpcc.worker.pool.decisions import Boot, Decision, PoolLimits, Retire
from hpcc.worker.pool.guests import limits_of, shape_of

SMALL, LARGE = (ImageDigest("sha256:" + digits * 32) for digits in ("ab", "cd"))
LIMITS = PoolLimits(
    max_guests=8, vcpus=1, guest_mib=100, memory_mib=650, max_queue=100,
    idle_seconds=60.0, session_seconds=600.0, ahead_guests=8, mib_by_image={LARGE: 300},
)  # fmt: skip


def domain(image: ImageDigest, who: str = "ann") -> TrustDomain:
    return TrustDomain.of(
        tenant=TenantId(who), image=image, isolation=Isolation.QEMU_TCG,
        reuse=GuestReuse.PRINCIPAL, principal=who,
    )  # fmt: skip


class Driver:
    """Feeds events to a core; its time stands still."""

    def __init__(self, **changes: int) -> None:
        self.core, self.numbers = PoolCore(replace(LIMITS, **changes)), itertools.count(1)

    def taken(self) -> list[Decision]:
        decisions, self.core.decisions = list(self.core.decisions), []
        return decisions

    def ask(self, of: TrustDomain) -> list[Decision]:
        self.core.ask(next(self.numbers), of, 0.0)
        return self.taken()


def test_memory_and_not_the_number_bounds_guests_of_several_sizes() -> None:
    pool = Driver()
    large, small = domain(LARGE), domain(SMALL)
    booted = [d for _ in range(3) for d in pool.ask(large)]
    assert booted == [Boot(1, large), Boot(2, large)], "600 of 650"
    assert pool.ask(small) == []
    many = Driver()
    assert len([d for _ in range(9) for d in many.ask(small)]) == 6


def test_a_small_guest_does_not_pass_a_large_one_that_waits() -> None:
    pool = Driver(memory_mib=350)
    small, large, other = domain(SMALL, "ann"), domain(LARGE, "bob"), domain(SMALL, "cat")
    assert pool.ask(small) == [Boot(1, small)]
    pool.core.booted(1, 0.0)
    pool.taken()
    assert pool.ask(large) == []
    assert pool.ask(other) == [], "it would fit, and the large one would never have its turn"
    pool.core.lost(1, 0.0)
    pool.core.ended(1, 0.0)
    assert pool.taken() == [Boot(2, large)]


def test_a_large_guest_gets_the_room_of_several_small_ones() -> None:
    pool = Driver(memory_mib=350)
    small, large = domain(SMALL), domain(LARGE, "bob")
    for guest in (1, 2, 3):
        pool.ask(small)
        pool.core.booted(guest, 0.0)
    for guest in (1, 2, 3):
        pool.core.release(guest, 0.0)
    pool.taken()
    pool.ask(large)
    now, ended = 1.0, []
    for _ in range(3):
        pool.core.tick(now)
        decisions = pool.taken()
        for decision in decisions:
            if isinstance(decision, Boot):
                assert decision.domain == large
                assert len(ended) == 3
                return
            assert isinstance(decision, Retire)
            ended.append(decision.guest)
            pool.core.ended(decision.guest, now)
    assert pool.taken() == [Boot(4, large)]


def test_what_is_announced_fits_by_its_size() -> None:
    pool = Driver()
    pool.core.expect(domain(LARGE), 8, 0.0)
    assert pool.taken() == [Boot(1, domain(LARGE)), Boot(2, domain(LARGE))]


def test_the_configuration_says_the_sizes() -> None:
    config = WorkerConfig(
        worker_id="w1", scheduler="127.0.0.1:1", scheduler_certificate_pem="",
        image_digests=(SMALL.value, LARGE.value), guest_memory_by_image={LARGE.value: 4096},
        memory_mib=16_384, max_guests=9,
        **{name: Path("/x") for name in ("keys", "store", "audit", "images", "guest_assets", "state")},
    )  # fmt: skip
    limits = limits_of(config)
    assert (limits.cost_mib(SMALL), limits.cost_mib(LARGE)) == (1024 + 512, 4096 + 512)
    assert limits.capacity == 3, "of the largest"
    assert [shape_of(config).memory_of(i) for i in (SMALL, LARGE)] == [1024, 4096]
    assert shape_of(config).mitigations is GuestMitigations.AUTO
    told = replace(config, guest_mitigations="on")
    assert shape_of(told).mitigations is GuestMitigations.ON
