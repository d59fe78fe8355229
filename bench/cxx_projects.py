"""C++ projects with modules, with a precompiled header, and with CUDA, beside ccache and sccache.

CMake and Ninja build each project from clean with one tool after the other, in turns: cold, with an
empty cache, and again after the build directory was removed. Every object is compared with the bare
compiler's. Prints a table and writes JSON; ratios pair the figures of one round.

  cxx_projects.py             everything; ten minutes
  cxx_projects.py --quick     one round: does everything work?
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from _measure import BenchError, Cost, measure, rotated, run
from _settings import ALL_TOOLS
from _tools import BARE, OURS, Tool, installed, running

from hpcc_testkit.cache.cxx_projects import (
    plant_cuda,
    plant_modules,
    plant_precompiled,
    without_process_ids,
)
from hpcc_testkit.suite.nvcc import toolkit

RESULT: Final = Path(__file__).parent / "results" / "cxx-projects.json"
PROJECTS: Final[Mapping[str, Callable[[Path], int]]] = {
    "modules": plant_modules,
    "pch": plant_precompiled,
    "cuda": plant_cuda,
}
NVCC: Final = "nvcc"
COMPILERS: Final = ("g++-14", "clang++-19")
ROUNDS: Final = 5
GOAL_COLD: Final = 1.03


@dataclass(slots=True)
class Row:
    """What one tool did with one project; seconds of all rounds."""

    project: str
    compiler: str
    tool: str
    units: int
    cold: list[Cost] = field(default_factory=list)
    again: list[Cost] = field(default_factory=list)
    hits: int = 0
    differing: int = 0

    def document(self, bare: Row) -> dict[str, object]:
        """Return the row with its ratios to the bare compiler's rounds."""
        return {
            "project": self.project,
            "compiler": self.compiler,
            "tool": self.tool,
            "units": self.units,
            "hits": self.hits,
            "differing": self.differing,
            "cold_seconds": round(statistics.median(c.wall for c in self.cold), 3),
            "cold_ratio": _ratio(self.cold, bare.cold),
            "again_seconds": round(statistics.median(c.wall for c in self.again), 3),
            "again_ratio": _ratio(self.again, bare.cold),
        }


def _ratio(rounds: Sequence[Cost], bare: Sequence[Cost]) -> float:
    pairs = zip(rounds, bare, strict=True)
    return round(statistics.median(one.wall / other.wall for one, other in pairs), 3)


class Project:
    """One source tree, built by one compiler."""

    def __init__(self, directory: Path, name: str, compiler: str) -> None:
        self.tree = directory / f"{name}-{compiler}" / "src"
        self.units = PROJECTS[name](self.tree)
        self.compiler, self._bare = compiler, dict[str, bytes]()

    def build(self, tool: Tool) -> Cost:
        """Configure, which is not measured, and build from clean."""
        shutil.rmtree(self.tree / "build", ignore_errors=True)
        is_cuda = self.compiler == NVCC
        language = "CUDA" if is_cuda else "CXX"
        launcher = [f"-DCMAKE_{language}_COMPILER_LAUNCHER={tool.prefix[0]}"] if tool.prefix else []
        path = toolkit() / "bin/nvcc" if is_cuda else self.compiler
        compiler = f"-DCMAKE_{language}_COMPILER={path}"
        configure = ["cmake", "-G", "Ninja", "-B", "build", compiler, *launcher]
        run(configure, {**tool.env, "CUDAARCHS": "80-real"}, self.tree)
        command = ["cmake", "--build", "build", "-j2"]

        def work() -> None:
            run(command, tool.env, self.tree)

        return measure(work, tool.server_seconds)

    def differing(self, *, is_bare: bool) -> int:
        """Return how many objects differ from the bare compiler's, which come first."""
        files = (f for end in ("*.cpp*.o", "*.cu.o") for f in (self.tree / "build").rglob(end))
        contents = {f.name: without_process_ids(f.read_bytes()) for f in files}
        found = {name: hashlib.sha256(made).digest() for name, made in contents.items()}
        if is_bare:
            self._bare = found
        return sum(found.get(name) != digest for name, digest in self._bare.items())


def measured(project: Project, name: str, tools: Sequence[Tool], rounds: int) -> list[Row]:
    """Return a row for each tool."""
    rows = {t.name: Row(name, project.compiler, t.name, project.units) for t in tools}
    for number in range(rounds + 1):
        order = rotated(tools, number) if number else sorted(tools, key=lambda t: t.name != BARE)
        for tool in order:
            row = rows[tool.name]
            tool.clear()
            cold = project.build(tool)
            row.differing += project.differing(is_bare=tool.name == BARE and not number)
            before = tool.counts()
            again = project.build(tool)
            row.differing += project.differing(is_bare=False)
            row.hits = tool.counts().since(before).hits
            if number:  # the first round only warms the machine up
                row.cold.append(cold)
                row.again.append(again)
    return list(rows.values())


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; return 1 if an object through hpcc differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=PROJECTS, help="one kind of project; writes no result")
    args = parser.parse_args(argv)
    names, absent = installed(ALL_TOOLS)
    for reason in absent.values():
        print(f"left out: {reason}")
    found: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="hpcc-cxx-") as name:
        directory = Path(name)
        with running(names, directory / "tools") as tools:
            programs = {tool.name: tool.program() for tool in tools}
            for kind in (args.only,) if args.only else PROJECTS:
                for compiler in (NVCC,) if kind == "cuda" else COMPILERS:
                    project = Project(directory, kind, compiler)
                    rows = measured(project, kind, tools, 1 if args.quick else ROUNDS)
                    bare = next(row for row in rows if row.tool == BARE)
                    found += [row.document(bare) for row in rows]
                    _show(found[-len(rows) :])
    if not (args.quick or args.only):
        document = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "rounds": ROUNDS,
            "programs": programs,
            "rows": found,
        }
        RESULT.write_text(json.dumps(document, indent=1) + "\n")
    return int(any(row["tool"] == OURS and row["differing"] for row in found))


def _show(rows: Sequence[Mapping[str, object]]) -> None:
    for row in rows:
        print(
            f"{row['project']:8} {row['compiler']:11} {row['tool']:8}"
            f" cold {row['cold_seconds']:6} s, {row['cold_ratio']:5} of bare;"
            f" again {row['again_seconds']:6} s, {row['again_ratio']:5} of bare;"
            f" {row['hits']} of {row['units']} hits, {row['differing']} objects differ"
        )


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except BenchError as error:
        raise SystemExit(f"bench: {error}") from None
