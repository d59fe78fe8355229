"""What a client tells its farm of one build: numbers and words of hpcc, no name of a file.

A summary is a claim of the client. It names and counts things, and decides nothing. Every field is
bounded here, so that one check holds for the daemon, for the scheduler that keeps it, and for the
reader that shows it.

What must never be in a summary: a path, a command line, a variable, a digest of an input. A reason
may carry a detail in the record of a build (`unknown-flag:-fplugin=/home/ann/x`), so a word counts
only if it has the form of a word of hpcc; otherwise it is `other`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Final, NamedTuple

from hpcc.core.build_lanes import MAX_BARS, MAX_LANES, LaneRow, is_lane
from hpcc.core.errors import CallerError

MAX_NAME_CHARS: Final = 128
MAX_KINDS: Final = 16
MAX_CAUSES: Final = 24
MAX_PHASES: Final = 16
MAX_PLACES: Final = 32
MAX_SLOWEST: Final = 20
BINS: Final = 48
"""How many equal parts of the build's time `activity` has."""
OTHER: Final = "other"
NO_DISPATCHER: Final = "no-dispatcher"
"""Why a summary was not sent: no compile has asked the farm yet, and nothing is wrong."""
NO_REPORTS: Final = "no-reports"
"""Why it was not: the compiles go to a service that takes no reports, and nothing is wrong."""
INSTEAD: Final = ("fallback", "refused")
"""The families of causes of compiles that the farm should have done and did not."""
HEAD_CAUSES: Final = 8
"""How many causes of a build a list of builds has by name."""
HEAD_BINS: Final = 12
_HEAD_FAMILIES: Final = (*INSTEAD, "missed")
# The year 9999.
MAX_AT_MS: Final = 253_402_000_000_000
MAX_NUMBER: Final = (1 << 32) - 1
_WORD: Final = re.compile(r"[a-z0-9][a-z0-9.+_-]{0,63}")
_PLACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}")
_SOURCE: Final = re.compile(r"[0-9a-f]{16}")
_COMMIT: Final = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})?")


class Tally(NamedTuple):
    """How many compiles something had, and what they took together."""

    word: str
    compiles: int
    took_ms: int


class CauseTally(NamedTuple):
    """Why compiles were not served: see `hpcc.cache.recorder.report.Cause`."""

    family: str
    word: str
    compiles: int
    took_ms: int


class SlowCompile(NamedTuple):
    """One of the slowest compiles, without its name. `offset_ms` counts from the build's begin.

    `where` is the worker, "" for the machine that built. Worker and guest are as the client has
    them from the worker that answered.
    """

    offset_ms: int
    took_ms: int
    kind: str
    word: str
    where: str
    guest: str


class Activity(NamedTuple):
    """What was under way in one part of the build's time, in milliseconds of compiles.

    `served` counts compiles that a cache served, in that part.
    """

    served: int
    farm_ms: int
    here_ms: int
    instead_ms: int


_ROWS: Final[Mapping[str, Callable[..., tuple[object, ...]]]] = {
    "kinds": Tally, "causes": CauseTally, "phases": Tally, "places": Tally,
    "slowest": SlowCompile, "activity": Activity,
    "lanes": lambda where, numbers: LaneRow(where, tuple(numbers)),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSummary:
    """One build as one recorder has it. Times are milliseconds, `began_ms` since the epoch.

    `source` names the recorder: the jobs of one CI run are one build, on several machines. `commit`
    is what the project's repository had checked out, "" if unknown. `left_out` compiles are not
    counted, because the record did not keep them. `off_lanes` compiles that ran are in no lane.
    """

    build: str
    source: str
    began_ms: int
    ended_ms: int
    commit: str = ""
    busy_ms: int = 0
    total_ms: int = 0
    at_once: int = 0
    left_out: int = 0
    is_damaged: bool = False
    kinds: tuple[Tally, ...] = ()
    causes: tuple[CauseTally, ...] = ()
    phases: tuple[Tally, ...] = ()
    places: tuple[Tally, ...] = ()
    slowest: tuple[SlowCompile, ...] = ()
    activity: tuple[Activity, ...] = ()
    lanes: tuple[LaneRow, ...] = ()
    off_lanes: int = 0

    def __post_init__(self) -> None:
        """Refuse what is outside the bounds."""
        if not is_build_name(self.build):
            raise CallerError("a build's name is 1 to 128 printable characters", reason="build")
        if not _SOURCE.fullmatch(self.source):
            raise CallerError("a build's source is 16 hex digits", reason="build")
        if not _COMMIT.fullmatch(self.commit):
            raise CallerError("a commit is 40 or 64 hex digits", reason="build")
        if not 0 <= self.began_ms <= self.ended_ms <= MAX_AT_MS:
            raise CallerError("a build ends after its begin", reason="build")
        self._check_rows()
        self._check_lanes()

    def _check_lanes(self) -> None:
        """Refuse too much, and lanes whose place is not in `places`, which a message refers to."""
        bars = sum(len(lane.numbers) for lane in self.lanes) // 3
        if len(self.lanes) > MAX_LANES or bars > MAX_BARS:
            raise CallerError(
                f"a build has at most {MAX_LANES} lanes and {MAX_BARS} bars in them", reason="build"
            )
        places = {tally.word for tally in self.places}
        if not all(lane.where in places and is_lane(lane) for lane in self.lanes):
            raise CallerError("a lane of a build has another form", reason="build")

    def _check_rows(self) -> None:
        for rows, most in (
            (self.kinds, MAX_KINDS), (self.causes, MAX_CAUSES), (self.phases, MAX_PHASES),
            (self.places, MAX_PLACES), (self.slowest, MAX_SLOWEST), (self.activity, BINS),
        ):  # fmt: skip
            if len(rows) > most:
                raise CallerError(f"a build has at most {most} rows of a kind", reason="build")
        for number in self._numbers():
            if not 0 <= number <= MAX_NUMBER:
                raise CallerError("a number of a build is out of its range", reason="build")
        for word in self._words():
            if not _WORD.fullmatch(word):
                raise CallerError("a word of a build has another form", reason="build")
        for place in self._places():
            if place and not _PLACE.fullmatch(place):
                raise CallerError("the name of a worker or guest has another form", reason="build")

    @property
    def compiles(self) -> int:
        """Return how many compiles there were."""
        return sum(tally.compiles for tally in self.kinds)

    def table(self) -> dict[str, object]:
        """Return the summary as JSON has it; `summary_of_table` reads it."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def head(self) -> BuildSummary:
        """Return what a list of builds shows: fewer causes, parts and slow compiles.

        Of causes, those of `INSTEAD` and misses: the first ones, and a row for the rest of each
        family, so that sums stay what they are.
        """
        causes = _few([c for c in self.causes if c.family in _HEAD_FAMILIES])
        activity = _coarse(self.activity)
        return replace(
            self, causes=causes, phases=(), places=(), slowest=self.slowest[:1], activity=activity,
            lanes=(), off_lanes=0,
        )  # fmt: skip

    def _numbers(self) -> list[int]:
        found = [self.busy_ms, self.total_ms, self.at_once, self.left_out, self.off_lanes]
        for tally in (*self.kinds, *self.phases, *self.places):
            found += [tally.compiles, tally.took_ms]
        for cause in self.causes:
            found += [cause.compiles, cause.took_ms]
        for slow in self.slowest:
            found += [slow.offset_ms, slow.took_ms]
        for part in self.activity:
            found += part
        return found

    def _words(self) -> list[str]:
        found = [tally.word for tally in (*self.kinds, *self.phases)]
        found += [word for c in self.causes for word in (c.family, c.word) if word]
        found += [word for s in self.slowest for word in (s.kind, s.word) if word]
        return found

    def _places(self) -> list[str]:
        return [t.word for t in self.places] + [n for s in self.slowest for n in (s.where, s.guest)]


def _few(causes: list[CauseTally]) -> tuple[CauseTally, ...]:
    """Return the causes of most compiles; the rest of a family is one of the word `other`."""
    ordered = sorted(causes, key=lambda c: -c.compiles)
    found, rest = ordered[:HEAD_CAUSES], ordered[HEAD_CAUSES:]
    for family in _HEAD_FAMILIES:
        more = [c for c in rest if c.family == family]
        if more:
            compiles, took_ms = (sum(each) for each in zip(*(c[2:] for c in more), strict=True))
            found.append(CauseTally(family, OTHER, number_of(compiles), number_of(took_ms)))
    return tuple(found)


def _coarse(parts: tuple[Activity, ...]) -> tuple[Activity, ...]:
    """Return the same sums in at most `HEAD_BINS` parts, of equal times where there are `BINS`."""
    step = -(-len(parts) // HEAD_BINS)
    if step <= 1 or len(parts) % step:
        return parts[:HEAD_BINS] if step <= 1 else ()
    return tuple(
        Activity(*(number_of(sum(each)) for each in zip(*parts[at : at + step], strict=True)))
        for at in range(0, len(parts), step)
    )


def summary_of_table(table: Mapping[str, object]) -> BuildSummary:
    """Return the summary of a table that came through JSON from another process of this user.

    Raises:
        CallerError: it has another form.
    """
    try:
        rows = {
            name: tuple(kind(*row) for row in table[name])  # type: ignore[attr-defined]  # checked
            for name, kind in _ROWS.items()
        }
        return BuildSummary(**{**table, **rows})  # type: ignore[arg-type]  # checked below
    except (KeyError, TypeError) as error:
        raise CallerError("not the summary of a build", reason="frame") from error


def is_build_name(text: str) -> bool:
    """Return whether a text can name a build."""
    return 0 < len(text) <= MAX_NAME_CHARS and text.isprintable() and text == text.strip()


def word_of(text: str) -> str:
    """Return a word of hpcc without its detail; of anything else `other`."""
    word = text.partition(":")[0]
    return word if not word or _WORD.fullmatch(word) else OTHER


def place_name(text: str) -> str:
    """Return the name of a worker or guest; "" if it has another form."""
    return text if _PLACE.fullmatch(text) else ""


def number_of(number: int) -> int:
    """Return a number inside its range."""
    return min(max(number, 0), MAX_NUMBER)
