"""Rows of the first build in a new build directory: what a hit by content costs.

The source and its headers stay where they are, and are named by absolute paths, as CMake names
them. Each start works in another directory, which is on the search path as `-I`. So the command is
new to each cache while the preprocessed text is not: ccache runs the preprocessor and hits by its
output, and hpcc hits by content. A second start in a directory would be an ordinary hit, so no
directory is used twice by one tool. sccache is left out: its key holds the working directory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from _hits import Spawner
from _measure import Cost, Deferred, rotated, settle
from _rows import Row
from _settings import OURS, Settings
from _tools import Counts, Tool, clean_env, count_notes, running
from _trees import header_tree

_TOOLS: Final = (OURS, "ccache")


def content_rows(settings: Settings, scratch: Path) -> Iterator[Row]:
    """Yield a row for each number of headers."""
    names = tuple(name for name in settings.tools if name in _TOOLS)
    count = max(10, settings.compiles // 2)
    trees = {headers: scratch / f"c{headers}" for headers in settings.headers}
    for headers, tree in trees.items():
        header_tree(tree / "src", headers)
        for name in ("first", *_directories(settings.rounds, count)):
            (tree / name).mkdir()
    spawn = Spawner(scratch)
    with running(names, scratch, launcher=settings.launcher) as tools:
        settle()
        for tree in trees.values():
            for tool in tools:
                spawn(tool, _args(tree, "first"), tree / "first", 1)
        settle()
        for headers, tree in trees.items():
            yield _row(headers, tree, tools, spawn, settings.rounds, count)


def _directories(rounds: int, count: int) -> list[str]:
    return [f"b{number}_{n}" for number in range(rounds) for n in range(count)]


def _args(tree: Path, directory: str) -> list[str]:
    include = [f"-I{tree / directory}", f"-I{tree / 'src'}"]
    outputs = ["-MD", "-MF", "main.d", "-o", "main.o"]
    return ["-c", "-O1", *include, *outputs, str(tree / "src" / "main.c")]


def _row(
    headers: int, tree: Path, tools: list[Tool], spawn: Spawner, rounds: int, count: int
) -> Row:
    spawn(Tool(clean_env()), _args(tree, "first"), tree / "first", 1)
    expected = _outputs(tree / "first")
    costs: dict[str, list[Cost]] = {tool.name: [] for tool in tools}
    wrong: set[str] = set()
    before = {tool.name: tool.counts() for tool in tools}
    deferred = Deferred(tools)
    for number in range(rounds):
        for tool in rotated(tools, number):
            # spawn.c changes to the directory of each start.
            directory = f"b{number}_{{n}}"
            args = _args(tree, directory)
            costs[tool.name].append(spawn(tool, args, tree, count, directory=directory))
            made = (_outputs(tree / f"b{number}_{n}") for n in range(count))
            if any(outputs != expected for outputs in made):
                wrong.add(tool.name)
            _remove_outputs(tree, number, count)
    deferred.charge(costs)
    done = {tool.name: tool.counts().since(before[tool.name]) for tool in tools}
    notes = [f"{name} wrote something else than the compiler" for name in sorted(wrong)]
    notes += count_notes(done, Counts(hits=rounds * count, misses=0))
    what = f"hit by content in a new build directory, {headers} headers"
    return Row(
        f"content-{headers}", what, "ccache", count, costs,
        checked=2 * rounds * count, differing=("main.o or main.d",) if OURS in wrong else (),
        notes=tuple(notes),
    )  # fmt: skip


def _outputs(directory: Path) -> tuple[bytes, bytes]:
    return (directory / "main.o").read_bytes(), (directory / "main.d").read_bytes()


def _remove_outputs(tree: Path, number: int, count: int) -> None:
    """Remove a round's outputs, so that the next tool finds none."""
    for n in range(count):
        for name in ("main.o", "main.d"):
            (tree / f"b{number}_{n}" / name).unlink()
