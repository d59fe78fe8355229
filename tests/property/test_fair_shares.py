"""Fair division: nobody gets more than it wants, no place is idle, the least served comes first."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from hpcc.routing.fair import Cell, Rules, divide, level
from hpcc_testkit.suite.examples import examples

WORKERS, TENANTS, PEOPLE = ("w1", "w2", "w3"), ("acme", "globex"), ("ann", "bob", "cyd")
CELLS = st.tuples(st.sampled_from(WORKERS), st.sampled_from(TENANTS), st.sampled_from(PEOPLE))
WANTS = st.dictionaries(CELLS, st.integers(0, 20), max_size=18)
RULES = st.builds(
    Rules,
    capacities=st.fixed_dictionaries({w: st.integers(1, 12) for w in WORKERS}),
    limits=st.dictionaries(st.sampled_from(TENANTS), st.integers(1, 20)),
    weights=st.dictionaries(st.sampled_from(TENANTS), st.integers(1, 5)),
    turn=st.integers(0, 9),
)


@given(WANTS, RULES)
@settings(max_examples=examples(300))
def test_no_more_than_wanted_and_allowed_and_no_place_is_idle(
    wants: dict[Cell, int], rules: Rules
) -> None:
    given_ = divide(wants, rules)
    assert given_.keys() == wants.keys()
    tenants, workers = Counter[str](), Counter[str]()
    for (worker, tenant, _), places in given_.items():
        tenants[tenant] += places
        workers[worker] += places
    assert all(0 <= given_[cell] <= wants[cell] for cell in wants)
    assert all(tenants[t] <= most for t, most in rules.limits.items())
    for cell, wanted in wants.items():
        worker, tenant, _ = cell
        capacity = rules.capacities[worker]
        if given_[cell] < min(wanted, capacity):
            is_at_limit = tenants[tenant] == rules.limits.get(tenant, -1)
            assert is_at_limit or workers[worker] >= capacity, "a place is idle"


@given(
    st.dictionaries(st.text(max_size=2), st.integers(0, 30), max_size=8),
    st.integers(0, 60),
    st.dictionaries(st.text(max_size=2), st.integers(1, 4)),
)
@settings(max_examples=examples(300))
def test_who_gets_less_than_it_wants_is_served_no_worse_than_others(
    wants: dict[str, int], total: int, weights: dict[str, int]
) -> None:
    given_ = level(wants, total, weights=weights)
    assert sum(given_.values()) == min(total, sum(wants.values()))
    for one, places in given_.items():
        assert places <= wants[one]
        if places < wants[one]:
            for other, theirs in given_.items():
                # One place cannot be divided.
                assert (theirs - 1) * weights.get(one, 1) <= (places + 1) * weights.get(other, 1)


def test_a_flood_gets_what_the_other_leaves() -> None:
    rules = Rules(capacities={"w1": 10})
    assert divide({("w1", "a", "p"): 40, ("w1", "b", "q"): 4}, rules) == {
        ("w1", "a", "p"): 6,
        ("w1", "b", "q"): 4,
    }
    assert divide({("w1", "a", "p"): 40, ("w1", "b", "q"): 0}, rules)["w1", "a", "p"] == 10


def test_a_flood_leaves_the_workers_where_others_wait() -> None:
    """Ten workers of one place. The other tenant wants four of them, and gets those."""
    capacities = {f"w{number}": 1 for number in range(10)}
    wants = {(w, "a", "p"): 40 for w in capacities} | {(f"w{n}", "b", "q"): 1 for n in range(4)}
    places = divide(wants, Rules(capacities=capacities))
    assert [places[f"w{n}", "b", "q"] for n in range(4)] == [1, 1, 1, 1]
    assert [places[f"w{n}", "a", "p"] for n in range(10)] == [0] * 4 + [1] * 6


def test_what_cannot_be_divided_goes_to_others_in_turn() -> None:
    wants = {("w1", "a", person): 5 for person in "pqrst"}
    got = Counter[str]()
    for turn in range(60):
        for (_, _, person), places in divide(wants, Rules(capacities={"w1": 2}, turn=turn)).items():
            got[person] += places
    assert got.total() == 120
    assert set(got.values()) == {24}
