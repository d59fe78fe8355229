"""Measures the guests' figures in docs/performance.md: boot, restore, exec cost, bytes, memory.

Prints a table and writes JSON. It uses the best isolation of this machine (KVM if a probe guest
answers, else emulation) and an image with one static program, so that no figure contains a
compiler's cost. A figure that misses its goal does not stop the run.

  guest.py                            everything; a minute or two
  guest.py --quick                    one small round: does everything work?
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hpcc.config.paths import Paths
from hpcc.core import Digest, ExecRequest, ImageDigest, InputFile, ResultEvent
from hpcc.ports import Guest, GuestSpec, SystemClock
from hpcc.runtime.assets.assets import prepare_assets
from hpcc.runtime.channel.pending_exec import encode_header  # only its length is counted
from hpcc.runtime.firecracker.backend import FirecrackerRuntime
from hpcc.runtime.qemu.backend import QemuRuntime
from hpcc.runtime.registry.pick import pick_runtime
from hpcc.runtime.vm.snapshot_store import Snapshot
from hpcc.runtime.vm.vm import VmGuest, booted
from hpcc.runtime.vm.warm import WarmStart
from hpcc.runtime.vm.warm import open_store as open_snapshots
from hpcc_testkit.guests.guest_program import build_scratch_image
from hpcc_testkit.guests.memory import memory_of

RESULTS = Path(__file__).parent / "results"
MEMORY_MIB = 512
UNITS, HEADERS = 100, 60
HEADER_BYTES, SOURCE_BYTES = 6_000, 8_000
OVERHEAD_EXECS = 100
_TICKS = os.sysconf("SC_CLK_TCK")
_PEAK = re.compile(r"peak memory (\d+) KiB, execs (\d+)")


@dataclass(frozen=True, slots=True)
class Row:
    """One line: a figure, its unit, its goal."""

    what: str
    value: float
    unit: str
    goal: float | None = None
    is_lower_better: bool = True

    def line(self) -> str:
        verdict = ""
        if self.goal is not None:
            holds = self.value <= self.goal if self.is_lower_better else self.value >= self.goal
            sign = "≤" if self.is_lower_better else "≥"
            verdict = f"{sign} {self.goal:g} | {'holds' if holds else '**misses**'}"
        digits = 0 if self.value >= 1000 else 1
        return f"| {self.what} | {self.value:,.{digits}f} {self.unit} | {verdict or ' | '} |"


class Project:
    """Units that include the same headers; counts the bytes that a guest requests."""

    def __init__(self, units: int, headers: int = HEADERS) -> None:
        headers_ = [os.urandom(HEADER_BYTES) for _ in range(headers)]
        sources = [os.urandom(SOURCE_BYTES) for _ in range(units)]
        self._blobs = {Digest.of(b): b for b in headers_ + sources}
        names = [(f"include/h{n}.h", h) for n, h in enumerate(headers_)]
        self.requests = [
            ExecRequest(
                exec_id=f"unit-{n}", argv=("/probe", "exit", "0"), env=(), cwd="", outputs=(),
                inputs=tuple(
                    InputFile(path, Digest.of(data)) for path, data in [(f"u{n}.c", s), *names]
                ),
            )
            for n, s in enumerate(sources)
        ]  # fmt: skip
        self.sent_bytes = self.sent_blobs = 0

    async def read(self, digest: Digest) -> bytes:
        data = self._blobs[digest]
        self.sent_bytes += len(data)
        self.sent_blobs += 1
        return data


async def execute(guest: Guest, request: ExecRequest, project: Project) -> None:
    async for event in guest.exec(request, project):
        if isinstance(event, ResultEvent) and event.exit_code:
            raise SystemExit(f"the guest's program failed: {event}")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == pid:
                found += [int(entry.name), *children(int(entry.name))]
    return found


def host_seconds(vmm: int) -> float:
    """Return the CPU of this process and its wardens, without the VMM."""
    own = [p for p in children(os.getpid()) if p != vmm]
    return time.process_time() + sum(cpu_seconds(p) for p in own)


class Bench:
    """One runtime, one image."""

    def __init__(self, runtime: QemuRuntime | FirecrackerRuntime, spec: GuestSpec) -> None:
        self.runtime, self.spec = runtime, spec
        self.rows: list[Row] = []

    async def starts(self, warm: WarmStart, rounds: int) -> None:
        """Measure cold boots and restores in turn, after a first one of each."""
        samples: dict[str, list[float]] = {"cold": [], "restored": []}
        answers: dict[str, list[float]] = {"cold": [], "restored": []}
        snapshot = await self._snapshot(warm)
        for number in range(rounds + 1):
            for kind in ("cold", "restored"):
                vm = (
                    self.runtime.cold(self.spec)
                    if kind == "cold"
                    else self.runtime.restored(self.spec, snapshot)
                )
                started = time.perf_counter()
                channel = await vm.start()
                await channel.connect()
                answer = time.perf_counter() - started
                await vm.end()
                started = time.perf_counter()
                vm = (
                    self.runtime.cold(self.spec)
                    if kind == "cold"
                    else self.runtime.restored(self.spec, snapshot)
                )
                async with booted(lambda vm=vm: vm, self.spec, SystemClock(), tries=1):
                    ready = time.perf_counter() - started
                if number:
                    answers[kind].append(answer)
                    samples[kind].append(ready)
        for kind in ("cold", "restored"):
            self._add(f"{kind}: start to the agent's answer", _ms(answers[kind]), "ms")
        share = statistics.median(
            100 * r / c for r, c in zip(answers["restored"], answers["cold"], strict=True)
        )
        self._add("restored by cold, to the agent's answer", share, "%", 10)
        for kind in ("cold", "restored"):
            self._add(f"{kind}: start to the end of the self-test", _ms(samples[kind]), "ms")

    async def _snapshot(self, warm: WarmStart) -> Snapshot:
        _, snapshot = await warm.find(self.runtime, self.spec)
        if snapshot is None:
            raise SystemExit("no snapshot could be made here")
        return snapshot

    async def execs(self, count: int) -> None:
        """Measure the fixed cost of a compile in a warm guest, and the cost of its inputs."""
        for headers in (0, HEADERS):
            project = Project(1, headers)
            what = "exec of nothing with its source" + (
                f" and {headers} headers" if headers else ""
            )
            async with self.runtime.guest(self.spec) as guest:
                for _ in range(10):
                    await execute(guest, project.requests[0], project)
                host, vmm = host_seconds(guest.vmm_pid), cpu_seconds(guest.vmm_pid)
                started = time.perf_counter()
                for _ in range(count):
                    await execute(guest, project.requests[0], project)
                wall = time.perf_counter() - started
                host = host_seconds(guest.vmm_pid) - host
                vmm = cpu_seconds(guest.vmm_pid) - vmm
            goal = None if headers else 15
            self._add(f"{what}: CPU of worker and warden", 1e3 * host / count, "ms", goal)
            self._add(f"{what}: CPU of the VMM with its guest", 1e3 * vmm / count, "ms")
            self._add(f"{what}: wall", 1e3 * wall / count, "ms")

    async def project(self, units: int) -> None:
        """Measure the bytes over the boundary, and the agent's memory at the end."""
        project = Project(units)
        vm = self.runtime.cold(self.spec)
        per_unit = []
        async with booted(lambda: vm, self.spec, SystemClock(), tries=1) as guest:
            for request in project.requests:
                before = project.sent_bytes
                await execute(guest, request, project)
                per_unit.append(project.sent_bytes - before + len(encode_header(request, None)))
        asked = units * (HEADERS + 1)
        fewer = 100 * (1 - per_unit[1] / per_unit[0])
        self._add(
            f"{units} units, {HEADERS} headers: first unit over the boundary",
            per_unit[0] / 1e3,
            "kB",
        )
        self._add("second unit", per_unit[1] / 1e3, "kB")
        self._add("second unit: fewer bytes than the first", fewer, "%", 95, is_lower_better=False)
        self._add("all units over the boundary", sum(per_unit) / 1e6, "MB")
        self._add("blobs that the guest had", 100 * (1 - project.sent_blobs / asked), "%")
        peaks = [int(m[1]) for m in _PEAK.finditer(vm.console)]
        if peaks:
            self._add("agent: most memory so far", max(peaks) / 1024, "MiB", 64)

    async def memory(self) -> None:
        """Measure two idle guests that were booted, then two from one snapshot."""
        colds = [self.runtime.cold(self.spec) for _ in range(2)]
        async with (
            booted(lambda: colds[0], self.spec, SystemClock(), tries=1) as one,
            booted(lambda: colds[1], self.spec, SystemClock(), tries=1) as two,
        ):
            self._add_memory([one, two])
        async with self.runtime.guest(self.spec) as one, self.runtime.guest(self.spec) as two:
            self._add_memory([one, two])
            known = {one.vmm_pid, two.vmm_pid}
            others = [memory_of(p).proportional for p in children(os.getpid()) if p not in known]
            self._add("idle guest: its warden, and half of their zygote", sum(others) / 2, "MiB")

    def _add_memory(self, guests: Sequence[VmGuest]) -> None:
        found = max((memory_of(g.vmm_pid) for g in guests), key=lambda m: m.proportional)
        kind = "restored" if guests[0].identity.snapshot_digest else "booted"
        what = f"idle guest, {kind}"
        self._add(f"{what}: memory of its VMM, shared pages by halves", found.proportional, "MiB")
        self._add(f"{what}: of it, an emulator's translated code", found.translated, "MiB")
        goal = 64 if kind == "restored" else None
        self._add(f"{what}: what one more of them takes", found.own, "MiB", goal)

    def _add(
        self,
        what: str,
        value: float,
        unit: str,
        goal: float | None = None,
        *,
        is_lower_better: bool = True,
    ) -> None:
        row = Row(what, value, unit, goal, is_lower_better)
        self.rows.append(row)
        print(row.line(), flush=True)


def _ms(samples: Sequence[float]) -> float:
    return 1e3 * statistics.median(samples)


async def run(args: argparse.Namespace, directory: Path) -> tuple[str, list[Row]]:
    assets = await prepare_assets(Paths.from_env(os.environ).guest_assets, print)
    spec = GuestSpec(
        image=ImageDigest("sha256:" + "b" * 64),
        image_path=build_scratch_image(directory),
        memory_mib=MEMORY_MIB,
        boot_timeout_seconds=300,
    )
    async with WarmStart(open_snapshots(directory), SystemClock()) as warm:
        runtime = await pick_runtime(
            assets, accelerator="auto", state_dir=directory, clock=SystemClock(), warm=warm
        )
        if not isinstance(runtime, QemuRuntime | FirecrackerRuntime):
            raise SystemExit("no virtual machines here")
        print(f"{runtime.isolation}, {MEMORY_MIB} MiB\n| what | figure | goal | |")
        print("| --- | --- | --- | --- |")
        bench = Bench(runtime, spec)
        async with runtime.guest(spec):
            await warm.settle()  # makes the snapshot for the restores below
        parts = {
            "starts": lambda: bench.starts(warm, 1 if args.quick else args.rounds),
            "execs": lambda: bench.execs(10 if args.quick else OVERHEAD_EXECS),
            "project": lambda: bench.project(UNITS),
            "memory": bench.memory,
        }
        for name in args.only.split(",") if args.only else parts:
            await parts[name]()
    return runtime.isolation.value, bench.rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round of little")
    parser.add_argument("--only", help="of starts,execs,project,memory")
    parser.add_argument("--rounds", type=int, default=5, help="of starts (5)")
    parser.add_argument("--out", type=Path, help="where the JSON goes (bench/results/guest.json)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hpcc-bench-") as name:
        isolation, rows = asyncio.run(run(args, Path(name)))
    out = args.out or (RESULTS / "tmp/guest.json" if args.quick else RESULTS / "guest.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "isolation": isolation,
        "machine": f"{platform.release()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}",
        "rows": [
            {"what": r.what, "value": round(r.value, 3), "unit": r.unit, "goal": r.goal}
            for r in rows
        ],
    }
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\nwritten to {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
