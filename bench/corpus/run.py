"""Hits on real packages: bare compiler, ccache and hpcc, every output compared.

Each package of packages.toml is built once, and its recorded compiles are run again in seven
scenarios. The table shows hits (compiles without a real compiler run) of hpcc and ccache, hpcc's
reasons, and outputs that differ from the bare compiler's. The command ends with 0 if no output of
hpcc differs and hpcc hits at least as often as ccache in each row, unless the list has an excuse
for the row. A run of the whole list must also hit more often than ccache in total, and fewer than
1 % of the commands may be refused. Needs root, or user namespaces and what the packages need.

  run.py                                        the whole list; hours
  run.py --packages zlib1g,lua5.4 --limit 1     some packages
  run.py --scenario same-directory              some scenarios
  run.py --again                                measure finished packages again
  run.py --trees DIR --build-only               build into DIR, for runs with --trees DIR
  run.py --farm                                 how many compiles travel to a farm, and not hits
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corpus import scenarios, shims
from corpus.building import BuildFailedError, build
from corpus.farming import FARM, FarmError, FarmHpcc, FarmProcess
from corpus.listing import LIST, ListError, Package, load
from corpus.recording import Command, read_commands, sample
from corpus.replaying import OutOfTimeError, Replayer, Row, measure
from corpus.report import COLD, PackageResult, load_result, rendered, save
from corpus.sources import TOOLS, Apt, SourceError, install
from corpus.tools import BARE, Tool, make_tools
from corpus.travel import (
    Travel,
    measure_travel,
    put_under_control,
    rendered_travel,
    without_line_breaks,
)

ROOT: Final = Path(__file__).resolve().parents[2]
KEPT: Final = ROOT / "bench/results/tmp/corpus"
HPCC: Final = Path(sys.executable).parent / "hpcc"
_LEAST_COMPILES: Final = 5
_EXIT_SHORT, _EXIT_CALLER = 1, 2


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packages", default="", help="comma-separated names of the list")
    parser.add_argument("--limit", type=int, default=0, help="at most so many packages")
    parser.add_argument("--scenario", default="", help=f"of {','.join(scenarios.NAMES)}")
    parser.add_argument(
        "--commands", type=int, default=40, help="compiles per package (40; 0: all)"
    )
    parser.add_argument(
        "--seconds", type=float, default=1800, help="per package, build apart (1800)"
    )
    parser.add_argument("--build-seconds", type=float, default=420, help="per build step (420)")
    parser.add_argument(
        "--enough", type=int, default=0, help="stop a build after so many compiles (0: never)"
    )
    parser.add_argument(
        "--total-seconds", type=float, default=0, help="start no package after that"
    )
    parser.add_argument(
        "--build-only", action="store_true", help="only count each build's compiles"
    )
    parser.add_argument(
        "--farm", action="store_true", help="count the compiles that travel to a farm"
    )
    parser.add_argument(
        "--again", action="store_true", help="do not take results of an earlier run"
    )
    parser.add_argument("--hpcc", type=Path, default=HPCC, help="the launcher (beside Python)")
    parser.add_argument("--list", type=Path, default=LIST, help="another list of packages")
    parser.add_argument("--scratch", type=Path, help="where to build (a temporary directory)")
    parser.add_argument(
        "--trees", type=Path, help="keep built packages there, and measure those that are there"
    )
    parser.add_argument("--out", type=Path, default=KEPT, help="where results are kept")
    args = parser.parse_args(argv)
    if unknown := set(filter(None, args.scenario.split(","))) - set(scenarios.NAMES):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    return args


class Runner:
    """Measures packages one after another."""

    def __init__(self, args: argparse.Namespace, scratch: Path) -> None:
        self._args, self._scratch = args, scratch
        self._apt = Apt(args.out / "apt")
        self._recorders = shims.recorders(scratch / "recorders")
        self._scenarios = [n for n in scenarios.NAMES if not args.scenario or n in args.scenario]

    def package(self, package: Package) -> PackageResult:
        """Measure one package and delete its directory, unless trees are kept."""
        started, work = time.monotonic(), (self._args.trees or self._scratch) / package.name
        result = PackageResult(package.name, package.system, package.language)
        try:
            self._measure(package, work, result)
        except (SourceError, BuildFailedError) as error:
            result.trouble = str(error)
        except OutOfTimeError:
            result.trouble = (
                f"stopped after {self._args.seconds:.0f} s; later scenarios are missing"
            )
        finally:
            if self._args.trees is None:
                shutil.rmtree(work, ignore_errors=True)
        result.seconds = round(time.monotonic() - started, 1)
        return result

    def _measure(self, package: Package, work: Path, result: PackageResult) -> None:
        install(package.needs)
        root = work / "tree"
        recorded = self._recorded(package, work)
        result.recorded = len(recorded)
        if self._args.build_only:
            return
        time.sleep(3)  # let the newest generated header become older than the clock's tick
        replayer = Replayer(work, time.monotonic() + self._args.seconds)
        tools = make_tools(work, self._args.hpcc.absolute())
        try:
            for tool in tools:
                tool.start()
            commands = self._usable(replayer, tools[0], sample(recorded, self._args.commands))
            self._scenarios_of(scenarios.Tree(root, commands), replayer, tools, result)
        finally:
            for tool in tools:
                tool.stop()

    def travel(self, package: Package, farm: FarmProcess) -> Travel:
        """Run one package's compiles with a farm; delete its directory, unless trees are kept."""
        work, travel = (self._args.trees or self._scratch) / package.name, Travel(package.name)
        try:
            install(package.needs)
            commands = sample(self._recorded(package, work), self._args.commands)
            put_under_control(work / "tree")
            time.sleep(3)  # as above
            end = time.monotonic() + self._args.seconds
            replayer = Replayer(work, end, normal=without_line_breaks)
            hpcc = FarmHpcc(self._args.hpcc.absolute(), self._scratch / FARM, farm.client)
            try:
                hpcc.start()
                hpcc.warm_up(self._scratch)
                measure_travel(replayer, Tool(BARE, (), {}), hpcc, commands, travel)
            finally:
                hpcc.stop()
        except (SourceError, BuildFailedError) as error:
            travel.trouble = str(error)
        except OutOfTimeError:
            travel.trouble = f"stopped after {self._args.seconds:.0f} s"
        finally:
            shutil.rmtree(self._scratch / FARM, ignore_errors=True)
            if self._args.trees is None:
                shutil.rmtree(work, ignore_errors=True)
        return travel

    def _recorded(self, package: Package, work: Path) -> list[Command]:
        recorded = self._built(package, work)
        if len(recorded) < _LEAST_COMPILES:
            raise BuildFailedError(f"{len(recorded)} compiles, fewer than {_LEAST_COMPILES}")
        return recorded

    def _built(self, package: Package, work: Path) -> list[Command]:
        """Build the package, or take what an earlier run has built; return its compiles."""
        root, records, done = work / "tree", work / "records", work / "built"
        if done.exists():
            return read_commands(records, root)
        shutil.rmtree(work, ignore_errors=True)
        self._apt.unpack(package, root / "src")
        limits = (self._args.build_seconds, self._args.enough)
        recorded = build(package, root, self._recorders, records, *limits)
        done.touch()
        return recorded

    def _usable(self, replayer: Replayer, bare: Tool, commands: list[Command]) -> list[Command]:
        """Return the commands that compile when they are run again."""
        seen = replayer.run(bare, commands)
        return [c for c, s in zip(commands, seen, strict=True) if not s.exit_code and s.runs]

    def _scenarios_of(
        self, tree: scenarios.Tree, replayer: Replayer, tools: list[Tool], result: PackageResult
    ) -> None:
        if not tree.commands:
            raise BuildFailedError("no compile succeeds when it is run again")
        # Fill the caches. Outputs of this run are compared, too.
        result.rows.append(_without_hits(measure(replayer, tools, COLD, tree.commands)))
        for name in self._scenarios:
            place = scenarios.prepare(name, tree)
            if place is None:
                continue
            try:
                if place.between is not None:
                    for tool in tools:
                        if tool.name != BARE:
                            replayer.run(tool, place.commands)
                    place.between()
                result.rows.append(measure(replayer, tools, name, place.commands))
            finally:
                place.undo()
            say(_line(result.rows[-1]))


def _without_hits(row: Row) -> Row:
    """Return the row of the first build without what it hits: equal compiles of one build."""
    row.hits = {}
    return row


def _line(row: Row) -> str:
    hits = ", ".join(f"{name} {value}" for name, value in row.hits.items())
    differing = {name: len(found) for name, found in row.differing.items() if found}
    return f"  {row.scenario}: {hits} of {row.commands}" + (
        f", differing {differing}" if differing else ""
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def travels(args: argparse.Namespace, packages: Sequence[Package]) -> int:
    """Run the packages' compiles with a farm; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="corpus-", dir=args.scratch) as directory:
        runner, found = Runner(args, Path(directory)), []
        try:
            farm = FarmProcess(Path(directory) / "one-machine")
        except FarmError as error:
            say(f"bench-corpus: {error}")
            return _EXIT_CALLER
        try:
            for package in packages:
                found.append(runner.travel(package, farm))
                say(f"{package.name}: {found[-1].travelled} of {found[-1].commands}")
        finally:
            farm.close()
    text, is_good = rendered_travel(found)
    print(text)
    return os.EX_OK if is_good else _EXIT_SHORT


def main() -> int:
    args = arguments()
    try:
        corpus = load(args.list)
        packages = corpus.chosen(args.packages, args.limit)
        shims.enter_namespace()
        install(TOOLS)
    except (ListError, shims.ShimError, SourceError) as error:
        say(f"bench-corpus: {error}")
        return _EXIT_CALLER
    # Leave no directory and no daemon behind when the run is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if args.trees is not None:
        args.trees = args.trees.absolute()
    if args.farm:
        return travels(args, packages)
    settings = {"scenario": args.scenario, "commands": args.commands, "enough": args.enough}
    started = time.monotonic()
    results = []
    # A short path: the daemon's socket is below it.
    with tempfile.TemporaryDirectory(prefix="corpus-", dir=args.scratch) as directory:
        shims.count_runs(Path(directory))
        runner = Runner(args, Path(directory))
        for package in packages:
            path = args.out / "results" / f"{package.name}.json"
            result = None if args.again else load_result(path, settings)
            if result is None:
                if args.total_seconds and time.monotonic() - started > args.total_seconds:
                    say(f"{package.name}: no time left")
                    continue
                say(f"{package.name} ({package.system}, {package.language})")
                result = runner.package(package)
                if not args.build_only:
                    save(result, path, settings)
                say(f"  {result.recorded} compiles recorded, {result.seconds} s {result.trouble}")
            results.append(result)
    is_whole = not args.scenario and len(results) == len(corpus.packages)
    text, is_good = rendered(results, corpus, is_whole=is_whole)
    print(text)
    return os.EX_OK if is_good else _EXIT_SHORT


if __name__ == "__main__":
    raise SystemExit(main())
