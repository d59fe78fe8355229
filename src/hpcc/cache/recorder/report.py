"""Computes what a build's compiles tell: how long, from where, why not from the cache. Pure.

Only claims that follow from the records: what a perfect cache would have saved is the time of the
compiles that ran, not the time that the build would have been shorter. A compiler that ran after a
bypass is not observed, so a bypass counts and has no price.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from hpcc.cache.base.times import Phase
from hpcc.cache.recorder.compiles import Compile, CompileKind
from hpcc.cache.recorder.link_record import LinkRecord
from hpcc.cache.recorder.reading import RecordedBuild

SLOWEST: Final = 20
_MAX_CHAIN: Final = 50
# In these a compiler ran to its end, and hpcc saw how long it took.
RAN: Final = frozenset(
    {CompileKind.FARM, CompileKind.HERE, CompileKind.NOT_KEPT, CompileKind.FAILED}
)
# No cache serves a compile that fails.
COMPILED: Final = RAN - {CompileKind.FAILED}
SERVED: Final = frozenset({CompileKind.HIT, CompileKind.FARM_CACHE})


class Cause(NamedTuple):
    """Why compiles were not served: a reason, how many, what they took, and one of them.

    `family` is `missed`, `bypass`, `uncacheable`, `fallback`, `failed`, `given-up` or `refused`.
    """

    family: str
    word: str
    compiles: int
    took_us: int
    example: Compile


class Changed(NamedTuple):
    """An input that changed, how many compiles missed because of it, and what they took."""

    path: str
    compiles: int
    took_us: int


class CompilePlace(NamedTuple):
    """Where compilers ran: a worker, or "" for this machine."""

    where: str
    compiles: int
    took_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What `hpcc report` shows. Times are microseconds.

    `busy_us` is the time in which at least one compile was under way, `total_us` the sum of all,
    `saved_us` what the hits' results took to make, as far as known. `at_once` is how many were
    under way at the busiest moment. `compiled_us` is what a perfect cache would have saved, for
    `compiled` compiles that ended well. `changed` are inputs by what their change cost. Each of
    `chain` began after the one before had ended.
    """

    build: str
    began_us: int
    ended_us: int
    busy_us: int
    total_us: int
    saved_us: int
    compiled: int
    compiled_us: int
    at_once: int
    counts: dict[CompileKind, int]
    took: dict[CompileKind, int]
    phases: dict[Phase, int]
    causes: tuple[Cause, ...]
    changed: tuple[Changed, ...]
    places: tuple[CompilePlace, ...]
    slowest: tuple[Compile, ...]
    chain: tuple[Compile, ...]
    left_out: int
    is_damaged: bool
    links: tuple[LinkRecord, ...] = ()

    @property
    def compiles(self) -> int:
        """Return how many compiles there were."""
        return sum(self.counts.values())

    @property
    def lookups(self) -> int:
        """Return how many compiles could have been served: hits, and what was compiled."""
        return sum(self.counts.get(kind, 0) for kind in SERVED | RAN)

    @property
    def served(self) -> int:
        """Return how many compiles needed no compiler."""
        return sum(self.counts.get(kind, 0) for kind in SERVED)

    @property
    def average_at_once(self) -> float:
        """Return how many compiles were under way on average while any was."""
        return self.total_us / self.busy_us if self.busy_us else 0.0


def changed_key(c: Compile) -> tuple[str, int]:
    """Return by what `hpcc.cache.results.changed_inputs` names a compile."""
    return c.output, c.ended_us // 1000


def report_of(
    recorded: RecordedBuild, changed: Mapping[tuple[str, int], Sequence[str]] | None = None
) -> BuildReport:
    """Return the report of a build that has at least one compile.

    `changed` has the inputs that changed before a compile, by `changed_key`.
    """
    compiles = recorded.compiles
    busy_us, at_once = _busy(compiles)
    counts, took, phases = Counter[CompileKind](), Counter[CompileKind](), Counter[Phase]()
    for c in compiles:
        counts[c.kind] += 1
        took[c.kind] += c.took_us
        for part in c.phases:
            phases[part.phase] += part.took_us
    ran = [c for c in compiles if c.kind in RAN]
    compiled = [c for c in ran if c.kind in COMPILED]
    return BuildReport(
        build=recorded.build,
        began_us=min(c.began_us for c in compiles),
        ended_us=max(c.ended_us for c in compiles),
        busy_us=busy_us,
        total_us=sum(c.took_us for c in compiles),
        saved_us=sum(c.saved_us for c in compiles if c.kind is CompileKind.HIT),
        compiled=len(compiled),
        compiled_us=sum(c.took_us for c in compiled),
        at_once=at_once,
        counts=dict(counts),
        took=dict(took),
        phases={phase: phases[phase] for phase in Phase if phases[phase]},
        causes=_causes(compiles),
        changed=_changed(compiled, changed or {}),
        places=_places(ran),
        slowest=tuple(heapq.nlargest(SLOWEST, ran, key=lambda c: c.took_us)),
        chain=_chain(ran),
        left_out=recorded.left_out,
        is_damaged=recorded.is_damaged,
        links=recorded.links,
    )


def _busy(compiles: Sequence[Compile]) -> tuple[int, int]:
    """Return how long at least one was under way, and how many at most; sorted by begin."""
    busy_us, covered, most = 0, 0, 0
    ends: list[int] = []
    for c in compiles:
        busy_us += max(0, c.ended_us - max(c.began_us, covered))
        covered = max(covered, c.ended_us)
        while ends and ends[0] <= c.began_us:
            heapq.heappop(ends)
        heapq.heappush(ends, c.ended_us)
        most = max(most, len(ends))
    return busy_us, most


def causes_of(c: Compile) -> list[tuple[str, str]]:
    """Return family and word of each reason why a compile was not served."""
    found: list[tuple[str, str]] = []
    match c.kind:
        case CompileKind.HIT | CompileKind.FARM_CACHE:
            pass
        case CompileKind.BYPASS if c.fallback_word:
            pass  # on Windows the launcher runs the compiler that the farm did not
        case CompileKind.BYPASS:
            found.append(("bypass", c.reason))
        case CompileKind.NOT_KEPT:
            found.append(("uncacheable", c.reason))
        case CompileKind.FAILED | CompileKind.GIVEN_UP | CompileKind.REFUSED:
            found.append((c.kind.value, c.reason if c.kind is CompileKind.REFUSED else ""))
        case CompileKind.FARM | CompileKind.HERE:  # as `MISSED`
            found.append(("missed", c.reason))
    if c.fallback_word:
        found.append(("fallback", c.fallback_word))
    return found


def _causes(compiles: Iterable[Compile]) -> tuple[Cause, ...]:
    found: dict[tuple[str, str], Cause] = {}
    for c in compiles:
        cost = c.took_us if c.kind in RAN else 0
        for key in causes_of(c):
            known = found.get(key)
            if known is None:
                found[key] = Cause(*key, 1, cost, c)
                continue
            example = c if c.took_us > known.example.took_us else known.example
            found[key] = Cause(*key, known.compiles + 1, known.took_us + cost, example)
    return tuple(sorted(found.values(), key=lambda x: (-x.took_us, -x.compiles, x.family, x.word)))


def _changed(
    compiled: Sequence[Compile], changed: Mapping[tuple[str, int], Sequence[str]]
) -> tuple[Changed, ...]:
    """Return the inputs that changed. A compile counts for one: the one that most others have."""
    paths = [(c, changed.get(changed_key(c), ())) for c in compiled]
    often = Counter(path for _, found in paths for path in found)
    compiles, took = Counter[str](), Counter[str]()
    for c, found in paths:
        if found:
            path = max(found, key=lambda name: (often[name], name))
            compiles[path] += 1
            took[path] += c.took_us
    return tuple(Changed(path, compiles[path], us) for path, us in took.most_common())


def _places(ran: Iterable[Compile]) -> tuple[CompilePlace, ...]:
    compiles, took = Counter[str](), Counter[str]()
    for c in ran:
        where = c.where if c.kind is CompileKind.FARM else ""
        compiles[where] += 1
        took[where] += c.took_us
    return tuple(CompilePlace(where, compiles[where], us) for where, us in took.most_common())


def _chain(ran: Sequence[Compile]) -> tuple[Compile, ...]:
    """Return the last compile to end, before it the last to end before it began, and so on."""
    by_end = sorted(ran, key=lambda c: (c.ended_us, c.took_us))
    chain: list[Compile] = []
    for c in reversed(by_end):
        if len(chain) == _MAX_CHAIN:
            break
        if not chain or c.ended_us <= chain[-1].began_us:
            chain.append(c)
    return tuple(reversed(chain))
