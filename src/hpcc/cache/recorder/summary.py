"""Makes of a recorded build what its farm gets: numbers and words, no name of a file. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from hpcc.cache.base.times import Phase
from hpcc.cache.recorder.compiles import Compile, CompileKind
from hpcc.cache.recorder.reading import RecordedBuild
from hpcc.cache.recorder.report import RAN, SERVED, causes_of, report_of
from hpcc.core.build_lanes import AS_PLACE, LaneSpan, lanes_of_spans
from hpcc.core.build_lanes import FAILED as LANE_FAILED
from hpcc.core.build_lanes import INSTEAD as LANE_INSTEAD
from hpcc.core.build_summary import (
    BINS,
    INSTEAD,
    MAX_CAUSES,
    MAX_PLACES,
    MAX_SLOWEST,
    OTHER,
    Activity,
    BuildSummary,
    CauseTally,
    SlowCompile,
    Tally,
    number_of,
    place_name,
    word_of,
)

_MS: Final = 1000
_FALLBACK: Final = INSTEAD[0]
_MADE_HERE: Final = frozenset({CompileKind.HERE, CompileKind.NOT_KEPT})


def summary_of_build(recorded: RecordedBuild, source: str, commit: str = "") -> BuildSummary:
    """Return the summary of a build that has at least one compile; `source` names the recorder."""
    report = report_of(recorded)
    causes = _causes(recorded.compiles)
    places = [(place_name(p.where), p.compiles, p.took_us) for p in report.places][:MAX_PLACES]
    lanes, off_lanes = lanes_of_spans(
        map(_span, (c for c in recorded.compiles if c.kind in RAN)),
        report.began_us, report.ended_us, [name for name, _, _ in places],
    )  # fmt: skip
    return BuildSummary(
        build=recorded.build,
        source=source,
        began_ms=report.began_us // _MS,
        ended_ms=report.ended_us // _MS,
        commit=commit,
        busy_ms=_ms(report.busy_us),
        total_ms=_ms(report.total_us),
        at_once=number_of(report.at_once),
        left_out=number_of(report.left_out),
        is_damaged=report.is_damaged,
        kinds=tuple(
            Tally(kind.value, number_of(report.counts[kind]), _ms(report.took.get(kind, 0)))
            for kind in CompileKind
            if report.counts.get(kind)
        ),
        causes=tuple(causes[:MAX_CAUSES]),
        phases=tuple(Tally(phase.value, 0, _ms(us)) for phase, us in report.phases.items()),
        places=tuple(Tally(name, number_of(n), _ms(us)) for name, n, us in places),
        slowest=tuple(_slow(c, report.began_us) for c in report.slowest[:MAX_SLOWEST]),
        activity=_activity(recorded.compiles, report.began_us, report.ended_us),
        lanes=lanes,
        off_lanes=number_of(off_lanes),
    )


def _span(c: Compile) -> LaneSpan:
    """Return when a compile was at its place: on the farm the time in the guest, if it is known."""
    began_us, ended_us = c.began_us, c.ended_us
    if c.kind is CompileKind.FARM:
        guest = next((part for part in c.phases if part.phase is Phase.GUEST), None)
        if guest is not None:
            began_us += guest.offset_us
            ended_us = min(began_us + guest.took_us, ended_us)
        return LaneSpan(place_name(c.where), began_us, ended_us, 1, AS_PLACE)
    end = AS_PLACE
    if c.kind is CompileKind.FAILED:
        end = LANE_FAILED
    elif c.fallback_word:
        end = LANE_INSTEAD
    return LaneSpan("", began_us, ended_us, 1, end)


def _causes(compiles: Iterable[Compile]) -> list[CauseTally]:
    """Return why compiles were not served, as reports have it, the dearest reason first.

    A fallback counts only where a compiler then made the result here: after it the cache may serve
    a result of an earlier compile, and a source that fails in a guest fails here, too.
    """
    # Reasons with different details are one word here.
    numbers, took_us = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for c in compiles:
        for family, word in causes_of(c):
            if family == _FALLBACK and c.kind not in _MADE_HERE:
                continue
            key = word_of(family) or OTHER, word_of(word)
            numbers[key] += 1
            took_us[key] += c.took_us if c.kind in RAN else 0
    ranked = sorted(numbers, key=lambda key: (-took_us[key], -numbers[key], key))
    return [CauseTally(*key, number_of(numbers[key]), _ms(took_us[key])) for key in ranked]


def _slow(c: Compile, began_us: int) -> SlowCompile:
    words = [word for _, word in causes_of(c) if word]
    is_there = c.kind is CompileKind.FARM
    return SlowCompile(
        _ms(c.began_us - began_us),
        _ms(c.took_us),
        c.kind.value,
        word_of(words[-1]) if words else "",
        place_name(c.where) if is_there else "",
        place_name(c.guest) if is_there else "",
    )


def _activity(compiles: Iterable[Compile], began_us: int, ended_us: int) -> tuple[Activity, ...]:
    """Return what was under way, in equal parts of the time."""
    width = max((ended_us - began_us) // BINS, 0) + 1
    served, farm, here, instead = ([0] * BINS for _ in range(4))
    for c in compiles:
        first = min((c.began_us - began_us) // width, BINS - 1)
        if c.kind in SERVED:
            served[first] += 1
        if c.kind not in RAN:
            continue
        is_instead = c.fallback_word and c.kind in _MADE_HERE
        sums = farm if c.kind is CompileKind.FARM else instead if is_instead else here
        last = min((c.ended_us - began_us) // width, BINS - 1)
        for number in range(first, last + 1):
            start = began_us + number * width
            sums[number] += max(min(c.ended_us, start + width) - max(c.began_us, start), 0)
    return tuple(
        Activity(number_of(served[n]), _ms(farm[n]), _ms(here[n] + instead[n]), _ms(instead[n]))
        for n in range(BINS)
    )


def _ms(us: int) -> int:
    return number_of(us // _MS)
