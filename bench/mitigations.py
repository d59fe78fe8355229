"""Measures what mitigations in a guest's kernel cost (ADR 70): CPU of a boot and of a compile.

Guests with and without them boot in turn, in pairs of changing order, and compile one C file of
3,000 lines several times. The figures are the CPU time of the guest's VMM, so other work on the
machine changes them little. It uses the best isolation of this machine and a prepared image with
gcc. It prints a table and writes JSON.

  mitigations.py --pairs 5 --compiles 5 --levels=-O0,-O2
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from _guest import OneFile, newest_image
from _measure import BenchError
from _trees import long_file

from hpcc.config.paths import Paths
from hpcc.core import ExecRequest, InputFile, ResultEvent
from hpcc.ports import GuestSpec, Runtime, SystemClock
from hpcc.runtime.assets.assets import prepare_assets
from hpcc.runtime.registry.pick import pick_runtime
from hpcc.runtime.vm.vm import VmGuest

OUT = Path(__file__).parent / "results/mitigations.json"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Samples:
    """CPU seconds of one kind of guest, by what was measured."""

    by_what: dict[str, list[float]] = field(default_factory=dict)

    def add(self, what: str, seconds: float) -> None:
        self.by_what.setdefault(what, []).append(seconds)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


async def compile_(guest: VmGuest, source: OneFile, name: str, level: str) -> None:
    request = ExecRequest(
        exec_id=name,
        argv=("gcc", "-c", level, "long.c", "-o", "long.o"),
        env=(("PATH", "/usr/local/bin:/usr/bin:/bin"),),
        cwd="",
        inputs=(InputFile("long.c", source.digest),),
        outputs=("long.o",),
    )
    async for event in guest.exec(request, source):
        if isinstance(event, ResultEvent) and event.exit_code:
            raise BenchError(f"the guest's compile failed: {event}")


async def one_guest(
    runtime: Runtime, spec: GuestSpec, source: OneFile, args: argparse.Namespace, samples: Samples
) -> None:
    async with runtime.guest(spec) as guest:
        assert isinstance(guest, VmGuest)
        samples.add("boot", cpu_seconds(guest.vmm_pid))
        for level in args.levels.split(","):
            await compile_(guest, source, f"warm{level}", level)  # caches of pages and translations
            for number in range(args.compiles):
                before = cpu_seconds(guest.vmm_pid)
                await compile_(guest, source, f"n{level}{number}", level)
                samples.add(f"compile, {level}", cpu_seconds(guest.vmm_pid) - before)


async def run(args: argparse.Namespace, scratch: Path) -> dict[str, object]:
    paths = Paths.from_env(os.environ)
    image = newest_image(paths)
    assets = await prepare_assets(paths.guest_assets, print)
    runtime = await pick_runtime(
        assets, accelerator="auto", state_dir=scratch / "runtime", clock=SystemClock()
    )
    source = OneFile(long_file(scratch / "long.c").read_bytes())
    samples, report = {True: Samples(), False: Samples()}, dict[str, object]()
    for pair in range(args.pairs):
        for has_mitigations in (True, False) if pair % 2 else (False, True):
            spec = GuestSpec(
                image=image.digest,
                image_path=image.path,
                boot_timeout_seconds=300,
                has_mitigations=has_mitigations,
            )
            await one_guest(runtime, spec, source, args, samples[has_mitigations])
        print(f"pair {pair + 1} of {args.pairs}", file=sys.stderr)
        report = report_of(runtime.isolation.value, pair + 1, samples)
        args.out.write_text(json.dumps(report, indent=1) + "\n")  # a later pair may be interrupted
    return report


def report_of(isolation: str, pairs: int, samples: Mapping[bool, Samples]) -> dict[str, object]:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    rows = [
        {"what": what, "off": off, "on": samples[True].by_what[what]}
        for what, off in samples[False].by_what.items()
    ]
    return {"at": at, "isolation": isolation, "pairs": pairs, "rows": rows}


def show(report: dict[str, Any]) -> None:
    print(f"{report['isolation']}, {report['pairs']} pairs, medians of the VMM's CPU time\n")
    print("| what | off | on | on/off |\n| --- | --- | --- | --- |")
    for row in report["rows"]:
        low, high = statistics.median(row["off"]), statistics.median(row["on"])
        print(f"| {row['what']} | {low:.2f} s | {high:.2f} s | {high / low:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=5, help="pairs of guests (5)")
    parser.add_argument("--compiles", type=int, default=5, help="of each kind in each guest (5)")
    parser.add_argument("--levels", default="-O0,-O2", help="of optimisation, with commas")
    parser.add_argument("--out", type=Path, default=OUT, help="where the JSON goes")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hpcc-bench-") as name:
        show(asyncio.run(run(args, Path(name))))
    print(f"written to {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
