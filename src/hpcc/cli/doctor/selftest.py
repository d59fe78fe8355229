"""`hpcc selftest windows`: checks that need a real Windows host."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from pathlib import Path

from hpcc import __version__
from hpcc.cli.base.terminal import emit
from hpcc.core import CallerError
from hpcc.ports import SystemClock


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `selftest`."""
    parser = subparsers.add_parser("selftest", help="run checks that need a real host")
    systems = parser.add_subparsers(title="systems", metavar="SYSTEM", required=True)
    windows = systems.add_parser(
        "windows",
        help="check what has not been shown on Windows yet (docs/windows.md)",
        description=run_windows.__doc__,
    )
    windows.add_argument("--json", type=Path, metavar="FILE", help="write the report to this file")
    windows.add_argument(
        "--containerd", metavar="PIPE", default=r"\\.\pipe\containerd-containerd",
        help="where containerd listens (default: %(default)s)",
    )  # fmt: skip
    windows.add_argument(
        "--parent", metavar="CHAIN", default="",
        help="chain id of a Windows image in containerd's namespace hpcc",
    )  # fmt: skip
    windows.add_argument(
        "--image", metavar="DIGEST", default="",
        help="sha256:… of an image in containerd, for checks that boot guests",
    )  # fmt: skip
    windows.add_argument(
        "--layer", type=Path, metavar="TAR", help="the agent's layer, for the same checks"
    )
    windows.add_argument("--stub", type=Path, metavar="EXE", help="hpcc-agent.exe")
    windows.add_argument("--cl", metavar="PROGRAM", default="cl", help="the compiler")
    windows.set_defaults(handler=run_windows)


def run_windows(args: argparse.Namespace) -> int:
    """Run every check that can run here; exit with 1 if one fails. Other systems skip all."""
    # Late: no other command needs it.
    from hpcc.runtime.windows.selftest import SelfTestSettings
    from hpcc.runtime.windows.selftest import report as windows_report
    from hpcc.runtime.windows.selftest import run_checks as run_windows_checks

    settings = SelfTestSettings(
        containerd=args.containerd,
        clock=SystemClock(),
        parent=args.parent,
        stub=(str(args.stub.resolve()),) if args.stub else (),
        compiler=args.cl,
        image=args.image,
        layer=args.layer,
    )
    results = asyncio.run(run_windows_checks(settings))
    if args.json:
        text = json.dumps(windows_report(results, __version__), indent=1)
        try:
            args.json.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise CallerError(f"the report cannot be written: {error}", reason="report") from error
    for result in results:
        emit(f"{result.outcome:<4}  {result.name:<20}  {result.title}")
        emit(f"      {result.reason}")
        if result.outcome == "pass":
            emit(f"      remove from docs/windows.md: {result.sentence}")
    counts = Counter(result.outcome for result in results)
    emit(f"{counts['pass']} passed, {counts['fail']} failed, {counts['skip']} skipped")
    return int(counts["fail"] > 0)
