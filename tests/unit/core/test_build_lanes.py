"""Lanes of a build: what was, where it was, in bounded room; and what is refused as a lane."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.core.build_lanes import (
    AS_PLACE,
    FAILED,
    INSTEAD,
    MAX_BARS,
    MAX_COMPILES,
    MAX_LANES,
    PARTS,
    LaneBar,
    LaneRow,
    LaneSpan,
    is_lane,
    lanes_of_spans,
)


def span(began: int, ended: int, where: str = "w1", compiles: int = 1, end: int = 0) -> LaneSpan:
    return LaneSpan(where, began, ended, compiles, end)


def bars(lanes: tuple[LaneRow, ...]) -> list[tuple[str, list[LaneBar]]]:
    return [(lane.where, list(lane.bars())) for lane in lanes]


def test_compiles_at_once_are_rows_and_those_that_touch_are_one_bar() -> None:
    found, left_out = lanes_of_spans(
        [
            span(0, 512), span(512, 768), span(100, 200), span(900, 1024, end=FAILED),
            span(10, 20, "", end=INSTEAD), span(20, 40, ""), span(0, 9, "elsewhere", 7),
        ],
        0, PARTS, ["", "w1"],
    )  # fmt: skip
    assert bars(found) == [
        ("", [LaneBar(10, 20, 1, INSTEAD), LaneBar(20, 40, 1, AS_PLACE)]),
        ("w1", [LaneBar(0, 768, 2, AS_PLACE), LaneBar(900, 1024, 1, FAILED)]),
        ("w1", [LaneBar(100, 200, 1, AS_PLACE)]),
    ]
    assert left_out == 7, "a place that is not in the list"


def test_more_bars_than_may_be_lose_their_narrowest_gaps_and_no_compile() -> None:
    # In each of eight lanes: gaps of two parts, and a wide one after each tenth bar.
    starts, at = [], 0
    while at < PARTS - 3:
        starts.append(at)
        at += 14 if len(starts) % 10 == 0 else 5
    spans = [span(began, began + 3) for began in starts for _ in range(8)]
    assert len(spans) > MAX_BARS
    found, left_out = lanes_of_spans(spans, 0, PARTS, ["w1"])
    assert left_out == 0
    assert sum(len(lane.numbers) // 3 for lane in found) == MAX_BARS
    assert sum(bar.compiles for lane in found for bar in lane.bars()) == len(spans)
    wide = {began for n, began in enumerate(starts) if n % 10 == 0}
    for lane in found:
        assert wide <= {bar.began for bar in lane.bars()}


def test_more_lanes_than_may_be_leave_each_place_its_busiest_ones() -> None:
    spans = [span(n, 1000 + n, f"w{n % 3}") for n in range(600)]
    found, left_out = lanes_of_spans(spans, 0, 1600, ["w0", "w1", "w2"])
    assert len(found) == MAX_LANES
    counts = [sum(lane.where == f"w{n}" for lane in found) for n in range(3)]
    assert counts == [MAX_LANES // 3] * 3
    assert left_out == 600 - MAX_LANES


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "w1", "w2", "other"]), st.integers(0, 10**12),
            st.integers(0, 10**9), st.integers(1, 1 << 40), st.integers(0, FAILED),
        ),
        max_size=300,
    ),
    st.integers(0, 10**12), st.integers(0, 10**12),
)  # fmt: skip
def test_whatever_ran_lanes_are_lanes(
    rows: list[tuple[str, int, int, int, int]], began: int, took: int
) -> None:
    spans = [LaneSpan(where, at, at + more, n, end) for where, at, more, n, end in rows]
    found, left_out = lanes_of_spans(spans, began, began + took, ["w1", "", "w2"])
    assert all(map(is_lane, found))
    assert len(found) <= MAX_LANES
    assert sum(len(lane.numbers) for lane in found) <= 3 * MAX_BARS
    assert left_out >= sum(s.compiles for s in spans if s.where == "other")


@pytest.mark.parametrize(
    "numbers",
    [
        (), (0, 1), (0, 0, 4), (-1, 1, 4), (0, 1, 3), (0, 1, 7), (0, PARTS + 1, 4), (1, PARTS, 4),
        (0, 1, (MAX_COMPILES + 1) * 4), (0, 600, 4, 0, 600, 4), (0, True, 4), (0, 1.0, 4), (0, "1", 4),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_bar_of_the_builds_time_is_no_lane(numbers: tuple[int, ...]) -> None:
    assert not is_lane(LaneRow("w1", numbers))
    assert is_lane(LaneRow("w1", (0, PARTS, 4)))
