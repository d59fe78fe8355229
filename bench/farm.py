"""Measures the figures of a farm in docs/scaling.md: a scheduler's load, a client's cost.

  farm.py                   every section but scale, which takes 20 minutes, rate and viewers
  farm.py work              what routes and heartbeats cost a scheduler's own code, on any machine
  farm.py viewers           what ten `hpcc web` with open pages cost the scheduler; 2 minutes
  farm.py load              routes and heartbeats of a simulated farm through one replica
  farm.py recovery          a route after a replica was killed; needs PostgreSQL
  farm.py client            CPU and bytes of a client, if bench/client_cost.py is there
  farm.py scale             one build on 1, 2, 4, 8 workers; a worker added in mid-build
  farm.py rate              the CPU of worker processes for a compile, their guests a stub
  farm.py --quick           a small farm for two seconds: does everything work?

Prints tables and writes JSON. A figure that misses its goal does not stop the run.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _farm_load import Load, LoadBench
from _farm_rate import Rate, RateBench
from _farm_recovery import RecoveryBench
from _farm_rows import Figure
from _farm_scale import Scale, ScaleBench
from _farm_viewers import MOST_WORKERS, ViewersBench
from _farm_work import Work, WorkBench
from _measure import BenchError

RESULTS: Final = Path(__file__).parent / "results"
QUICK: Final = Load(workers=30, daemons=5, routes_per_minute=3_000, seconds=2.0)
QUICK_SCALE: Final = Scale(units=36, jobs=6, sleep=0.2, workers=(1, 2), joins=1)
QUICK_WORK: Final = Work(workers=(10, 30), seconds=1.0)
QUICK_RATE: Final = Rate(clients=2, jobs=2, compiles=3, headers=30)
ROUNDS: Final = 4
# Six of these, beside what joins: under two minutes.
VIEWERS_SECONDS: Final = 12.0
Show = Callable[[Figure], None]


def load_section(directory: Path, args: argparse.Namespace, show: Show) -> None:
    """Measure routes and heartbeats through one replica."""
    load = QUICK if args.quick else Load(workers=args.workers, seconds=args.seconds)
    LoadBench(replace(load, is_pinned=args.pin), directory, show).run()


def viewers_section(directory: Path, args: argparse.Namespace, show: Show) -> None:
    """Measure what people who look at the farm cost the scheduler."""
    load = QUICK if args.quick else Load(workers=MOST_WORKERS, seconds=VIEWERS_SECONDS)
    ViewersBench(
        replace(load, is_pinned=args.pin), directory, show, rounds=1 if args.quick else 3
    ).run()


def work_section(directory: Path, args: argparse.Namespace, show: Show) -> None:
    """Measure a scheduler's own code, in this process."""
    work = QUICK_WORK if args.quick else Work(seconds=args.seconds)
    WorkBench(work, directory, show).run()


def recovery_section(directory: Path, args: argparse.Namespace, show: Show) -> None:
    """Measure routes after a replica was killed, repeatedly."""
    RecoveryBench(1 if args.quick else ROUNDS, directory, show).run()


def client_section(directory: Path, args: argparse.Namespace, show: Show) -> None:
    """Show the figures of bench/client_cost.py, if it is there."""
    module = importlib.import_module("client_cost")
    module.run(directory, args.quick, show)


def scale_section(directory: Path, args: argparse.Namespace, show: Show) -> None:
    """Measure how one build's time falls with the number of workers."""
    scale = QUICK_SCALE if args.quick else Scale(units=args.units, sleep=args.sleep)
    ScaleBench(scale, directory, show).run()


def rate_section(directory: Path, args: argparse.Namespace, show: Show) -> None:
    """Measure what worker processes spend on a compile."""
    RateBench(QUICK_RATE if args.quick else Rate(), directory, show).run()


def sections() -> dict[str, Callable[[Path, argparse.Namespace, Show], None]]:
    found = {
        "work": work_section,
        "load": load_section,
        "viewers": viewers_section,
        "recovery": recovery_section,
        "scale": scale_section,
        "rate": rate_section,
    }
    if Path(__file__).with_name("client_cost.py").exists():
        found["client"] = client_section
    return found


def take(name: str, args: argparse.Namespace) -> list[Figure]:
    """Measure the figures of one section and print each as it arrives."""
    figures: list[Figure] = []

    def show(figure: Figure) -> None:
        figures.append(figure)
        print(figure.line(), flush=True)

    print(f"\n| {name} | figure | goal | |\n| --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory(prefix="hpcc-bench-", dir=args.scratch) as directory:
        sections()[name](Path(directory), args, show)
    return figures


def main() -> int:
    known = sections()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(known)}")
    parser.add_argument("--quick", action="store_true", help="a small farm for two seconds")
    parser.add_argument("--workers", type=int, default=Load().workers)
    parser.add_argument("--seconds", type=float, default=Load().seconds)
    parser.add_argument(
        "--pin", action="store_true", help="the scheduler alone on a core (load, viewers)"
    )
    parser.add_argument("--units", type=int, default=Scale().units, help="of scale")
    parser.add_argument("--sleep", type=float, default=Scale().sleep, help="of a unit of scale, s")
    parser.add_argument("--scratch", type=Path, help="where the scheduler's state goes (/tmp)")
    parser.add_argument("--out", type=Path, help="where the JSON goes (bench/results/farm.json)")
    args = parser.parse_args()
    for name in args.sections:
        if name not in known:
            parser.error(f"no section {name!r}")
    usual = [name for name in known if name not in {"scale", "rate", "viewers"}]
    try:
        taken = {name: take(name, args) for name in args.sections or usual}
    except BenchError as error:
        print(f"farm.py: {error}", file=sys.stderr)
        return 1
    write(args, taken)
    return 0


def write(args: argparse.Namespace, taken: dict[str, list[Figure]]) -> None:
    out = args.out or (RESULTS / "tmp/farm.json" if args.quick else RESULTS / "farm.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.release()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}",
        "pinned": args.pin,
        **{name: [asdict(f) for f in figures] for name, figures in taken.items()},
    }
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\nwritten to {out}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
