"""What the flight recorder costs a hit: two daemons of hpcc, one of which records no compile.

    python bench/recorder.py [--rounds N] [--compiles N] [--headers N]

The recorder cannot be switched off, so the second daemon runs with a recorder that takes notes and
drops them. The daemons take turns with the same hits of one build. CPU is that of the launchers
and of the daemon, with what it writes after its answers. Prints milliseconds of a hit and the
ratio of each round's pair, as median, minimum and maximum, and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _hits import Spawner
from _measure import BenchError, Cost, Deferred, rotated, settle
from _tools import Counts, Hpcc, clean_env, get_to_know
from _trees import header_tree

_RESULT: Final = Path(__file__).resolve().parent / "results/recorder.json"
_START_SECONDS: Final = 20.0
# What `Recorder` does with a compile, a hit and a flush, without keeping any of it.
_DAEMON_THAT_DROPS: Final = """
import sys
from hpcc.cache.recorder.recorder import Recorder
Recorder.add = lambda self, build, compile_: None
Recorder.hit = lambda self, build, unit, began_us, took_us: True
Recorder.define = lambda self, build, unit, compile_: True
from hpcc.daemon.__main__ import product_parts
from hpcc.daemon.main import run_daemon
sys.exit(run_daemon([], parts=product_parts))
"""


class _Recording(Hpcc):
    name = "recorder on"


class _Dropping(Hpcc):
    name = "recorder off"

    def start(self) -> None:
        subprocess.Popen(
            [sys.executable, "-P", "-c", _DAEMON_THAT_DROPS], env=self.env, cwd="/",
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self._pid = self.daemon_pid()
                break
            except (BenchError, KeyError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        get_to_know(self, self._home)


def _recorded(tool: Hpcc, build: str) -> int:
    """Return how many compiles of a build the recorder has; 0 for a build that it does not know."""
    try:
        report = json.loads(tool.command("report", build, "--json"))
    except BenchError:
        return 0
    return int(report["compiles"])


def _measure(args: argparse.Namespace, scratch: Path) -> dict[str, list[Cost]]:
    env: Mapping[str, str] = clean_env() | {"HPCC_BUILD": "bench-recorder"}
    tree = scratch / "tree"
    header_tree(tree, args.headers)
    command = ["-c", "-O1", "-MD", "-MF", "main.d", "-o", "main.o", "main.c"]
    tools: list[Hpcc] = [_Recording(env, scratch), _Dropping(env, scratch)]
    spawn = Spawner(scratch)
    with ExitStack() as stack:
        for tool in tools:
            stack.callback(tool.stop)
            tool.start()
        settle()
        for _ in range(2):  # a server may learn from the first hit
            for tool in tools:
                spawn(tool, command, tree, 3)
            settle()
        before = {tool.name: tool.counts() for tool in tools}
        costs: dict[str, list[Cost]] = {tool.name: [] for tool in tools}
        deferred = Deferred(tools)
        for number in range(args.rounds):
            for tool in rotated(tools, number):
                costs[tool.name].append(spawn(tool, command, tree, args.compiles))
        deferred.charge(costs)
        for tool in tools:
            done = tool.counts().since(before[tool.name])
            if done != Counts(args.rounds * args.compiles, 0):
                raise BenchError(f"{tool.name}: {done}, not only hits")
        kept = [_recorded(tool, "bench-recorder") for tool in tools]
        if kept[0] < args.rounds * args.compiles or kept[1]:
            raise BenchError(f"recorded compiles: {kept}, so nothing was compared")
    return costs


def _figures(costs: dict[str, list[Cost]], compiles: int) -> dict[str, object]:
    on, off = costs["recorder on"], costs["recorder off"]
    figures: dict[str, object] = {}
    for kind in ("cpu", "wall"):
        pairs = [getattr(a, kind) / getattr(b, kind) for a, b in zip(on, off, strict=True)]
        fastest = [min(getattr(cost, kind) for cost in of) for of in (on, off)]
        figures[kind] = {
            "milliseconds_on": round(fastest[0] / compiles * 1e3, 4),
            "milliseconds_off": round(fastest[1] / compiles * 1e3, 4),
            "ratio_of_fastest": round(fastest[0] / fastest[1], 4),
            "ratio_median": round(statistics.median(pairs), 4),
            "ratio_min": round(min(pairs), 4),
            "ratio_max": round(max(pairs), 4),
        }
    return figures


def main() -> int:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--compiles", type=int, default=500, help="hits in each round")
    parser.add_argument("--headers", type=int, default=100)
    parser.add_argument("--out", type=Path, default=_RESULT)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hpcc-bench-") as scratch:
        figures = _figures(_measure(args, Path(scratch)), args.compiles)
    shown = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "rounds": args.rounds,
        "compiles": args.compiles,
        "headers": args.headers,
    } | figures
    args.out.write_text(json.dumps(shown, indent=1) + "\n")
    print(json.dumps(shown, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
