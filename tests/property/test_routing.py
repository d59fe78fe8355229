"""The choice of a worker, compared with a slow model and checked for forbidden outcomes."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcc.core import ImageDigest
from hpcc.routing.fleet import Fleet, Member, RouteRequest
from hpcc.routing.shares import allot, portion
from hpcc_testkit.suite.examples import examples

IMAGES = tuple(ImageDigest("sha256:" + c * 64) for c in "abc")
NOW = 100.0


@st.composite
def members(draw: st.DrawFn) -> list[Member]:
    return [
        Member(
            worker_id=f"w{number}",
            generation=number + 1,
            rank=draw(st.sampled_from([0, 2, 3])),
            capacity=draw(st.integers(1, 8)),
            images=draw(st.frozensets(st.sampled_from(IMAGES))),
            lease_until=NOW + draw(st.sampled_from([-1.0, 0.0, 1.0, 10.0])),
            running=draw(st.integers(0, 20)),
            losses=draw(st.sampled_from([0.0, 1.0, 50.0])),
            is_stale=draw(st.booleans()),
        )
        for number in range(draw(st.integers(0, 24)))
    ]


wishes = st.builds(
    RouteRequest,
    image=st.sampled_from(IMAGES),
    rank=st.sampled_from([0, 2, 3]),
    home=st.integers(0, (1 << 64) - 1),
    last=st.sampled_from(["", "w0", "w5", "nobody"]),
    failed_generation=st.sampled_from([0, 1, 6, 99]),
)


def fleet_of(listed: list[Member]) -> Fleet:
    fleet = Fleet()
    for member in listed:
        fleet.put(member)
    return fleet


def worker(name: str, **changes: object) -> Member:
    values: dict[str, object] = {
        "worker_id": name, "generation": 1, "rank": 3, "capacity": 4,
        "images": frozenset(IMAGES[:1]), "lease_until": NOW + 10,
    }  # fmt: skip
    return Member(**{**values, **changes})  # type: ignore[arg-type]  # built by name just above


def request(home: int = 0, **changes: object) -> RouteRequest:
    return RouteRequest(image=IMAGES[0], rank=0, home=home, **changes)  # type: ignore[arg-type]  # likewise


@given(members(), wishes, st.randoms(use_true_random=False))
def test_a_choice_is_fit_and_there_is_one_whenever_a_worker_is_fit(
    listed: list[Member], asked: RouteRequest, chance: random.Random
) -> None:
    chosen = fleet_of(listed).choose(asked, NOW, chance.randrange)
    fit = [
        m for m in listed
        if m.lease_until > NOW and m.rank >= asked.rank and asked.image in m.images
    ]  # fmt: skip
    assert (chosen is None) == (not fit)
    if chosen is not None:
        assert chosen in fit
        others = [m for m in fit if m.generation != asked.failed_generation]
        # Where it just failed is the last resort.
        assert chosen.generation != asked.failed_generation or not others


@given(members(), wishes, st.randoms(use_true_random=False))
def test_a_hint_never_leads_to_a_worker_that_is_full_while_the_drawn_one_is_not(
    listed: list[Member], asked: RouteRequest, chance: random.Random
) -> None:
    fleet = fleet_of(listed[:8])  # small: the best of all is drawn
    chosen = fleet.choose(asked, NOW, chance.randrange)
    good = [
        m.cost for m in listed[:8]
        if m.lease_until > NOW and m.rank >= asked.rank and asked.image in m.images
        and m.generation != asked.failed_generation
    ]  # fmt: skip
    if chosen is not None and good:
        assert chosen.cost < 1.0 or chosen.cost <= 2 * min(good)


@given(st.integers(0, (1 << 64) - 1), st.integers(2, 200))
def test_equal_wishes_come_to_one_worker_at_every_scheduler(home: int, count: int) -> None:
    listed = [worker(f"w{n}", generation=n + 1) for n in range(count)]
    one, other = fleet_of(listed), fleet_of(list(reversed(listed)))
    a = one.choose(request(home), NOW, random.Random(1).randrange)
    b = other.choose(request(home), NOW, random.Random(2).randrange)
    assert a is b is not None


@given(st.integers(0, (1 << 64) - 1), st.integers(9, 64), st.integers(0, 63))
def test_who_has_a_worker_keeps_it_at_every_scheduler(home: int, count: int, last: int) -> None:
    listed = [worker(f"w{n}", generation=n + 1) for n in range(count)]
    name = f"w{last % count}"
    chosen = fleet_of(listed).choose(request(home, last=name), NOW, random.Random(home).randrange)
    assert chosen is not None
    assert chosen.worker_id == name


@given(members(), wishes, st.randoms(use_true_random=False), st.sampled_from(["w0", "w3", "w9"]))
def test_a_preferred_worker_is_taken_however_full_and_only_if_it_is_fit(
    listed: list[Member], asked: RouteRequest, chance: random.Random, name: str
) -> None:
    asked = replace(asked, preferred=name)
    chosen = fleet_of(listed).choose(asked, NOW, chance.randrange)
    is_good = any(
        m.worker_id == name and m.lease_until > NOW and m.rank >= asked.rank
        and asked.image in m.images and m.generation != asked.failed_generation
        for m in listed
    )  # fmt: skip
    assert not is_good or (chosen is not None and chosen.worker_id == name)


@settings(max_examples=examples(20))
@given(st.integers(0, 1 << 32), st.integers(10, 120))
def test_many_routes_fill_no_worker_far_beyond_the_mean(seed: int, count: int) -> None:
    chance = random.Random(seed)
    listed = [
        worker(f"w{n}", generation=n + 1, capacity=chance.choice([2, 4, 8])) for n in range(count)
    ]
    fleet = fleet_of(listed)
    total = 3 * sum(m.capacity for m in listed)
    for _ in range(total):
        chosen = fleet.choose(request(chance.getrandbits(64)), NOW, chance.randrange)
        assert chosen is not None
        chosen.routed += 1
    assert sum(m.routed for m in listed) == total
    # Three times full on the mean; affinity may hold twice what the other candidates have.
    assert max(m.cost for m in listed) <= 9.0


def test_one_that_lost_guests_or_was_not_heard_of_is_passed_over() -> None:
    for sick in (worker("w1", losses=3.0), worker("w1", is_stale=True)):
        fleet = fleet_of([sick, worker("w2", generation=2, running=2)])
        for home in range(20):
            chosen = fleet.choose(request(home, last="w1"), NOW, random.Random(home).randrange)
            assert chosen is not None
            assert chosen.worker_id == "w2"


@pytest.mark.parametrize("count", [1, 8, 9, 500])
def test_the_only_fit_one_is_found_among_many(count: int) -> None:
    listed = [worker(f"w{n}", generation=n + 2, rank=0) for n in range(count)]
    fleet = fleet_of([*listed, worker("wx", rank=3)])
    asked = RouteRequest(image=IMAGES[0], rank=3, home=5)
    chosen = fleet.choose(asked, NOW, random.Random(3).randrange)
    assert chosen is not None
    assert chosen.worker_id == "wx"


class Looked(dict[str, Member]):
    """Members that count how often one is looked at."""

    looks = 0

    def __getitem__(self, worker_id: str) -> Member:
        self.looks += 1
        return super().__getitem__(worker_id)

    def get(self, worker_id: str, default: object = None) -> Member | None:  # type: ignore[override]  # as `Fleet` calls it
        self.looks += 1
        return super().get(worker_id)


@pytest.mark.parametrize("count", [10, 100, 1000, 10_000])
def test_a_choice_looks_at_few_workers_however_many_there_are(count: int) -> None:
    listed = [worker(f"w{n}", generation=n + 2, running=n % 3) for n in range(count)]
    fleet = fleet_of(listed)
    looked = fleet._members = Looked(fleet._members)
    for home in range(20):
        before = looked.looks
        asked = request(home, last="w1", preferred="w2")
        first = fleet.choose(asked, NOW, random.Random(home).randrange)
        assert first is not None
        assert looked.looks - before <= 6
        before = looked.looks
        fleet.further(asked, first, NOW, 15)
        assert looked.looks - before <= 15 * 8


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.frozensets(st.sampled_from(IMAGES)))))
def test_what_came_and_went_leaves_nothing(steps: list[tuple[str, frozenset[ImageDigest]]]) -> None:
    fleet, model = Fleet(), dict[str, frozenset[ImageDigest]]()
    for name, images in steps:
        if name in model and not images:
            assert fleet.drop(name) is not None
            del model[name]
        else:
            fleet.put(worker(name, images=images))
            model[name] = images
        assert len(fleet) == len(model)
        for image in IMAGES:
            chosen = fleet.choose(RouteRequest(image=image, rank=0, home=1), NOW, lambda _: 0)
            assert (chosen is None) == (not any(image in held for held in model.values()))


@given(members(), wishes, st.integers(1, 31), st.randoms(use_true_random=False))
def test_further_workers_are_good_different_and_not_the_first(
    listed: list[Member], asked: RouteRequest, most: int, chance: random.Random
) -> None:
    fleet = fleet_of(listed)
    first = fleet.choose(asked, NOW, chance.randrange)
    if first is None:
        return
    found = fleet.further(asked, first, NOW, most)
    assert len(found) <= most
    assert len({m.worker_id for m in (first, *found)}) == len(found) + 1
    for member in found:
        assert not member.is_stale or member.worker_id in asked.warm
        assert member.lease_until > NOW
        assert member.rank >= asked.rank
        assert asked.image in member.images
        assert member.generation != asked.failed_generation
    good = [
        m for m in listed
        if m.lease_until > NOW and m.rank >= asked.rank and asked.image in m.images
        and m.generation != asked.failed_generation and m is not first
        and (not m.is_stale or m.worker_id in asked.warm)
    ]  # fmt: skip
    if most >= len(listed):
        assert len(found) == len(good), "in a small farm all are used"
    full = [m.cost >= 1.0 for m in found if m.worker_id not in asked.warm]
    assert full == sorted(full), "those with room come first"


def test_the_workers_that_have_the_inputs_come_first() -> None:
    fleet = fleet_of([worker(f"w{n}") for n in range(6)])
    first = fleet.get("w0")
    assert first is not None
    found = fleet.further(request(warm=("w4", "w2", "nobody")), first, NOW, 3)
    assert [m.worker_id for m in found][:2] == ["w4", "w2"]
    assert len(found) == 3


def test_two_machines_of_one_person_get_the_same_workers_in_the_same_order() -> None:
    listed = [worker(f"w{n:03}") for n in range(300)]
    one, other = fleet_of(listed), fleet_of(list(reversed(listed)))
    for home in (1, 7 << 40, (1 << 64) - 1):
        first = listed[0]
        found = [
            [m.worker_id for m in fleet.further(request(home), first, NOW, 8)]
            for fleet in (one, other)
        ]
        assert found[0] == found[1]
        assert len(found[0]) == 8


def test_a_full_worker_comes_after_those_with_room() -> None:
    fleet = fleet_of([worker("w0"), worker("w1", running=4), worker("w2")])
    first = fleet.get("w0")
    assert first is not None
    assert [m.worker_id for m in fleet.further(request(), first, NOW, 2)] == ["w2", "w1"]


@given(
    st.lists(st.integers(1, 64), min_size=1, max_size=32), st.integers(0, 500), st.integers(0, 200)
)
def test_shares_never_exceed_capacity_or_quota(
    capacities: list[int], wanted: int, limit: int
) -> None:
    slots = allot(capacities, wanted, limit)
    assert 1 <= len(slots) <= len(capacities)
    assert all(0 < s <= c for s, c in zip(slots, capacities, strict=False))
    if limit:
        assert sum(slots) <= limit
    assert len(slots) == 1 or sum(slots[:-1]) < wanted, "no route that is not needed"


@given(st.integers(0, 1 << 50), st.lists(st.integers(1, 64), min_size=1, max_size=32))
def test_portions_sum_up_to_the_amount_at_most(amount: int, slots: list[int]) -> None:
    parts = [portion(amount, s, sum(slots)) for s in slots]
    assert all(parts) == bool(amount)
    assert sum(parts) <= max(amount, len(slots))
