"""Compares compile farms on one machine: distcc, icecream and hpcc beside the bare compiler.

  farm_peers.py             every section: cost, wall, scale
  farm_peers.py cost        -j1: CPU of each stage, wall time and bytes of a compile
  farm_peers.py wall        -j4: a build's wall time on one worker
  farm_peers.py scale       1, 2, 4, 8 workers of one slot; a program that sleeps is the compiler
  farm_peers.py --quick     the smallest rounds: does everything work?

The farms take turns with the same units, whose objects must be those of the bare compiler. hpcc's
guest is a container (`process/runc`), except in scale, where each guest is a local process. Needs
root, for a private network; containerd; and an image with the compiler.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _farm_rows import Figure
from _farm_scale import Scale, ScaleBench
from _measure import DEFERRED_SECONDS, BenchError, children_seconds, rotated, run, settle
from _peers import ADDRESS, Bare, Distcc, Hpcc, Icecream, Peer, Programs, lo_bytes
from _places import default_parent
from _trees import header_tree, write_source

from hpcc.config.paths import Paths

RESULTS: Final = Path(__file__).parent / "results"
HEADERS: Final = 300
CPU_GOAL_MS: Final = 25.0
WALL_GOAL_MS: Final = 30.0
_FUNCTIONS: Final = 150
_IDLE_SECONDS: Final = 8.0
_JOBS: Final = 4
FARMS: Final = ("distcc", "icecream", "hpcc")
# Of a compile. icecream's daemon takes no job while the machine has no idle processor.
_SECONDS, _FIRST_SECONDS = 600.0, 120.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    rounds: int = 4
    block: int = 8
    build: int = 24
    scale: Scale = field(default_factory=lambda: Scale(units=96))


QUICK: Final = Size(1, 2, 4, Scale(units=8, jobs=4, sleep=0.2, workers=(1, 2)))


class Project:
    """Units that include 300 headers; each block is new text."""

    def __init__(self, directory: Path, compiler: str) -> None:
        self.directory, self.compiler = directory, compiler
        self.flags = header_tree(directory, HEADERS, include_dirs=3)
        self._number = 0

    def block(self, count: int) -> list[str]:
        """Write so many new units and return their names."""
        names = []
        for _ in range(count):
            self._number += 1
            body = "\n".join(
                f"int work_{i}(int n) {{ return n * {i} + {self._number if not i else 0}; }}"
                for i in range(_FUNCTIONS)
            )
            names.append(f"unit{self._number}.c")
            write_source(self.directory / names[-1], HEADERS, body)
        return names

    def compile(self, peer: Peer, unit: str, compiler: str = "", seconds: float = _SECONDS) -> None:
        """Compile a unit with a farm.

        Raises:
            BenchError: it failed.
        """
        words = [*self.flags, "-I.", "-w", "-MD", "-c", unit, "-o", self.object(peer, unit)]
        argv = peer.argv(compiler or self.compiler, words)
        run(argv, peer.env, self.directory, seconds=seconds)

    def object(self, peer: Peer, unit: str) -> str:
        return f"{unit}.{peer.name.replace(' ', '-')}.o"

    def check(self, peers: Sequence[Peer], units: Sequence[str]) -> None:
        """Check that all farms made the objects of the bare compiler.

        Raises:
            BenchError: they did not.
        """
        for unit in units:
            made = {(self.directory / self.object(p, unit)).read_bytes() for p in peers}
            if len(made) != 1:
                raise BenchError(f"the objects of {unit} differ")


@dataclass(slots=True)
class Spent:
    """What the compiles of one farm cost so far: CPU by stage and wall in seconds, bytes."""

    units: int = 0
    cpu: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    walls: list[float] = field(default_factory=list)
    sent: int = 0
    # CPU of the servers in a second without a compile, which no compile causes.
    idle: dict[str, float] = field(default_factory=dict)

    def cpu_ms(self, stage: str = "") -> float:
        found = self.cpu[stage] if stage else sum(self.cpu.values())
        return 1e3 * found / self.units

    @property
    def wall_ms(self) -> float:
        return 1e3 * statistics.median(self.walls)


def measure_block(project: Project, peer: Peer, units: Sequence[str], spent: Spent) -> None:
    """Compile the units one after the other; the servers' work afterwards counts, too."""
    client, servers, sent = children_seconds(), peer.seconds(), lo_bytes()
    started = time.perf_counter()
    for unit in units:
        begun = time.perf_counter()
        project.compile(peer, unit)
        spent.walls.append(time.perf_counter() - begun)
    spent.cpu["client"] += children_seconds() - client
    spent.sent += lo_bytes() - sent
    settle(DEFERRED_SECONDS if servers else 0)
    took = time.perf_counter() - started
    for stage, seconds in peer.seconds().items():
        idle = took * spent.idle.get(stage, 0.0)
        spent.cpu[stage] += seconds - servers.get(stage, 0.0) - idle
    spent.units += len(units)


def idle_of(peer: Peer) -> dict[str, float]:
    """Return the CPU that the servers of a farm spend in a second without a compile."""
    settle(DEFERRED_SECONDS)
    before = peer.seconds()
    time.sleep(_IDLE_SECONDS if before else 0)
    after = peer.seconds()
    return {stage: (after[stage] - seconds) / _IDLE_SECONDS for stage, seconds in before.items()}


def cost(project: Project, peers: Sequence[Peer], size: Size) -> list[Figure]:
    spent = {peer.name: Spent(idle=idle_of(peer)) for peer in peers}
    for number in range(size.rounds):
        units = project.block(size.block)
        for peer in rotated(peers, number):
            measure_block(project, peer, units, spent[peer.name])
        project.check(peers, units)
    bare = spent["bare"]
    figures = [
        Figure("bare: CPU of a compile", bare.cpu_ms(), "ms"),
        Figure("bare: wall", bare.wall_ms, "ms"),
    ]
    for name, found in spent.items():
        if name == "bare":
            continue
        cpu_goal, wall_goal = (CPU_GOAL_MS, WALL_GOAL_MS) if name == "hpcc" else (None, None)
        above = found.cpu_ms() - bare.cpu_ms()
        figures.append(Figure(f"{name}: CPU above bare", above, "ms", cpu_goal))
        figures += [Figure(f"{name}: CPU of {s}", found.cpu_ms(s), "ms") for s in found.cpu]
        idle = 1e3 * sum(found.idle.values())
        figures.append(Figure(f"{name}: CPU of an idle second, in no figure above", idle, "ms"))
        wall = found.wall_ms - bare.wall_ms
        figures.append(Figure(f"{name}: wall above bare, -j1", wall, "ms", wall_goal))
        figures.append(Figure(f"{name}: bytes over the wire", found.sent / found.units / 1e3, "kB"))
    return figures


def at_once(jobs: int, compile: Callable[[str], None], units: Sequence[str]) -> float:
    begun = time.perf_counter()
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(compile, units))
    return time.perf_counter() - begun


def wall(project: Project, peers: Sequence[Peer], size: Size) -> list[Figure]:
    found: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for number in range(size.rounds):
        units = project.block(size.build)
        for peer in rotated(peers, number):
            seconds = at_once(_JOBS, lambda u, p=peer: project.compile(p, u), units)
            found[peer.name].append(seconds)
            settle(DEFERRED_SECONDS)
        project.check(peers, units)
    what = f"{size.build} units, -j{_JOBS}"
    return [
        Figure(f"{name}: {what}", statistics.median(taken), "s") for name, taken in found.items()
    ]


def stub(directory: Path, compiler: str, seconds: float) -> Path:
    """Build the program that stands for the compiler."""
    out = directory / "stubcc"
    real = run(["which", compiler], os.environ, directory).strip()
    source = Path(__file__).with_name("_peer_stub.c")
    defines = [f"-DSLEEP_MS={int(seconds * 1e3)}", f'-DREAL="{real}"']
    run([compiler, "-O1", "-static", *defines, str(source), "-o", str(out)], os.environ, directory)
    return out


def scale_of_peers(
    project: Project, programs: Programs, directory: Path, size: Scale, farms: Sequence[str]
) -> Iterator[Figure]:
    """Build on distcc's and icecream's workers of one slot each."""
    program = stub(directory, project.compiler, size.sleep)
    if "icecream" in farms:
        environment = programs.environment(directory / "stub-env", project.compiler, program)
    for name in [farm for farm in farms if farm != "hpcc"]:
        alone = 0.0
        for count in size.workers:
            peer: Peer
            home = directory / f"{name}-{count}"
            if name == "distcc":
                peer = Distcc(programs, home, workers=count, jobs=1, limit=2)
            else:
                peer = Icecream(programs, home, environment, workers=count, jobs=1)
            compiler = str(program) if name == "distcc" else ""
            try:
                warm, units = project.block(2 * count), project.block(size.units)
                at_once(2 * count, lambda u, p=peer, c=compiler: project.compile(p, u, c), warm)
                work = lambda u, p=peer, c=compiler: project.compile(p, u, c)  # noqa: E731 - binds
                seconds = at_once(size.jobs, work, units)
            finally:
                peer.close()
            alone = alone or seconds * count
            yield Figure(f"{name}, {count} workers: the build", seconds, "s")
            yield Figure(
                f"{name}, {count} workers: speed-up by workers", alone / seconds / count, ""
            )


def step(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def started(
    args: argparse.Namespace,
    project: Project,
    programs: Programs,
    directory: Path,
    stack: ExitStack,
) -> list[Peer]:
    """Start the farms, and let each compile something; one that does not is left out."""
    step("starting the farms")
    peers: list[Peer] = [Bare(programs.env)]
    if "distcc" in args.farms:
        home = directory / "distcc"
        peers.append(Distcc(programs, home, workers=1, jobs=_JOBS, limit=_JOBS))
    if "icecream" in args.farms:
        environment = programs.environment(directory / "env", args.compiler)
        home = directory / "icecream"
        peers.append(Icecream(programs, home, environment, workers=1, jobs=_JOBS))
    if "hpcc" in args.farms:
        peers.append(Hpcc(directory / "hpcc", args.cache))
    for peer in peers:
        stack.callback(peer.close)
    for peer in tuple(peers):
        step(f"the first compiles of {peer.name}")
        try:
            for unit in project.block(3):
                project.compile(peer, unit, seconds=_FIRST_SECONDS)
        except BenchError as error:
            step(f"{peer.name} is left out: {error}")
            peers.remove(peer)
    settle()
    return peers


def measured(args: argparse.Namespace, directory: Path) -> dict[str, list[Figure]]:
    size, taken = QUICK if args.quick else Size(), dict[str, list[Figure]]()
    programs = Programs(args.peers)
    project = Project(directory / "project", args.compiler)
    sections = args.sections or ["cost", "wall", "scale"]
    with ExitStack() as stack:
        if sections != ["scale"]:
            peers = started(args, project, programs, directory, stack)
        for name, section in (("cost", cost), ("wall", wall)):
            if name in sections:
                taken[name] = shown(name, section(project, peers, size))
    if "scale" in sections:
        home = directory / "project"
        figures = scale_of_peers(project, programs, home, size.scale, args.farms)
        taken["scale"] = shown("scale", figures)
        ours: list[Figure] = []
        ScaleBench(replace(size.scale, joins=0), directory / "ours", ours.append).run()
        taken["scale"] += shown("scale of hpcc", ours)
    return taken


def shown(name: str, figures: Iterator[Figure] | Sequence[Figure]) -> list[Figure]:
    print(f"\n| {name} | figure | goal | |\n| --- | --- | --- | --- |", flush=True)
    kept = []
    for figure in figures:
        print(figure.line(), flush=True)
        kept.append(figure)
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", help="of cost, wall, scale")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peers", type=Path, help="where distcc and icecc are unpacked")
    parser.add_argument("--cache", type=Path, help="hpcc's cache with the image (the user's)")
    parser.add_argument("--farms", nargs="+", choices=FARMS, default=FARMS, metavar="FARM")
    parser.add_argument("--compiler", default="gcc-14", help="of the image and of this machine")
    parser.add_argument("--out", type=Path, help="the JSON (bench/results/farm-peers.json)")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.inside:
        words = ["unshare", "--net", "--", sys.executable, __file__, "--inside", *sys.argv[1:]]
        os.execvp(words[0], words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    args.cache = args.cache or Paths.from_env(os.environ).images.parent
    for words in (["link", "set", "lo", "up"], ["addr", "add", f"{ADDRESS}/32", "dev", "lo"]):
        subprocess.run(["ip", *words], check=True)
    # On some disks a new file costs a farm a multiple of what it costs on others (`farm_cost`).
    with tempfile.TemporaryDirectory(prefix="hpcc-peers-", dir=default_parent()) as name:
        Path(name).chmod(0o755)
        try:
            taken = measured(args, Path(name))
        except BenchError as error:
            print(f"farm_peers.py: {error}", file=sys.stderr)
            return 1
    write(args, taken)
    return 0


def write(args: argparse.Namespace, taken: dict[str, list[Figure]]) -> None:
    name = "tmp/farm-peers.json" if args.quick else "farm-peers.json"
    out = args.out or RESULTS / name
    out.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.release()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}",
        **{name: [asdict(f) for f in figures] for name, figures in taken.items()},
    }
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\nwritten to {out}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
