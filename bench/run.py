"""The figures of docs/performance.md: bare compiler, ccache, sccache and hpcc in the same run.

Prints a table and writes JSON. All comparisons are paired: each round runs every tool once, the
order rotates by one each round, and ratios pair figures of one round. CPU includes all processes,
also the servers of sccache and hpcc. Outputs are compared with the bare compiler's. The run ends
with exit code 1 if hpcc's outputs differ or a tool fails, but not if a figure misses its goal.

  run.py                              all rows; about half an hour
  run.py --quick                      one small round: does everything work?
  run.py --only hit,warm              some rows
  run.py --project DIR --build 'make -j2 CC={cc} CXX={cxx}' --clean 'make clean'
                                      your project, cold and warm, in place
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _builds import Builder
from _measure import BenchError
from _places import default_parent, file_system
from _projects import PROJECTS, ROOT, Build
from _report import Report, versions
from _settings import ALL_TOOLS, BARE, OURS, QUICK, Settings
from _suite import PARTS, Suite, own_project, say
from _tools import HPCC, installed

_RESULTS = ROOT / "bench/results"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round of little")
    parser.add_argument("--only", help=f"parts, of {','.join(PARTS)}")
    parser.add_argument("--rounds", type=int, help="of hits and warm builds (9)")
    parser.add_argument("--cold-rounds", type=int, help="of cold builds (5)")
    parser.add_argument("--projects", help="of " + ",".join(p.name for p in PROJECTS))
    parser.add_argument("--tools", help="caches to compare with (ccache,sccache)")
    parser.add_argument("--hpcc", type=Path, default=HPCC, help="the launcher (beside Python)")
    parser.add_argument("--scratch", type=Path, help="where to work (a tmpfs with room, if any)")
    parser.add_argument("--out", type=Path, help="where the JSON goes (bench/results)")
    own = parser.add_argument_group("a project of yours")
    own.add_argument("--project", type=Path, metavar="DIR")
    own.add_argument("--build", help="command, no shell; {cc} and {cxx} are replaced")
    own.add_argument("--clean", help="command that removes what the build made")
    own.add_argument("--cc", default="gcc")
    own.add_argument("--cxx", default="g++")
    own.add_argument("--objects", default="**/*.o", help="what to compare (**/*.o)")
    args = parser.parse_args(argv)
    if args.project and not (args.build and args.clean):
        parser.error("--project needs --build and --clean")
    if args.only and (unknown := set(args.only.split(",")) - set(PARTS)):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return args


def settings_of(args: argparse.Namespace, report: Report) -> Settings:
    """Return the settings of the arguments with the installed tools; report others as skipped."""
    wanted = (BARE, OURS, *args.tools.split(",")) if args.tools else ALL_TOOLS
    there, absent = installed(wanted)
    report.skipped += absent.items()
    changes: dict[str, object] = dict(QUICK) if args.quick else {}
    if args.rounds:
        changes["rounds"] = args.rounds
    if args.cold_rounds:
        changes["cold_rounds"] = args.cold_rounds
    if args.projects:
        changes["projects"] = tuple(args.projects.split(","))
    return Settings(tools=tuple(there), launcher=args.hpcc.absolute(), **changes)  # type: ignore[arg-type]  # checked by argparse


def parts_of(args: argparse.Namespace, report: Report) -> set[str]:
    if args.only:
        return set(args.only.split(","))
    if args.quick:
        report.skipped.append(("rows with guests", "--quick takes none"))
        return set(PARTS) - {"up", "guest"}
    return set(PARTS)


def take(args: argparse.Namespace, report: Report, scratch: Path) -> None:
    settings = settings_of(args, report)
    report.conditions |= {
        "scratch_file_system": file_system(scratch), "rounds": settings.rounds,
        "cold_rounds": settings.cold_rounds, "compiles": settings.compiles, "quick": args.quick,
    }  # fmt: skip
    if args.project:
        root = args.project.resolve()
        words = (tuple(shlex.split(text)) for text in (args.build, args.clean))
        build = Build(root.name, root, root, *words)
        builder = Builder(build, args.cc, args.cxx, (args.objects,))
        own_project(settings, scratch, report, builder)
    else:
        Suite(settings, scratch, report).run(parts_of(args, report))


def _end(number: int, _frame: FrameType | None) -> None:
    """Raise an exception, so that servers end, the loop device is freed, and rows are kept."""
    raise KeyboardInterrupt(f"ended by signal {number}")


def _default_name(args: argparse.Namespace, report: Report) -> str:
    """Return the name of the JSON file; only a whole run replaces the last whole run."""
    if args.project:
        return "tmp/project.json"
    if args.quick or args.only or args.projects or report.failed:
        return "tmp/part.json"
    return "local.json"


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    signal.signal(signal.SIGTERM, _end)
    if not args.hpcc.exists():
        sys.exit(f"bench: no {args.hpcc}: run `make dev`, and this with the Python of .venv")
    report = Report(versions())
    with tempfile.TemporaryDirectory(
        prefix="hpcc-bench-", dir=args.scratch or default_parent()
    ) as directory:
        try:
            take(args, report, Path(directory).resolve())
        except (BenchError, KeyboardInterrupt) as error:
            report.failed.append(("the rest", str(error) or "interrupted"))
    out = args.out or _RESULTS / _default_name(args, report)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report.json(), indent=1, ensure_ascii=False) + "\n")
    print(report.text())
    say(f"written: {out}")
    return 1 if report.differing() or report.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
