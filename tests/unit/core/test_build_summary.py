"""What a client may tell of a build, and what several tell of one."""

from __future__ import annotations

import json

import pytest

from hpcc.cli.builds.farm_words import instead_of
from hpcc.core import CallerError
from hpcc.core.build_lanes import MAX_BARS, MAX_LANES, LaneBar, LaneRow
from hpcc.core.build_merge import merged
from hpcc.core.build_summary import (
    BINS,
    HEAD_BINS,
    HEAD_CAUSES,
    MAX_AT_MS,
    MAX_CAUSES,
    MAX_KINDS,
    MAX_NUMBER,
    MAX_PLACES,
    MAX_SLOWEST,
    Activity,
    CauseTally,
    SlowCompile,
    Tally,
    summary_of_table,
    word_of,
)
from hpcc_testkit.services.builds import BEGAN_MS, summary


def test_a_summary_goes_through_json_as_it_is() -> None:
    said = summary()
    assert summary_of_table(json.loads(json.dumps(said.table()))) == said
    assert said.compiles == 14
    head = said.head()
    assert (head.kinds, head.causes, head.places, head.phases, head.slowest) == (
        said.kinds, said.causes[:2], (), (), said.slowest[:1],
    )  # fmt: skip
    assert len(head.activity) == HEAD_BINS
    whole, few = (tuple(map(sum, zip(*s.activity, strict=True))) for s in (said, head))
    assert few == whole
    assert summary(activity=said.activity[:7]).head().activity == said.activity[:7]
    assert summary(activity=said.activity[:47]).head().activity == (), "no equal parts"


def test_a_list_counts_what_the_farm_should_have_done_as_the_build_does() -> None:
    many = tuple(CauseTally("fallback", f"w{n}", 20 - n, 1) for n in range(HEAD_CAUSES + 3))
    causes = (*many, CauseTally("refused", "no-worker", 1, 3), CauseTally("bypass", "link", 99, 0))
    head = summary(causes=causes).head()
    assert head.causes == (
        *many[:HEAD_CAUSES], CauseTally("fallback", "other", 12 + 11 + 10, 3),
        CauseTally("refused", "other", 1, 3),
    )  # fmt: skip
    assert instead_of(head) == instead_of(summary(causes=causes))
    most = (CauseTally("missed", "x", MAX_NUMBER, 1),) * (HEAD_CAUSES + 2)
    assert summary(causes=most).head().causes[-1] == CauseTally("missed", "other", MAX_NUMBER, 2)
    assert instead_of(summary().head()) == instead_of(summary()) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"build": ""},
        {"build": "x" * 129},
        {"build": "a\x1b[2J"},
        {"build": "a\nb"},
        {"build": "\u202eevil"},
        {"build": " padded"},
        {"source": "0123"},
        {"source": "g" * 16},
        {"commit": "../../etc"},
        {"commit": "ab" * 19},
        {"began_ms": -1},
        {"began_ms": BEGAN_MS + 75_001},
        {"ended_ms": MAX_AT_MS + 1},
        {"busy_ms": -1},
        {"total_ms": MAX_NUMBER + 1},
        {"left_out": 1 << 40},
        {"kinds": (Tally("hit", 1, 1),) * (MAX_KINDS + 1)},
        {"kinds": (Tally("/home/ann/secret.c", 1, 1),)},
        {"kinds": (Tally("", 1, 1),)},
        {"kinds": (Tally("hit", -1, 1),)},
        {"causes": (CauseTally("bypass", "stdin", 1, 1),) * (MAX_CAUSES + 1)},
        {"causes": (CauseTally("bypass", "unknown-flag:-fplugin=/home/x", 1, 1),)},
        {"causes": (CauseTally("<b>", "stdin", 1, 1),)},
        {"phases": (Tally("Guest", 0, 1),)},
        {"places": (Tally("w1", 1, 1),) * (MAX_PLACES + 1)},
        {"places": (Tally("w1 <script>", 1, 1),)},
        {"places": (Tally("../w1", 1, 1),)},
        {"slowest": (SlowCompile(0, 1, "farm", "", "w1", "g"),) * (MAX_SLOWEST + 1)},
        {"slowest": (SlowCompile(0, 1, "src/a.c", "", "", ""),)},
        {"slowest": (SlowCompile(0, 1, "farm", "", "w1", "g\n"),)},
        {"activity": (Activity(0, 0, 0, 0),) * (BINS + 1)},
        {"activity": (Activity(0, 0, -1, 0),)},
        {"off_lanes": -1},
        {"lanes": (LaneRow("w9", (0, 9, 4)),)},
        {"lanes": (LaneRow("w1", (0, 0, 4)),)},
        {"lanes": (LaneRow("w1", (0, 9, 4)),) * (MAX_LANES + 1)},
        {"lanes": (LaneRow("w1", (0, 1, 4) * 16),) * (MAX_BARS // 16 + 1)},
    ],
    ids=str,
)
def test_what_is_outside_its_bounds_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(CallerError):
        summary(**changes)


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"build": "x"},
        {**summary().table(), "kinds": [["hit", 1]]},
        {**summary().table(), "kinds": [["hit", "1", 1]]},
        {**summary().table(), "more": 1},
        {**summary().table(), "build": 7},
        {**summary().table(), "slowest": 3},
        {**summary().table(), "lanes": [["w1", 3]]},
        {**summary().table(), "lanes": [[["w1"], [0, 1, 4]]]},
        {**summary().table(), "lanes": [["w1", ["0", 1, 4]]]},
    ],
    ids=[
        "nothing",
        "little",
        "short",
        "texts",
        "more",
        "number",
        "no-rows",
        "no-numbers",
        "list-of-places",
        "text-in-lane",
    ],
)
def test_a_table_of_another_form_is_no_summary(table: dict[str, object]) -> None:
    with pytest.raises(CallerError):
        summary_of_table(table)


def test_a_reason_loses_its_detail_and_a_path_is_no_word() -> None:
    assert word_of("unknown-flag:-fplugin=/home/ann/x.so") == "unknown-flag"
    assert word_of("/home/ann/x.c") == "other"
    assert word_of("") == ""


def test_jobs_of_one_run_are_added_up() -> None:
    first = summary()
    second = summary(
        source="f" * 16, began_ms=BEGAN_MS + 60_000, ended_ms=BEGAN_MS + 200_000, commit="",
        at_once=9, left_out=2, is_damaged=True,
    )  # fmt: skip
    both = merged([first, second])
    assert (both.began_ms, both.ended_ms) == (BEGAN_MS, BEGAN_MS + 200_000)
    assert both.compiles == first.compiles + second.compiles
    assert {t.word: t.compiles for t in both.kinds} == {
        "hit": 16,
        "farm": 6,
        "here": 4,
        "bypass": 2,
    }
    assert {(c.family, c.word): c.compiles for c in both.causes}[("fallback", "guest-lost")] == 4
    assert {t.word: t.compiles for t in both.places} == {"w1": 6, "": 4}
    assert (both.at_once, both.left_out, both.is_damaged, both.commit) == (9, 2, True, "")
    assert [s.offset_ms for s in both.slowest] == [100, 60_100, 2_000, 62_000]
    served = sum(part.served for part in first.activity + second.activity)
    assert sum(part.served for part in both.activity) == served


def test_forged_numbers_of_many_sources_stay_inside_their_range() -> None:
    huge = {
        "total_ms": MAX_NUMBER, "left_out": MAX_NUMBER,
        "kinds": (Tally("farm", MAX_NUMBER, MAX_NUMBER),),
        "activity": (Activity(MAX_NUMBER, MAX_NUMBER, MAX_NUMBER, MAX_NUMBER),),
        "slowest": (SlowCompile(MAX_NUMBER, MAX_NUMBER, "farm", "", "", ""),),
    }  # fmt: skip
    early = summary(began_ms=0, ended_ms=0, **huge)
    late = summary(source="f" * 16, began_ms=MAX_AT_MS, ended_ms=MAX_AT_MS, **huge)
    both = merged([early, late])
    assert both.total_ms == both.left_out == MAX_NUMBER
    assert both.kinds == (Tally("farm", MAX_NUMBER, MAX_NUMBER),)
    assert all(s.offset_ms == MAX_NUMBER for s in both.slowest)


def test_lanes_of_several_machines_are_rows_of_one_time() -> None:
    one = summary()
    later = summary(
        source="f" * 16, began_ms=BEGAN_MS + 75_000, ended_ms=BEGAN_MS + 150_000, off_lanes=3,
        lanes=(LaneRow("w1", (0, 1024, 8)),), places=(Tally("w1", 2, 75_000),),
    )  # fmt: skip
    found = merged([one, later])
    assert [(lane.where, list(lane.bars())) for lane in found.lanes] == [
        ("w1", [LaneBar(50, 400, 2, 0), LaneBar(512, 1024, 2, 0)]),
        ("w1", [LaneBar(100, 200, 1, 0)]),
        ("", [LaneBar(25, 225, 2, 1)]),
    ]
    assert found.off_lanes == 3
    assert found.head().lanes == ()
