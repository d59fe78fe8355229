"""Rows on whole builds: bare and through each cache, cold and warm, `make` itself included.

Cold: the cache is emptied before every build, and its server has seen the compiler before. Warm:
the cache has all results, and the objects are removed. The order of the tools rotates by one each
round, and each ratio pairs figures of one round. Snapshots of all objects and dependency files are
compared with the bare compiler's. Files that differ between two bare builds are left out and named.
"""

from __future__ import annotations

import functools
import hashlib
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from _measure import BenchError, Cost, Deferred, measure, rotated, run, settle
from _projects import Build
from _rows import Row
from _settings import BARE, FRESH, OURS
from _tools import Counts, Tool, count_notes

Snapshot = Mapping[str, bytes]


@dataclass(slots=True)
class Builder:
    """Builds one tree with one tool after the other, and keeps snapshots of the outputs."""

    build: Build
    cc: str = "gcc"
    cxx: str = "g++"
    patterns: tuple[str, ...] = ("**/*.o", "**/*.d")
    snapshots: list[tuple[str, Snapshot]] = field(default_factory=list)
    unsteady: set[str] = field(default_factory=set)

    def __call__(self, tool: Tool, label: str = "") -> Cost:
        """Remove the outputs, build, and take a snapshot."""
        run(self.words(tool, self.build.clean), tool.env, self.build.directory)
        work = functools.partial(
            run, self.words(tool, self.build.build), tool.env, self.build.directory
        )
        cost = measure(lambda: _drop(work()), tool.server_seconds)
        self.snapshots.append((label or tool.name, self._snapshot()))
        return cost

    def words(self, tool: Tool, template: Sequence[str]) -> list[str]:
        cc, cxx = ([*tool.prefix, compiler] for compiler in (self.cc, self.cxx))
        return [
            w.replace("{cc}", shlex.join(cc)).replace("{cxx}", shlex.join(cxx)) for w in template
        ]

    def _snapshot(self) -> Snapshot:
        found = {
            str(path.relative_to(self.build.directory)): hashlib.sha256(path.read_bytes()).digest()
            for pattern in self.patterns
            for path in self.build.directory.glob(pattern)
            if path.is_file()
        }
        if not found:
            raise BenchError(f"{self.build.name}: the build leaves no object behind")
        return found

    def judge(self) -> Verdict:
        """Compare all snapshots since the last call, and drop them except a bare one."""
        verdict = compare(self.snapshots, self.unsteady)
        self.unsteady.update(verdict.unsteady)
        self.snapshots = [entry for entry in self.snapshots if entry[0] == BARE][:1]
        return verdict

    def compiles(self) -> int:
        """Return the number of compiles in a build, which is its number of objects."""
        return sum(name.endswith(".o") for name in self.snapshots[-1][1])


def _drop(_: object) -> None:
    """Discard the build's output."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`unsteady` files differ between bare builds; `differing` are by tool."""

    checked: int
    unsteady: tuple[str, ...]
    differing: Mapping[str, tuple[str, ...]]


def compare(
    snapshots: Sequence[tuple[str, Snapshot]], known_unsteady: Iterable[str] = ()
) -> Verdict:
    """Return the files that each tool wrote differently from the bare builds."""
    bare = [snapshot for name, snapshot in snapshots if name == BARE]
    expected = bare[0]
    unsteady = set(known_unsteady)
    for other in bare[1:]:
        names = expected.keys() | other.keys()
        unsteady |= {name for name in names if expected.get(name) != other.get(name)}
    differing: dict[str, set[str]] = {}
    checked = 0
    for tool, snapshot in snapshots:
        if tool != BARE:
            names = (expected.keys() | snapshot.keys()) - unsteady
            checked += len(names) if tool == OURS else 0
            wrong = {name for name in names if expected.get(name) != snapshot.get(name)}
            differing.setdefault(tool, set()).update(wrong)
    by_tool = {tool: tuple(sorted(names)) for tool, names in differing.items() if names}
    return Verdict(checked, tuple(sorted(unsteady)), by_tool)


def cold_rows(builder: Builder, tools: Sequence[Tool], rounds: int) -> Iterator[Row]:
    """Yield the row of builds with an empty cache, and a separate row for `FreshHpcc`."""
    costs: dict[str, list[Cost]] = {tool.name: [] for tool in tools}
    counted = [tool for tool in tools if tool.name not in {BARE, FRESH}]
    done = {tool.name: Counts(0, 0) for tool in counted}
    for number in range(rounds):
        for tool in rotated(tools, number):
            tool.clear()
            start = tool.counts() if tool in counted else None
            costs[tool.name].append(builder(tool, OURS if tool.name == FRESH else ""))
            if start is not None:
                done[tool.name] = done[tool.name].plus(tool.counts().since(start))
    notes = count_notes(done, Counts(hits=0, misses=rounds * builder.compiles()))
    verdict = builder.judge()
    name = builder.build.name
    fresh = costs.pop(FRESH, None)
    yield _row(f"cold-{name}", f"cold build, {name} -j2", BARE, costs, verdict, notes)
    if fresh is not None:
        both = {FRESH: fresh, BARE: costs[BARE]}
        what = f"first build of a new daemon, {name} -j2"
        yield Row(f"new-daemon-{name}", what, BARE, 1, both, ours=FRESH)


def warm_row(builder: Builder, tools: Sequence[Tool], rounds: int, *, where: str = "") -> Row:
    """Return the row of builds with only hits, after `fill` or a cold build filled the cache."""
    name = builder.build.name
    caches = [tool for tool in tools if tool.name not in {BARE, FRESH}]
    if not any(label == BARE for label, _ in builder.snapshots):
        builder(next(tool for tool in tools if tool.name == BARE))
    settle()
    for tool in caches:
        builder(tool)
    costs: dict[str, list[Cost]] = {tool.name: [] for tool in caches}
    before = {tool.name: tool.counts() for tool in caches}
    deferred = Deferred(caches)
    for number in range(rounds):
        for tool in rotated(caches, number):
            costs[tool.name].append(builder(tool))
    deferred.charge(costs)
    done = {tool.name: tool.counts().since(before[tool.name]) for tool in caches}
    notes = count_notes(done, Counts(hits=rounds * builder.compiles(), misses=0))
    key = f"{where or 'warm'}-{name}"
    what = f"warm build, {name} -j2" + (f", on {where}" if where else "")
    return _row(key, what, "ccache", costs, builder.judge(), notes)


def fill(builder: Builder, tools: Sequence[Tool]) -> None:
    """Build once with each tool, without measuring."""
    for tool in tools:
        if tool.name != FRESH:
            builder(tool)


def _row(
    key: str, what: str, against: str, costs: Mapping[str, list[Cost]], verdict: Verdict,
    notes: list[str],
) -> Row:  # fmt: skip
    notes += [
        f"{tool} wrote {len(names)} files otherwise than the compiler, {names[0]} among them"
        for tool, names in verdict.differing.items()
    ]
    if verdict.unsteady:
        notes.append(f"not compared, bare builds differ: {', '.join(verdict.unsteady[:10])}")
    return Row(
        key, what, against, 1, costs, checked=verdict.checked,
        differing=verdict.differing.get(OURS, ()), notes=tuple(notes),
    )  # fmt: skip
