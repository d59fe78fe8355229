"""Rows on generated header trees: what one compile costs, hit or miss.

A small C program (`spawn.c`) starts the commands, because Python or a shell would add cost. Every
tree is older than the caches' window for recent changes before a result is stored, and again before
the first measurement. After every round the outputs, dependency file included, are compared with
the bare compiler's. Each tool's counters must show only hits (or only misses), because otherwise
the row would measure something else.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from _measure import Cost, Deferred, rotated, run, settle
from _rows import Row
from _settings import BARE, OURS, Settings
from _tools import Counts, Tool, clean_env, count_notes, running
from _trees import age, header_tree, write_source

_SPAWN_SOURCE: Final = Path(__file__).resolve().parent / "spawn.c"
_PARALLEL: Final = 2
_RATE_HEADERS: Final = 10
_COLD_HEADERS: Final = 10
_INCLUDE_DIRS: Final = 20


class Spawner:
    """Starts a compile many times with a tool in front of it."""

    def __init__(self, scratch: Path) -> None:
        self._program = scratch / "spawn"
        command = ["gcc", "-O2", "-Wall", "-Wextra", str(_SPAWN_SOURCE), "-o", str(self._program)]
        run(command, clean_env(), scratch)

    def __call__(
        self,
        tool: Tool,
        args: Sequence[str],
        cwd: Path,
        count: int,
        *,
        at_once: int = 1,
        directory: str = ".",
    ) -> Cost:
        """Return the cost of `count` starts, `at_once` at a time.

        spawn.c describes `args` and `directory`, which is relative to `cwd`.
        """
        compiler = [*tool.prefix, "gcc"] if tool.prefix else [_gcc()]
        argv = [str(self._program), str(count), str(at_once), directory, *compiler, *args]
        before = tool.server_seconds()
        wall, cpu = (int(word) / 1e9 for word in run(argv, tool.env, cwd).split())
        server = tool.server_seconds() - before
        return Cost(wall, cpu + server, server)


@functools.cache
def _gcc() -> str:
    return shutil.which("gcc", path=clean_env()["PATH"]) or "/usr/bin/gcc"


@dataclass(frozen=True, slots=True)
class _Case:
    """One tree whose compile must be a hit."""

    key: str
    what: str
    tree: Path
    flags: tuple[str, ...]
    count: int
    at_once: int = 1
    metrics: tuple[str, ...] = ("cpu", "wall")

    def args(self) -> list[str]:
        outputs = ["-MD", "-MF", "main{slot}.d", "-o", "main{slot}.o"]
        return ["-c", "-O1", *outputs, *self.flags, "main.c"]

    def outputs(self) -> list[bytes]:
        names = [f"main{slot}.{kind}" for slot in range(self.at_once) for kind in ("o", "d")]
        return [(self.tree / name).read_bytes() for name in names]


def hit_rows(settings: Settings, scratch: Path) -> Iterator[Row]:
    """Yield rows of hits by number of headers, in 1 and in 20 directories; then hits per second."""
    cases = list(_cases(settings, scratch))
    spawn = Spawner(scratch)
    with running(settings.caches, scratch, launcher=settings.launcher) as tools:
        settle()
        for case in cases:
            for tool in tools:
                spawn(tool, case.args(), case.tree, 2 * case.at_once, at_once=case.at_once)
        settle()
        for case in cases:
            yield _hit_row(case, tools, spawn, settings.rounds)


def _cases(settings: Settings, scratch: Path) -> Iterator[_Case]:
    for headers in settings.headers:
        tree = scratch / f"h{headers}"
        header_tree(tree, headers)
        yield _Case(f"hit-{headers}", f"hit, {headers} headers", tree, (), settings.compiles)
    for headers in settings.dirs_headers:
        tree = scratch / f"h{headers}-dirs"
        flags = header_tree(tree, headers, include_dirs=_INCLUDE_DIRS)
        what = f"hit, {headers} headers in {_INCLUDE_DIRS} -I directories"
        yield _Case(f"hit-{headers}-dirs", what, tree, tuple(flags), settings.compiles)
    tree = scratch / "rate"
    header_tree(tree, _RATE_HEADERS)
    what = f"hits per second, two at once, {_RATE_HEADERS} headers"
    count = 4 * settings.compiles
    yield _Case(f"rate-{_RATE_HEADERS}", what, tree, (), count, _PARALLEL, ("rate",))


def _hit_row(case: _Case, tools: Sequence[Tool], spawn: Spawner, rounds: int) -> Row:
    spawn(Tool(clean_env()), case.args(), case.tree, case.at_once, at_once=case.at_once)
    expected = case.outputs()
    for tool in tools:  # again, because a server may still learn from the first hit after a change
        spawn(tool, case.args(), case.tree, 2 * case.at_once, at_once=case.at_once)
    costs: dict[str, list[Cost]] = {tool.name: [] for tool in tools}
    wrong: set[str] = set()
    before = {tool.name: tool.counts() for tool in tools}
    deferred = Deferred(tools)
    for number in range(rounds):
        for tool in rotated(tools, number):
            args = (case.args(), case.tree, case.count)
            costs[tool.name].append(spawn(tool, *args, at_once=case.at_once))
            if case.outputs() != expected:
                wrong.add(tool.name)
    deferred.charge(costs)
    notes = _notes(tools, before, wrong, Counts(hits=rounds * case.count, misses=0))
    differing = ("main.o or main.d",) if OURS in wrong else ()
    checked = rounds * len(expected)
    return Row(
        case.key, case.what, "ccache", case.count, costs, case.metrics,
        checked=checked, differing=differing, notes=notes,
    )  # fmt: skip


def _notes(
    tools: Sequence[Tool], before: dict[str, Counts], wrong: Iterable[str], expected: Counts
) -> tuple[str, ...]:
    done = {t.name: t.counts().since(before[t.name]) for t in tools if t.name != BARE}
    notes = [f"{name} wrote something else than the compiler" for name in sorted(wrong)]
    return (*notes, *count_notes(done, expected))


def cold_row(settings: Settings, scratch: Path) -> Row:
    """Return the row of misses of small C files, each new to the cache, against bare compiles."""
    tree, rounds, count = scratch / "cold", settings.cold_rounds, max(10, settings.compiles // 2)
    header_tree(tree, _COLD_HEADERS)
    for number in range(rounds):
        for n in range(count):
            body = f"int round_{number}_{n}(int x) {{ return x * {n} + {number}; }}"
            write_source(tree / f"c{number}_{n}.c", _COLD_HEADERS, body)
    age(tree)
    spawn = Spawner(scratch)
    wrong: set[str] = set()
    with running(settings.tools, scratch, launcher=settings.launcher) as tools:
        costs: dict[str, list[Cost]] = {tool.name: [] for tool in tools}
        settle()
        before = {tool.name: tool.counts() for tool in tools}
        deferred = Deferred(tools)
        for number in range(rounds):
            name = f"c{number}_{{n}}"
            args = ["-c", "-O1", "-MD", "-MF", f"{name}.d", f"{name}.c", "-o", f"{name}.o"]
            found: dict[str, list[bytes]] = {}
            for tool in rotated(tools, number):
                costs[tool.name].append(spawn(tool, args, tree, count))
                found[tool.name] = _take_outputs(tree, number)
            wrong |= {name for name, bytes_ in found.items() if bytes_ != found[BARE]}
        deferred.charge(costs)
        notes = _notes(tools, before, wrong, Counts(hits=0, misses=rounds * count))
    return Row(
        "cold-headers", f"cold C file, {_COLD_HEADERS} headers", BARE, count, costs,
        checked=2 * rounds * count, differing=("an object",) if OURS in wrong else (), notes=notes,
    )  # fmt: skip


def _take_outputs(tree: Path, number: int) -> list[bytes]:
    """Return the outputs of a round, and remove them so that the next tool finds none."""
    found = []
    for path in sorted([*tree.glob(f"c{number}_*.o"), *tree.glob(f"c{number}_*.d")]):
        found.append(path.read_bytes())
        path.unlink()
    return found
