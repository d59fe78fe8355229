"""Two builds beside each other: what grew, what vanished, which outputs became slower."""

from __future__ import annotations

import json

import pytest

from hpcc.cache.recorder.reading import RecordedBuild
from hpcc.cli.builds.compare_text import comparison_document, comparison_lines
from hpcc.cli.builds.comparison import (
    MAX_UNITS,
    Compared,
    changed_units,
    comparable,
    compared_causes,
    compared_ends,
    compared_places,
    units_of,
)
from hpcc.core.build_summary import MAX_CAUSES, CauseTally, Tally
from hpcc_testkit.cache.recorded import HOSTILE, compile_at, earlier_build, small_build
from hpcc_testkit.services.builds import summary


def test_reasons_that_came_grew_fell_or_went_are_named_and_the_dearest_change_is_first() -> None:
    before = summary("a", causes=(
        CauseTally("missed", "new-command", 9, 90_000), CauseTally("missed", "evicted", 2, 4_000),
        CauseTally("fallback", "parity", 5, 5_000), CauseTally("bypass", "stdin", 1, 0),
    ))  # fmt: skip
    now = summary("b", causes=(
        CauseTally("missed", "inputs-changed", 3, 60_000), CauseTally("missed", "evicted", 2, 9_000),
        CauseTally("fallback", "parity", 4, 7_000), CauseTally("bypass", "stdin", 1, 0),
    ))  # fmt: skip
    found = compared_causes(before, now)
    assert [(c.word, c.change) for c in found] == [
        ("new-command", "gone"), ("inputs-changed", "new"), ("evicted", "longer"),
        ("parity", "fewer"), ("stdin", "same"),
    ]  # fmt: skip
    assert found[0] == Compared("missed", "new-command", 9, 0, 90_000, 0)


def test_ends_and_places_of_only_one_build_have_a_row() -> None:
    before = summary("a", kinds=(Tally("hit", 5, 5),), places=())
    now = summary("b", kinds=(Tally("farm", 2, 50),), places=(Tally("w1", 2, 50),))
    assert [(c.word, c.before, c.now, c.change) for c in compared_ends(before, now)] == [
        ("farm", 0, 2, "new"), ("hit", 5, 0, "gone"),
    ]  # fmt: skip
    assert compared_places(before, now) == [Compared("", "w1", 0, 2, 0, 50)]


def test_outputs_are_compared_by_their_last_compile() -> None:
    found = changed_units(units_of(earlier_build()), units_of(small_build()))
    assert [u.name.rpartition("/")[2] for u in found.slower] == ["here.o"]
    assert [u.name.rpartition("/")[2] for u in found.faster] == ["now.o"]
    assert [u.name.rpartition("/")[2] for u in found.missed] == ["far.o", "bad.o"]
    assert found.counts == {
        "slower": 1, "faster": 1, "missed": 1, "served": 1, "new": 6, "gone": 1,
    }  # fmt: skip
    twice = RecordedBuild(build="x", compiles=(compile_at(0, 900), compile_at(950, 5)))
    assert [u.took_us for u in units_of(twice).values()] == [5_000]
    many = RecordedBuild(
        build="y", compiles=tuple(compile_at(n, n + 1, source=f"/s/{n}.c") for n in range(99))
    )
    lists = changed_units({}, units_of(many))
    assert len(lists.missed) == MAX_UNITS
    assert lists.missed[0].name == "/s/98.o"
    assert lists.counts["new"] == 99


@pytest.mark.parametrize("outcome", ["bypass", "miss.abandoned", "refused"])
def test_of_a_compile_that_hpcc_did_not_see_nothing_is_claimed(outcome: str) -> None:
    unseen = RecordedBuild(build="a", compiles=(compile_at(0, 1, outcome),))
    ran = RecordedBuild(build="b", compiles=(compile_at(0, 900),))
    found = changed_units(units_of(unseen), units_of(ran))
    assert found.missed == found.slower == ()
    assert not any(found.counts.values())


def test_a_terminal_gets_lines_without_control_characters_and_a_script_a_document() -> None:
    odd = RecordedBuild(
        build=HOSTILE, compiles=(compile_at(0, 9, source=f"/x/{HOSTILE}.c", reason=HOSTILE),)
    )
    before, now = (comparable(b) for b in (earlier_build(), odd))
    units = changed_units(units_of(earlier_build()), units_of(odd))
    text = "\n".join(comparison_lines(before, now, units))
    assert all(line.isprintable() for line in text.splitlines())
    assert "not there" in text
    document = json.loads(json.dumps(comparison_document(before, now, units)))
    assert document["units"]["counts"]["gone"] == 5
    assert document["before"]["compiles"] == 5
    assert document["has_all_causes"] is True
    both = (summary(causes=(CauseTally("missed", "x", 1, 1),) * MAX_CAUSES), summary())
    assert "may seem gone" in "\n".join(comparison_lines(*both))
