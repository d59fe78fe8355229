"""Where keys meet: the same for all who know the same names, and little moves when one changes."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from hpcc.routing.rendezvous import rendezvous

KEYS = [f"{n:064x}" for n in range(400)]
NAMES = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=12, unique=True)


@given(NAMES, st.text(max_size=8), st.randoms())
def test_the_order_of_names_is_irrelevant_and_only_a_newcomers_keys_move(
    names: list[str], new: str, random: Random
) -> None:
    before = {key: rendezvous(key, names) for key in KEYS[:40]}
    random.shuffle(names)
    assert before == {key: rendezvous(key, names) for key in before}
    for key, name in before.items():
        assert rendezvous(key, [*names, new]) in {name, new}
        rest = [x for x in names if x != name]
        assert rendezvous(key, [*rest, name]) == name


def test_keys_spread_evenly_and_no_name_is_no_place() -> None:
    names = ["w1", "w2", "w3", "w4"]
    counts = [sum(rendezvous(key, names) == name for key in KEYS) for name in names]
    assert min(counts) > len(KEYS) / 4 * 0.75
    assert rendezvous(KEYS[0], []) == ""
