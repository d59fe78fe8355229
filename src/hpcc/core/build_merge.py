"""Adds up what several recorders told of one build, such as the jobs of one CI run. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from hpcc.core.build_lanes import PARTS, LaneRow, LaneSpan, lanes_of_spans
from hpcc.core.build_summary import (
    BINS,
    MAX_CAUSES,
    MAX_KINDS,
    MAX_PHASES,
    MAX_PLACES,
    MAX_SLOWEST,
    Activity,
    BuildSummary,
    CauseTally,
    SlowCompile,
    Tally,
    number_of,
)


def merged(summaries: Sequence[BuildSummary]) -> BuildSummary:
    """Return one summary of at least one. Its begin and end are those of all together.

    A machine knows only its own compiles: `at_once` and `busy_ms` are those of the busiest one.
    """
    if len(summaries) == 1:
        return summaries[0]
    began_ms = min(s.began_ms for s in summaries)
    ended_ms = max(s.ended_ms for s in summaries)
    commits = {s.commit for s in summaries}
    slowest = [
        slow._replace(offset_ms=number_of(slow.offset_ms + s.began_ms - began_ms))
        for s in summaries
        for slow in s.slowest
    ]
    slowest.sort(key=lambda slow: slow.took_ms, reverse=True)
    places = _tallies((t for s in summaries for t in s.places), MAX_PLACES)
    lanes, off_lanes = _lanes(summaries, began_ms, ended_ms, [tally.word for tally in places])
    return replace(
        summaries[0],
        began_ms=began_ms,
        ended_ms=ended_ms,
        commit=commits.pop() if len(commits) == 1 else "",
        busy_ms=max(s.busy_ms for s in summaries),
        total_ms=number_of(sum(s.total_ms for s in summaries)),
        at_once=max(s.at_once for s in summaries),
        left_out=number_of(sum(s.left_out for s in summaries)),
        is_damaged=any(s.is_damaged for s in summaries),
        kinds=_tallies((t for s in summaries for t in s.kinds), MAX_KINDS),
        causes=_causes(c for s in summaries for c in s.causes),
        phases=_tallies((t for s in summaries for t in s.phases), MAX_PHASES),
        places=places,
        slowest=_slow(slowest),
        activity=_activity(summaries, began_ms, ended_ms),
        lanes=lanes,
        off_lanes=number_of(off_lanes + sum(s.off_lanes for s in summaries)),
    )


def _lanes(
    summaries: Sequence[BuildSummary], began_ms: int, ended_ms: int, places: Sequence[str]
) -> tuple[tuple[LaneRow, ...], int]:
    """Put the bars of all machines onto the time of all. Their clocks may differ."""
    # In units that are parts of each machine's time and of that of all.
    spans = [
        LaneSpan(
            lane.where,
            s.began_ms * PARTS + (s.ended_ms - s.began_ms) * bar.began,
            s.began_ms * PARTS + (s.ended_ms - s.began_ms) * bar.ended,
            bar.compiles,
            bar.end,
        )
        for s in summaries
        for lane in s.lanes
        for bar in lane.bars()
    ]
    return lanes_of_spans(spans, began_ms * PARTS, ended_ms * PARTS, places)


def _slow(ordered: Sequence[SlowCompile]) -> tuple[SlowCompile, ...]:
    return tuple(ordered[:MAX_SLOWEST])


def _tallies(tallies: Iterable[Tally], most: int) -> tuple[Tally, ...]:
    compiles, took = Counter[str](), Counter[str]()
    for tally in tallies:
        compiles[tally.word] += tally.compiles
        took[tally.word] += tally.took_ms
    ordered = sorted(took, key=lambda word: (-took[word], word))[:most]
    return tuple(Tally(w, number_of(compiles[w]), number_of(took[w])) for w in ordered)


def _causes(causes: Iterable[CauseTally]) -> tuple[CauseTally, ...]:
    compiles, took = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for cause in causes:
        key = cause.family, cause.word
        compiles[key] += cause.compiles
        took[key] += cause.took_ms
    ordered = sorted(took, key=lambda key: (-took[key], -compiles[key], key))[:MAX_CAUSES]
    return tuple(CauseTally(*k, number_of(compiles[k]), number_of(took[k])) for k in ordered)


def _activity(
    summaries: Sequence[BuildSummary], began_ms: int, ended_ms: int
) -> tuple[Activity, ...]:
    """Put each part of a machine's time where its middle is in the time of all."""
    sums = [[0] * len(Activity._fields) for _ in range(BINS)]
    whole = max(ended_ms - began_ms, 1)
    for s in summaries:
        for number, part in enumerate(s.activity):
            middle = (s.ended_ms - s.began_ms) * (2 * number + 1) // (2 * len(s.activity))
            at = min((s.began_ms - began_ms + middle) * BINS // whole, BINS - 1)
            for field, value in enumerate(part):
                sums[at][field] += value
    return tuple(Activity(*map(number_of, row)) for row in sums)
