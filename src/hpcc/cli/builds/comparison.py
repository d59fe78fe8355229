"""Compares two builds: what ended otherwise, which reasons grew or vanished, what ran slower. Pure.

A build of a farm is a summary without names of files, so its slowest compiles are compared by rank
only. A build of this machine also has each compile, by what it made. A comparison says only what
follows from both: that a reason has more compiles, never that it is why a build was slower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from hpcc.cache.recorder.compiles import Compile
from hpcc.cache.recorder.reading import RecordedBuild
from hpcc.cache.recorder.report import RAN, SERVED
from hpcc.cache.recorder.summary import summary_of_build
from hpcc.core.build_summary import (
    MAX_CAUSES,
    MAX_NAME_CHARS,
    BuildSummary,
    CauseTally,
    Tally,
    is_build_name,
)
from hpcc.obs.text import one_line

MAX_UNITS: Final = 20
_ANY_SOURCE: Final = "0" * 16


class Compared(NamedTuple):
    """How many compiles something had in both builds, and what they took; `family`: of a cause."""

    family: str
    word: str
    before: int
    now: int
    before_ms: int
    now_ms: int

    @property
    def change(self) -> str:
        """Return what became of it, as one word."""
        if not self.before and not self.before_ms:
            return "new"
        if not self.now and not self.now_ms:
            return "gone"
        if self.now != self.before:
            return "more" if self.now > self.before else "fewer"
        if self.now_ms != self.before_ms:
            return "longer" if self.now_ms > self.before_ms else "shorter"
        return "same"


def comparable(recorded: RecordedBuild) -> BuildSummary:
    """Return the numbers of a build of this machine, whatever it is called: names are hostile."""
    name = recorded.build
    if not is_build_name(name):
        name = one_line(name)[:MAX_NAME_CHARS].strip() or "build"
    return summary_of_build(replace(recorded, build=name), _ANY_SOURCE)


def compared_ends(before: BuildSummary, now: BuildSummary) -> list[Compared]:
    """Return how compiles ended, in the order of the later build."""
    return _tallies(before.kinds, now.kinds)


def compared_phases(before: BuildSummary, now: BuildSummary) -> list[Compared]:
    """Return what parts of compiles took."""
    return _tallies(before.phases, now.phases)


def compared_places(before: BuildSummary, now: BuildSummary) -> list[Compared]:
    """Return where compilers ran; the word of the machine that built is ""."""
    return _tallies(before.places, now.places)


def compared_causes(before: BuildSummary, now: BuildSummary) -> list[Compared]:
    """Return why compiles were not served; first what changed the time most, then the number."""
    old, new = _by_cause(before.causes), _by_cause(now.causes)
    found = [
        Compared(*key, *_both(old.get(key, (0, 0)), new.get(key, (0, 0))))
        for key in dict.fromkeys((*new, *old))
    ]
    return sorted(
        found,
        key=lambda c: (-abs(c.now_ms - c.before_ms), -abs(c.now - c.before), c.family, c.word),
    )


def has_all_causes(before: BuildSummary, now: BuildSummary) -> bool:
    """Return whether neither build has so many causes that a summary leaves some out."""
    return max(len(before.causes), len(now.causes)) < MAX_CAUSES


def _by_cause(causes: Iterable[CauseTally]) -> dict[tuple[str, str], tuple[int, int]]:
    return {(c.family, c.word): (c.compiles, c.took_ms) for c in causes}


def _tallies(before: Iterable[Tally], now: Iterable[Tally]) -> list[Compared]:
    old, new = ({t.word: (t.compiles, t.took_ms) for t in one} for one in (before, now))
    return [
        Compared("", word, *_both(old.get(word, (0, 0)), new.get(word, (0, 0))))
        for word in dict.fromkeys((*new, *old))
    ]


def _both(old: tuple[int, int], new: tuple[int, int]) -> tuple[int, int, int, int]:
    return old[0], new[0], old[1], new[1]


class Unit(NamedTuple):
    """The last compile of one output in a build: what it took, and whether a compiler ran."""

    took_us: int
    is_ran: bool
    is_served: bool
    reason: str


class UnitChange(NamedTuple):
    """One output in both builds; None where a build did not compile it."""

    name: str
    before: Unit | None
    now: Unit | None


class UnitChanges(NamedTuple):
    """What changed between two builds of one machine, by output.

    `slower` and `faster` ran in both. `missed` ran now, and before a cache served it or it was not
    there. `served` ran before only. `new` and `gone` are only in one build. Lists have at most
    `MAX_UNITS`, counts have all.
    """

    slower: tuple[UnitChange, ...]
    faster: tuple[UnitChange, ...]
    missed: tuple[UnitChange, ...]
    counts: dict[str, int]


def units_of(recorded: RecordedBuild) -> dict[str, Unit]:
    """Return the last compile of each output."""
    return {c.output or c.source: _unit(c) for c in recorded.compiles if c.output or c.source}


def _unit(c: Compile) -> Unit:
    return Unit(c.took_us, c.kind in RAN, c.kind in SERVED, c.fallback_word or c.reason)


def changed_units(before: Mapping[str, Unit], now: Mapping[str, Unit]) -> UnitChanges:
    """Return what changed."""
    every = [UnitChange(n, before.get(n), now.get(n)) for n in dict.fromkeys((*now, *before))]
    both = [u for u in every if _ran(u.before) and _ran(u.now)]
    # Of a bypass, or of a launcher that ended early, it is not known whether a compiler ran.
    missed = [u for u in every if _ran(u.now) and (u.before is None or u.before.is_served)]
    slower, faster = [u for u in both if growth(u) > 0], [u for u in both if growth(u) < 0]
    return UnitChanges(
        _most(slower, growth),
        _most(faster, lambda u: -growth(u)),
        _most(missed, growth),
        {
            "slower": len(slower),
            "faster": len(faster),
            "missed": sum(u.before is not None for u in missed),
            "served": sum(
                _ran(u.before) and u.now is not None and u.now.is_served for u in every
            ),
            "new": sum(u.before is None for u in every),
            "gone": sum(u.now is None for u in every),
        },
    )  # fmt: skip


def growth(u: UnitChange) -> int:
    """Return by how many microseconds a unit took longer than before."""
    return (u.now.took_us if u.now else 0) - (u.before.took_us if u.before else 0)


def _ran(unit: Unit | None) -> bool:
    return unit is not None and unit.is_ran


def _most(units: Iterable[UnitChange], key: Callable[[UnitChange], int]) -> tuple[UnitChange, ...]:
    return tuple(sorted(units, key=lambda u: (-key(u), u.name))[:MAX_UNITS])
