"""C++20 modules, precompiled headers, clang-tidy and CUDA by CMake, beside ccache and sccache.

CMake and Ninja build each project with one tool after the other. One round is four builds:

  cold            with an empty cache, from clean
  second build    in the same build directory: all sources touched, `ninja clean`
  after `rm -rf`  of the build directory, configured again
  second clone    in another clone of the git repository, which has a `.hpcc` at its root

Every object and every line that a build prints is compared with the bare compiler's in the same
clone, and each compiled interface and precompiled header must be there. Prints the table of
docs/performance.md and writes JSON; ratios pair the figures of one round.

  cxx_projects.py                    all projects and tools, one round; twelve minutes
  cxx_projects.py --tools hpcc ccache "ccache, set" "sccache, set"   ten
  cxx_projects.py --rounds 5         five
  cxx_projects.py --projects cuda    these only; writes no result
  cxx_projects.py --quick            one round, without ccache and sccache: does everything work?
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
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from _cxx_tools import (
    BARE,
    NAMES,
    OURS,
    available,
    counters,
    is_set,
    running,
    settle_in,
    uses_modules,
)
from _measure import BenchError, Cost, measure, rotated, run
from _tools import Tool, clean_env

from hpcc_testkit.cache.cxx_projects import (
    plant_checked,
    plant_cuda,
    plant_modules,
    plant_precompiled,
    plant_std,
    without_process_ids,
)
from hpcc_testkit.suite.nvcc import toolkit

RESULT: Final = Path(__file__).parent / "results" / "cxx-projects.json"
NVCC: Final = "nvcc"
GCC: Final = "g++-14"
CLANG: Final = "clang++-19"
SHOWN: Final = {GCC: "GCC 14", CLANG: "Clang 19", NVCC: "nvcc 13.0"}
TIDY: Final = "clang-tidy-19"
BINARY: Final = frozenset({".gcm", ".pcm", ".gch", ".pch"})
BUILDS: Final = ("cold", "second build", "after `rm -rf`", "second clone")
# A file that changed just before a compile counts as one that may change during it.
QUIET_SECONDS: Final = 2.1


class Kind(NamedTuple):
    """One kind of project. With `is_checked` clang-tidy runs for each unit, through hpcc.

    The others cache nothing of clang-tidy, and have no setting for it: one of each suffices.
    """

    plant: Callable[[Path], int]
    compilers: tuple[str, ...]
    is_checked: bool = False


PROJECTS: Final[Mapping[str, Kind]] = {
    "modules": Kind(plant_modules, (GCC, CLANG)),
    "pch": Kind(plant_precompiled, (GCC, CLANG)),
    "import-std": Kind(plant_std, (CLANG,)),
    "tidy": Kind(plant_checked, (CLANG,), is_checked=True),
    "cuda": Kind(plant_cuda, (NVCC,)),
}


@dataclass(slots=True)
class Row:
    """What one tool did with one project; by build: seconds of all rounds, hits of the last one."""

    project: str
    compiler: str
    tool: str
    units: int
    costs: dict[str, list[Cost]] = field(default_factory=lambda: {name: [] for name in BUILDS})
    hits: dict[str, int] = field(default_factory=dict)
    counted: dict[str, dict[str, int]] = field(default_factory=dict)
    differing: int = 0

    def document(self, bare: Row) -> dict[str, object]:
        """Return the row with its ratios to the bare compiler's cold builds."""
        builds = {
            name: {
                "seconds": round(statistics.median(c.wall for c in costs), 3),
                "cpu_seconds": round(statistics.median(c.cpu for c in costs), 3),
                "ratio": _ratio(costs, bare.costs["cold"]),
                "hits": self.hits.get(name, 0),
                "counters": self.counted.get(name, {}),
            }
            for name, costs in self.costs.items()
            if costs
        }
        return {
            "project": self.project,
            "compiler": self.compiler,
            "tool": self.tool,
            "units": self.units,
            "differing": self.differing,
            "builds": builds,
        }


def _ratio(rounds: Sequence[Cost], bare: Sequence[Cost]) -> float:
    pairs = zip(rounds, bare, strict=True)
    return round(statistics.median(one.wall / other.wall for one, other in pairs), 3)


class Built(NamedTuple):
    """What a build left: digests of its outputs, and its messages without the order of units."""

    objects: dict[str, bytes]
    said: list[str]


class Project:
    """Two clones of one repository, built by one compiler."""

    def __init__(self, directory: Path, name: str, compiler: str) -> None:
        place = directory / f"{name}-{compiler}"
        self.name, self.kind, self.compiler = name, PROJECTS[name], compiler
        self.clones = (place / "clone", place / "second-clone")
        self.units = self.kind.plant(self.clones[0] / "src")
        (self.clones[0] / ".hpcc").touch()
        self._bare: dict[Path, Built] = {}
        self._last = ""
        env = clean_env()
        (self.clones[0] / ".gitignore").write_text("build/\n")
        me = ("-c", "user.name=bench", "-c", "user.email=bench@localhost")
        for command in (("init", "-q"), ("add", "."), (*me, "commit", "-q", "-m", "all")):
            run(["git", *command], env, self.clones[0])
        run(["git", "clone", "-q", *map(str, self.clones)], env, place)

    def configure(self, tool: Tool, clone: Path) -> None:
        """Remove the build directory and configure; not measured."""
        tree = clone / "src"
        shutil.rmtree(tree / "build", ignore_errors=True)
        is_cuda = self.compiler == NVCC
        language = "CUDA" if is_cuda else "CXX"
        path = toolkit() / "bin/nvcc" if is_cuda else self.compiler
        command = ["cmake", "-G", "Ninja", "-B", "build", f"-DCMAKE_{language}_COMPILER={path}"]
        if tool.prefix:
            command.append(f"-DCMAKE_{language}_COMPILER_LAUNCHER={tool.prefix[0]}")
        if is_set(tool) and not uses_modules(self.name):
            command.append("-DCMAKE_CXX_SCAN_FOR_MODULES=OFF")
        if self.kind.is_checked:  # ccache and sccache do not cache it
            checker = f"{tool.prefix[0]};{TIDY}" if tool.name == OURS else TIDY
            command.append(f"-DCMAKE_CXX_CLANG_TIDY={checker}")
        env = {**tool.env, "CUDAARCHS": "80-real"}
        if self.name == "import-std":
            env["CXXFLAGS"] = "-stdlib=libc++"
        run(command, env, tree)

    def build(self, tool: Tool, clone: Path) -> Cost:
        """Build what was configured."""

        def work() -> None:
            command = ["cmake", "--build", "build", "-j2"]
            self._last = run(command, tool.env, clone / "src")

        return measure(work, tool.server_seconds)

    def remove_outputs(self, tool: Tool, clone: Path) -> None:
        """Remove what was built, and touch all sources."""
        run(["ninja", "-C", "build", "clean"], tool.env, clone / "src")
        for path in _files(clone):
            if path.suffix in {".h", ".cpp", ".cppm", ".cu"}:
                path.touch()

    def note_bare(self, clone: Path) -> None:
        """Remember the last build as the bare compiler's in this clone."""
        self._bare[clone] = self._built(clone)

    def differing(self, clone: Path) -> int:
        """Return how many outputs, and lines of messages, are missing or not those of bare."""
        made, bare = self._built(clone), self._bare[clone]
        objects = sum(made.objects.get(n) != digest for n, digest in bare.objects.items())
        lines = len(bare.said) if made.said != bare.said else 0
        return objects + len(made.objects.keys() - bare.objects.keys()) + lines

    def _built(self, clone: Path) -> Built:
        build = clone / "src" / "build"
        found = {}
        for path in build.rglob("*"):
            content = b""  # interfaces and precompiled headers hold paths or times: are they there?
            if path.suffix == ".o":
                content = without_process_ids(path.read_bytes())
            elif path.suffix not in BINARY:
                continue
            found[str(path.relative_to(build))] = hashlib.sha256(content).digest()
        said = sorted(line for line in self._last.splitlines() if not line.startswith("["))
        return Built(found, said)


def _files(clone: Path) -> Iterator[Path]:
    for directory, names, files in clone.walk():
        names[:] = [name for name in names if name not in {"build", ".git"}]
        yield from (directory / name for name in files)


def measured(project: Project, tools: Sequence[Tool], rounds: int) -> list[Row]:
    """Return a row for each tool."""
    units = project.units * (2 if project.kind.is_checked else 1)
    rows = {t.name: Row(project.name, project.compiler, t.name, units) for t in tools}
    bare = next(tool for tool in tools if tool.name == BARE)
    for clone in project.clones:  # what all are compared with; also warms the machine up
        project.configure(bare, clone)
        project.build(bare, clone)
        project.note_bare(clone)
    for tool in tools:
        settle_in(tool, project.name, project.clones)
    for number in range(rounds):
        for tool in rotated(tools, number):
            _round(project, tool, rows[tool.name])
    return list(rows.values())


def _round(project: Project, tool: Tool, row: Row) -> None:
    tool.clear()
    first, second = project.clones
    for build in BUILDS[:1] if tool.name == BARE else BUILDS:
        clone = second if build == BUILDS[3] else first
        if build == BUILDS[1]:
            project.remove_outputs(tool, clone)
        else:
            project.configure(tool, clone)
        before, counted = tool.counts(), counters(tool)
        row.costs[build].append(project.build(tool, clone))
        row.hits[build] = tool.counts().since(before).hits
        row.counted[build] = {
            name: count - counted.get(name, 0)
            for name, count in counters(tool).items()
            if count != counted.get(name, 0)
        }
        row.differing += project.differing(clone)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; return 1 if an object or a message through hpcc differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="hpcc only; writes no result")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--projects", nargs="+", choices=PROJECTS, help="writes no result")
    parser.add_argument("--tools", nargs="+", choices=NAMES, help="beside bare")
    args = parser.parse_args(argv)
    names, absent = available((BARE, OURS) if args.quick else _chosen(args.tools))
    for reason in absent.values():
        print(f"left out: {reason}")
    found: list[dict[str, object]] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hpcc-cxx-") as name:
        directory = Path(name)
        with running(names, directory / "tools") as tools:
            programs = {tool.name: tool.program() for tool in tools}
            for kind in args.projects or PROJECTS:
                for compiler in PROJECTS[kind].compilers:
                    project = Project(directory, kind, compiler)
                    time.sleep(QUIET_SECONDS)
                    mine = [t for t in tools if not (project.kind.is_checked and is_set(t))]
                    rows = measured(project, mine, args.rounds)
                    bare = next(row for row in rows if row.tool == BARE)
                    found += [row.document(bare) for row in rows]
                    _progress(found[-len(rows) :], time.monotonic() - started)
                    shutil.rmtree(project.clones[0].parent)
    print("\n" + "\n".join(table(found)))
    if not (args.quick or args.projects):
        document = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "rounds": args.rounds,
            "programs": programs,
            "rows": found,
        }
        RESULT.write_text(json.dumps(document, indent=1) + "\n")
    return int(any(row["tool"] == OURS and row["differing"] for row in found))


def _chosen(names: Sequence[str] | None) -> Sequence[str]:
    return [name for name in NAMES if name == BARE or not names or name in names]


def _progress(rows: Sequence[dict[str, object]], seconds: float) -> None:
    for row in rows:
        builds = row["builds"]
        assert isinstance(builds, dict)
        shown = "; ".join(
            f"{name} {b['seconds']} s, {b['ratio']}, {b['hits']} hits" for name, b in builds.items()
        )
        print(
            f"{row['project']} {row['compiler']} {row['tool']}: {shown};"
            f" {row['units']} units, {row['differing']} differ"
        )
        if row["tool"] == OURS:
            for name, b in builds.items():
                print(f"    {name}: " + ", ".join(f"{k} {v}" for k, v in b["counters"].items()))
    print(f"{seconds:.0f} s so far", flush=True)


def table(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the rows of docs/performance.md: ratios to bare, and hits of all units."""
    head = ("project", "compiler", "tool", "cold", *BUILDS[1:], "differing")
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for row in rows:
        builds = row["builds"]
        assert isinstance(builds, dict)
        if row["tool"] == BARE:
            continue
        cells = [
            f"{builds[name]['ratio']:.2f}, {builds[name]['hits']} of {row['units']}"
            for name in BUILDS[1:]
        ]
        start = [str(row["project"]), SHOWN[str(row["compiler"])], str(row["tool"])]
        cold = f"{builds['cold']['ratio']:.2f}"
        lines.append("| " + " | ".join([*start, cold, *cells, str(row["differing"])]) + " |")
    return lines


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except BenchError as error:
        raise SystemExit(f"bench: {error}") from None
