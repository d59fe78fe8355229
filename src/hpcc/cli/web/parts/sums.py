"""What became of the compiles of a farm within a time, as far as clients reported builds. Pure.

A report has counts for a whole build, and in which parts of its time something was under way. So
counts are spread over these parts, and what is outside the time asked for is left out. A client's
clock that is ahead of its scheduler's is moved back to the report; nothing else is corrected.

Every number is a client's claim. A build may claim to last a thousand years: each costs at most
`BINS` steps for each part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from hpcc.cli.builds.farm_words import count_of, instead_of, served_of
from hpcc.core.build_summary import INSTEAD, Activity, BuildSummary
from hpcc.rpc.scheduler.builds import KeptBuild

BINS: Final = 60
HOURS: Final = (1, 6, 24, 168)
"""Times that a page offers."""
_HOUR_SECONDS: Final = 3600.0
_SLOWEST: Final = 6


class Choice(NamedTuple):
    """What a page shows: the last hours, of one tenant or, for "", of all that may be seen."""

    hours: int = 1
    tenant: str = ""


class Ends(NamedTuple):
    """How many compiles ended in one of four ways. Bypasses and failed compiles are none of them.

    `instead` are those that the farm should have done and did not.
    """

    cache: float = 0.0
    farm: float = 0.0
    here: float = 0.0
    instead: float = 0.0

    @property
    def compiles(self) -> float:
        """Return all of them."""
        return sum(self)

    def plus(self, other: Ends) -> Ends:
        """Return the sums."""
        return Ends(*(a + b for a, b in zip(self, other, strict=True)))


@dataclass(slots=True)
class Outcomes:
    """The sums. `bins` are `BINS` equal parts of the time from `began_at` on, in seconds."""

    choice: Choice
    began_at: float
    bin_seconds: float
    bins: list[Ends] = field(default_factory=lambda: [Ends()] * BINS)
    tenants: dict[str, Ends] = field(default_factory=dict)
    # By family and word; `missed` for the cache, `INSTEAD` for the farm.
    causes: dict[tuple[str, str], float] = field(default_factory=dict)
    reports: int = 0
    slowest: list[KeptBuild] = field(default_factory=list)

    @property
    def whole(self) -> Ends:
        """Return the sums over the whole time."""
        found = Ends()
        for part in self.bins:
            found = found.plus(part)
        return found

    def causes_of(self, families: Sequence[str]) -> list[tuple[str, str, int]]:
        """Return the causes of some families, the one of most compiles first."""
        found = [(*k, round(n)) for k, n in self.causes.items() if k[0] in families and n >= 0.5]  # noqa: PLR2004 - rounds to one
        return sorted(found, key=lambda cause: (-cause[2], cause[:2]))


def tenants_of(reports: Iterable[KeptBuild]) -> list[str]:
    """Return the tenants whose builds are known."""
    return sorted({report.tenant for report in reports})


def outcomes(reports: Iterable[KeptBuild], choice: Choice, now: float) -> Outcomes:
    """Return the sums until `now`, in seconds since the epoch."""
    took = choice.hours * _HOUR_SECONDS
    found = Outcomes(choice, now - took, took / BINS)
    for report in reports:
        if choice.tenant in {"", report.tenant}:
            _add(found, report)
    found.slowest.sort(key=lambda r: r.summary.slowest[0].took_ms, reverse=True)
    del found.slowest[_SLOWEST:]
    return found


def ends_of(s: BuildSummary) -> Ends:
    """Return how the compiles of one report ended."""
    fallbacks = sum(c.compiles for c in s.causes if c.family == INSTEAD[0])
    here = max(count_of(s, "here", "not-kept") - fallbacks, 0)
    return Ends(served_of(s)[0], count_of(s, "farm"), here, instead_of(s))


def _add(found: Outcomes, report: KeptBuild) -> None:
    s = report.summary
    ahead = max(s.ended_ms / 1000 - report.reported_at, 0.0)
    began, ended = s.began_ms / 1000 - ahead, s.ended_ms / 1000 - ahead
    if ended < found.began_at or began > found.began_at + BINS * found.bin_seconds:
        return
    every = ends_of(s)
    inside = Ends()
    parts = s.activity or (Activity(0, 0, 0, 0),)
    weights = _weights(parts)
    length = (ended - began) / len(parts)
    for number, weight in enumerate(weights):
        share = Ends(*(n * w for n, w in zip(every, weight, strict=True)))
        inside = inside.plus(_spread(found, began + number * length, length, share))
    found.reports += 1
    tenant = found.tenants.get(report.tenant, Ends())
    found.tenants[report.tenant] = tenant.plus(inside)
    for cause in s.causes:
        # A miss ran on the farm or here.
        if cause.family in INSTEAD:
            part, whole = inside.instead, every.instead
        else:
            part, whole = inside.farm + inside.here, every.farm + every.here
        if cause.family in {*INSTEAD, "missed"} and whole:
            key = cause.family, cause.word
            added = cause.compiles * part / whole
            found.causes[key] = found.causes.get(key, 0.0) + added
    if s.slowest:
        found.slowest.append(report)


def _weights(parts: Sequence[Activity]) -> list[Ends]:
    """Return which share of each sum belongs to each part; equal shares where nothing says it."""
    said = [(p.served, p.farm_ms, max(p.here_ms - p.instead_ms, 0), p.instead_ms) for p in parts]
    sums = [sum(each) for each in zip(*said, strict=True)]
    even = 1 / len(parts)
    return [
        Ends(*(n / whole if whole else even for n, whole in zip(row, sums, strict=True)))
        for row in said
    ]


def _spread(found: Outcomes, at: float, length: float, share: Ends) -> Ends:
    """Add a share that happened in `length` seconds from `at` on; return what is inside."""
    first = (at - found.began_at) / found.bin_seconds
    last = first + length / found.bin_seconds
    inside = Ends()
    for number in range(max(int(first), 0), min(int(last), BINS - 1) + 1):
        if last > first:
            overlap = min(last, number + 1) - max(first, number)
            portion = max(overlap, 0.0) / (last - first)
        else:
            portion = 1.0 if first >= 0 else 0.0
        added = Ends(*(n * portion for n in share))
        found.bins[number] = found.bins[number].plus(added)
        inside = inside.plus(added)
    return inside
