"""Which tests a run takes, what its end prints, and how the lock file is read and written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc_testkit.suite import nightly_lock
from hpcc_testkit.suite.pytest_seconds import Seconds, total
from hpcc_testkit.suite.pytest_selection import LOCK, read_lock, summary, text
from hpcc_testkit.suite.selection import BOUNDS, Item, Kind, choose, stage_of

OWN, IMPORTS = "a" * 16, "b" * 16
BOUND = {Kind.MUTATION: 10.0}


def rows(count: int, seconds: float = 1.0, digest: str = OWN + IMPORTS) -> list[Item]:
    return [Item(f"tests/m.py::t[{i}]", Kind.MUTATION, digest, seconds) for i in range(count)]


def known_of(items: Sequence[Item]) -> dict[str, str]:
    return {i.node_id: i.digest for i in items}


def test_plain_tests_always_run() -> None:
    items = [Item("tests/a.py::t", Kind.PLAIN), Item("tests/b.py::t", Kind.PLAIN)]
    assert choose(items, {}, 0).taken == {i.node_id for i in items}


def test_an_item_that_the_nightly_covered_is_left_out_until_its_hash_changes() -> None:
    (item,) = rows(1)
    assert choose([item], known_of([item]), 0).unchanged == (item.node_id,)
    changed = Item(item.node_id, item.kind, OWN + "c" * 16, 1)
    assert choose([changed], known_of([item]), 0).taken == {item.node_id}


def test_items_that_differ_run_up_to_the_bound() -> None:
    chosen = choose(rows(35), {}, 0, BOUND)
    assert len(chosen.taken) == 10
    assert len(chosen.over_bound) == 25
    assert chosen.unchanged == ()


def test_each_kind_has_its_bound() -> None:
    items = [Item(f"{kind}{i}", kind, OWN + IMPORTS, 60) for kind in BOUNDS for i in range(9)]
    taken = choose(items, {}, 0).taken
    assert {k: sum(n.startswith(k) for n in taken) for k in BOUNDS} == {
        Kind.MUTATION: 2, Kind.WINE: 1, Kind.NESTED: 2, Kind.NIGHTLY: 1
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_items_whose_own_text_changed_come_first(seed: int) -> None:
    items = rows(35)
    known = {i.node_id: OWN + "c" * 16 for i in items[3:]}  # the first three are new
    taken = choose(items, known, seed, BOUND).taken
    assert {i.node_id for i in items[:3]} <= taken
    assert len(taken) == 10


def test_consecutive_seeds_take_every_item_in_turn() -> None:
    items = rows(35)
    turns = [choose(items, {}, seed, BOUND).taken for seed in range(20_000, 20_004)]
    assert frozenset().union(*turns) == {i.node_id for i in items}


def test_an_item_longer_than_the_bound_has_its_turn_too() -> None:
    items = [*rows(5), Item("tests/m.py::long", Kind.MUTATION, OWN + IMPORTS, 99)]
    turns = [choose(items, {}, seed, BOUND).taken for seed in range(3)]
    assert any("tests/m.py::long" in taken for taken in turns)


ITEMS = st.lists(
    st.builds(
        Item, st.text("abc", min_size=1, max_size=3), st.sampled_from(Kind),
        st.sampled_from([OWN + IMPORTS, IMPORTS + OWN]), st.floats(0.1, 200),
    ),
    unique_by=lambda i: i.node_id,
)  # fmt: skip


@given(ITEMS, st.dictionaries(st.text("abc", max_size=2), st.just(OWN + IMPORTS)), st.integers(0))
def test_what_is_taken_and_left_out_is_a_partition_in_any_order(
    items: list[Item], known: dict[str, str], seed: int
) -> None:
    chosen = choose(items, known, seed)
    parts = [*chosen.taken, *chosen.unchanged, *chosen.over_bound]
    assert sorted(parts) == sorted(i.node_id for i in items)
    assert choose(items[::-1], known, seed).taken == chosen.taken


@pytest.mark.parametrize(
    ("node_id", "kind", "stage"),
    [
        ("tests/unit/cache/test_x.py::t", Kind.PLAIN, "fast"),
        ("tests/new/test_x.py::t", Kind.PLAIN, "fast"),
        ("tests/test_x.py::t", Kind.PLAIN, "fast"),
        ("tests/integration/x/test_x.py::t", Kind.PLAIN, "integration"),
        ("tests/integration/x/test_x.py::t", Kind.WINE, "windows"),
        ("tests/vm/test_x.py::t", Kind.PLAIN, "guests"),
        ("tests/e2e/test_x.py::t", Kind.PLAIN, "guests"),
        ("tests/vm/test_x.py::t", Kind.NESTED, "nested"),
        ("tests/mutation/test_x.py::t[vm/e2e]", Kind.MUTATION, "mutation"),
    ],
)
def test_each_test_has_a_stage(node_id: str, kind: Kind, stage: str) -> None:
    assert stage_of(node_id, kind) == stage


def test_the_end_of_a_run_counts_what_was_left_out_by_reason() -> None:
    items = [*rows(300), Item("tests/a.py::t", Kind.PLAIN), Item("tests/w.py::t", Kind.WINE, OWN)]
    known = known_of([*items[:30], items[-1]])
    found = summary(items, choose(items, known, 0), "")
    assert [" ".join(line.split()) for line in text(found)] == [
        "mutation 120 run, 30 unchanged since the nightly, 150 over the bound of 120 s",
        "wine 0 run, 1 unchanged since the nightly, 0 over the bound of 60 s",
    ]
    assert len(found["left"]) == 150


# ---- the lock ----


def test_a_lock_reads_back() -> None:
    known = {"tests/b.py::t[a b]": OWN, "tests/a.py::t[\u2028é]": OWN + IMPORTS}
    written = nightly_lock.render(known)
    assert written.split("\n")[0] == f"{OWN}{IMPORTS} tests/a.py::t[\u2028é]"
    assert nightly_lock.parse(written) == known
    assert nightly_lock.parse("") == {}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("<<<<<<< HEAD", "line 2 is not"),
        ("", "line 2 is not"),
        (f"{OWN[:15]} tests/b.py::t", "line 2 is not"),
        (OWN, "line 2 is not"),
        (f"{OWN.upper()} tests/b.py::t", "line 2 is not"),
        (f"{IMPORTS} tests/a.py::t", "line 2 names a test again"),
    ],
)
def test_a_damaged_lock_is_refused_and_nothing_is_known(
    tmp_path: Path, line: str, said: str
) -> None:
    damaged = f"{OWN} tests/a.py::t\n{line}\n{OWN} tests/c.py::t\n"
    with pytest.raises(nightly_lock.LockError, match=said):
        nightly_lock.parse(damaged)
    (tmp_path / "tests").mkdir()
    (tmp_path / LOCK).write_text(damaged)
    known, problem = read_lock(tmp_path)
    assert known == {}
    assert said in problem
    items = rows(3)
    chosen = choose(items, known, 0)
    assert len(chosen.taken) == 3
    assert text(summary(items, chosen, problem))[0] == problem


def test_a_lock_that_is_not_there_knows_nothing(tmp_path: Path) -> None:
    assert read_lock(tmp_path) == ({}, "")


def test_a_merge_takes_green_hashes_and_drops_items_that_are_gone() -> None:
    known = {"kept": OWN, "gone": OWN, "old": OWN}
    merged = nightly_lock.merge(known, {"old": IMPORTS, "new": IMPORTS}, {"kept", "old", "new"})
    assert merged == {"kept": OWN, "old": IMPORTS, "new": IMPORTS}


# ---- the table of seconds ----


def test_seconds_are_summed_by_directory_and_phase() -> None:
    seconds = Seconds()
    for node_id in ("tests/a/test_x.py::t", "tests/a/test_y.py::t[/]", "tests/b/test_x.py::t"):
        for phase, spent in (("setup", 1), ("call", 10), ("teardown", 2)):
            seconds.add(node_id, phase, spent)
    found = seconds.rows()
    assert found == [("tests/a", 2, 26, 2, 20, 4), ("tests/b", 1, 13, 1, 10, 2)]
    assert total(found) == (3, 39, 3, 30, 6)
