"""Makes of a recorded build what its farm gets: numbers and words, no name of a file. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from hpcc.cache.recorder.compiles import Compile, CompileKind
from hpcc.cache.recorder.reading import RecordedBuild
from hpcc.cache.recorder.report import RAN, SERVED, causes_of, report_of
from hpcc.core.build_summary import (
    BINS,
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


def summary_of_build(recorded: RecordedBuild, source: str, commit: str = "") -> BuildSummary:
    """Return the summary of a build that has at least one compile; `source` names the recorder."""
    report = report_of(recorded)
    # Reasons with different details are one word here.
    causes = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for cause in report.causes:
        key = word_of(cause.family) or OTHER, word_of(cause.word)
        causes[0][key] += cause.compiles
        causes[1][key] += cause.took_us
    ranked = sorted(causes[0], key=lambda key: (-causes[1][key], -causes[0][key], key))
    places = [(place_name(p.where), p.compiles, p.took_us) for p in report.places]
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
        causes=tuple(
            CauseTally(*key, number_of(causes[0][key]), _ms(causes[1][key]))
            for key in ranked[:MAX_CAUSES]
        ),
        phases=tuple(Tally(phase.value, 0, _ms(us)) for phase, us in report.phases.items()),
        places=tuple(Tally(name, number_of(n), _ms(us)) for name, n, us in places[:MAX_PLACES]),
        slowest=tuple(_slow(c, report.began_us) for c in report.slowest[:MAX_SLOWEST]),
        activity=_activity(recorded.compiles, report.began_us, report.ended_us),
    )


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
        sums = farm if c.kind is CompileKind.FARM else instead if c.fallback_word else here
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
