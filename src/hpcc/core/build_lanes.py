"""The compiles of a build as lanes of bars over its time: bounded, whatever the build's size. Pure.

A lane is one compile at once at one worker, or at the machine that built, as one client or several
saw it. A bar has a begin and a length in `PARTS` of the build's time, so lanes of a small and a
large build take the same room. Where there are more bars than `MAX_BARS`, the narrowest gaps are
closed first: neighbours become one bar, which has the worst of their ends. Where there are more
lanes than `MAX_LANES`, each place keeps its busiest ones.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

PARTS: Final = 1024
MAX_LANES: Final = 96
MAX_BARS: Final = 768
AS_PLACE: Final = 0
"""How a bar's compiles ended: on the farm at a worker, here at the machine that built."""
INSTEAD: Final = 1
"""Here instead of the farm."""
FAILED: Final = 2
_ENDS: Final = 4
# So that a number with its end fits into the field of a message.
MAX_COMPILES: Final = (1 << 30) - 1


class LaneBar(NamedTuple):
    """Compiles that ran one after the other: when, how many, and how the worst of them ended."""

    began: int
    ended: int
    compiles: int
    end: int


class LaneRow(NamedTuple):
    """One row: a worker's id, "" for the machine that built, and three numbers for each bar.

    They are the parts between the bar before and this one, its length, and four times its compiles
    plus its end.
    """

    where: str
    numbers: tuple[int, ...]

    def bars(self) -> Iterator[LaneBar]:
        """Iterate over the bars, in parts of the build's time."""
        at = 0
        for gap, length, said in zip(*(iter(self.numbers),) * 3, strict=True):
            yield LaneBar(at + gap, at + gap + length, said // _ENDS, said % _ENDS)
            at += gap + length


class LaneSpan(NamedTuple):
    """Compiles that ran at a place, by any clock; `began` before `ended`."""

    where: str
    began: int
    ended: int
    compiles: int
    end: int


def is_lane(lane: LaneRow) -> bool:
    """Return whether the numbers of a lane are bars inside the build's time."""
    numbers = lane.numbers
    if not numbers or len(numbers) % 3 or any(type(number) is not int for number in numbers):
        return False
    gaps, lengths, said = numbers[::3], numbers[1::3], numbers[2::3]
    return (
        min(gaps) >= 0
        and min(lengths) >= 1
        and sum(gaps) + sum(lengths) <= PARTS
        and all(n % _ENDS <= FAILED and 1 <= n // _ENDS <= MAX_COMPILES for n in said)
    )


def lane_numbers(spans: Sequence[tuple[int, int]]) -> list[int]:
    """Return a lane for each span, from 1, so that spans of one lane do not overlap.

    Spans are begin and end, sorted by begin.
    """
    free: list[int] = []
    busy: list[tuple[int, int]] = []
    most, found = 0, []
    for began, ended in spans:
        while busy and busy[0][0] <= began:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            lane = heapq.heappop(free)
        else:
            most += 1
            lane = most
        heapq.heappush(busy, (max(ended, began + 1), lane))
        found.append(lane)
    return found


def lanes_of_spans(
    spans: Iterable[LaneSpan], began: int, ended: int, places: Sequence[str]
) -> tuple[tuple[LaneRow, ...], int]:
    """Return the lanes of a build from `began` to `ended`, and how many compiles are in none.

    `places` are those that have lanes, in the order of the result.
    """
    rows: dict[tuple[int, str], list[LaneSpan]] = {}
    compiles = Counter[str]()
    ordered = sorted(spans, key=lambda span: span.began)
    by_place: dict[str, list[LaneSpan]] = {place: [] for place in places}
    for span in ordered:
        compiles[span.where] += span.compiles
        if span.where in by_place:
            by_place[span.where].append(span)
    for place, found in by_place.items():
        numbers = lane_numbers([(span.began, span.ended) for span in found])
        for span, number in zip(found, numbers, strict=True):
            rows.setdefault((number, place), []).append(span)
    # The first lane of a place is its busiest one.
    order = {place: at for at, place in enumerate(by_place)}
    chosen = sorted(rows, key=lambda row: (row[0], order[row[1]]))[:MAX_LANES]
    chosen.sort(key=lambda row: (order[row[1]], row[0]))
    drawn = [_bars(rows[row], began, ended) for row in chosen]
    _close_gaps(drawn)
    lanes = tuple(
        LaneRow(place, tuple(_numbers(bars)))
        for (_, place), bars in zip(chosen, drawn, strict=True)
    )  # fmt: skip
    return lanes, compiles.total() - sum(span.compiles for row in chosen for span in rows[row])


def _bars(spans: Iterable[LaneSpan], began: int, ended: int) -> list[LaneBar]:
    """Return bars whose neighbours have a gap between them, or another end."""
    whole, found = max(ended - began, 1), list[LaneBar]()
    for span in spans:
        first = min(max(span.began - began, 0) * PARTS // whole, PARTS - 1)
        last = min(max(-(-(span.ended - began) * PARTS // whole), first + 1), PARTS)
        bar = LaneBar(first, last, min(span.compiles, MAX_COMPILES), span.end)
        if found and (first < found[-1].ended or (first, bar.end) == found[-1][1::2]):
            found[-1] = _joined(found[-1], bar)
        else:
            found.append(bar)
    return found


def _joined(one: LaneBar, other: LaneBar) -> LaneBar:
    compiles = min(one.compiles + other.compiles, MAX_COMPILES)
    return LaneBar(one.began, max(one.ended, other.ended), compiles, max(one.end, other.end))


def _close_gaps(drawn: Sequence[list[LaneBar]]) -> None:
    """Join neighbours over the narrowest gaps, until there are `MAX_BARS` bars."""
    too_many = sum(map(len, drawn)) - MAX_BARS
    if too_many <= 0:
        return
    gaps = (
        (bars[at].began - bars[at - 1].ended, lane, at)
        for lane, bars in enumerate(drawn)
        for at in range(1, len(bars))
    )
    closed = {(lane, at) for _, lane, at in heapq.nsmallest(too_many, gaps)}
    for lane, bars in enumerate(drawn):
        found: list[LaneBar] = []
        for at, bar in enumerate(bars):
            if (lane, at) in closed:
                found[-1] = _joined(found[-1], bar)
            else:
                found.append(bar)
        bars[:] = found


def _numbers(bars: Iterable[LaneBar]) -> Iterator[int]:
    at = 0
    for bar in bars:
        yield from (bar.began - at, bar.ended - bar.began, bar.compiles * _ENDS + bar.end)
        at = bar.ended
