"""Measures the CPU that each process of a farm spends on one compile, with containers as guests.

The farm is the installed one: launcher, daemon, dispatcher, scheduler, worker, warden, and an agent
in a container of a private containerd. It needs root. Each round compiles new content of a unit
with 300 headers in a warm guest, beside the image's compiler without hpcc. Figures are CPU time,
not wall time, so that other work on the machine matters less.

The stores are on a tmpfs if there is one with room, and the table names the file system. A compile
makes ten files and directories. On ext4 without a journal each of them steps over the inodes of
files that anybody removed within the last minutes, one by one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from _farm_rows import Machine as WorkerMachine
from _measure import BenchError, children_seconds, own_seconds, settle
from _places import default_parent, file_system
from _trees import header_tree, write_source

from hpcc.core import ImageRef
from hpcc.images.store import ImageStore
from hpcc.ports import SystemClock
from hpcc_testkit.farm.machine import HPCC, Machine
from hpcc_testkit.guests.containerd_daemon import containerd_daemon

RESULTS: Final = Path(__file__).parent / "results"
HEADERS: Final = 300
# The machine for which docs/scaling.md computes a rate.
VCPUS: Final = 32
_FUNCTIONS: Final = 150
_WARM_UP: Final = 4
_IDLE_SECONDS: Final = 10.0
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_SETTINGS: Final = """
[worker]
runtime = "process"
containerd = "{}"
max_guests = 1
[remote]
fallback = "never"
"""
_IN_GUEST: Final = "sandbox and compiler"
_PARTS: Final = (
    "launcher", "daemon", "dispatcher", "scheduler", "worker", "warden", "agent", _IN_GUEST,
)  # fmt: skip
_FLAGS: Final = ("-Iinc0", "-Iinc1", "-Iinc2", "-I.", "-w", "-MD", "-c", "unit.c")


class Processes:
    """Finds the farm's processes and reads their CPU."""

    def __init__(self, machine: Machine) -> None:
        daemon = int(json.loads(machine.hpcc("status", "--json").stdout)["pid"])
        parents = _parents()
        self._pids = {
            "daemon": [daemon],
            "dispatcher": [p for p in _below(daemon, parents) if b"hpcc.dispatch" in _command(p)],
            "scheduler": machine.processes("hpcc.scheduler"),
            "worker": machine.processes("hpcc.worker"),
            "warden": [
                pid
                for worker in machine.processes("hpcc.worker")
                for pid in _below(worker, parents)
            ],
            "agent": _agents(machine.directory),
        }
        missing = [name for name, pids in self._pids.items() if not pids]
        if missing:
            raise BenchError(f"no process of {', '.join(missing)}")

    def seconds(self) -> dict[str, float]:
        """Return the CPU so far of each part, and of what the agent has waited for."""
        found = {name: sum(map(own_seconds, pids)) for name, pids in self._pids.items()}
        found[_IN_GUEST] = sum(map(_waited_for, self._pids["agent"]))
        found["launcher"] = children_seconds()
        return found


def _parents() -> dict[int, int]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended
            found[int(entry.name)] = int(fields[1])
    return found


def _below(ancestor: int, parents: dict[int, int]) -> list[int]:
    children = [pid for pid, parent in parents.items() if parent == ancestor]
    return [pid for child in children for pid in (child, *_below(child, parents))]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _agents(directory: Path) -> list[int]:
    """Return the agents whose link to the worker is below this directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and b"main_in_container" in _command(int(entry.name)):
            try:
                mounts = (entry / "mountinfo").read_text()
            except OSError:
                continue  # it has ended
            if str(directory) in mounts:
                found.append(int(entry.name))
    return found


def _waited_for(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / _TICKS_PER_SECOND


def write_unit(project: Path, number: int) -> None:
    """Write a unit of about 10 kB that differs from all earlier ones."""
    body = "\n".join(
        f"int work_{i}(int n) {{ return n * {i} + {number if not i else 0}; }}"
        for i in range(_FUNCTIONS)
    )
    write_source(project / "unit.c", HEADERS, body)


@dataclass(frozen=True, slots=True)
class Costs:
    """Milliseconds of CPU of each part: for one compile, and for a second without one.

    A compile has no part of the latter: how long it takes depends on what else the machine does.
    """

    compile: dict[str, float]
    idle: dict[str, float]


def measure(machine: Machine, rounds: int) -> Costs:
    """Return the mean CPU of each part."""
    project = machine.root / "project"
    header_tree(project, HEADERS, include_dirs=3)
    (project / ".hpcc").touch()
    argv = [str(HPCC), "gcc", *_FLAGS, "-o", "unit.o"]

    def compile_one(number: int) -> None:
        write_unit(project, number)
        machine.run(argv, cwd=project, timeout=120)

    for number in range(_WARM_UP):
        compile_one(-1 - number)
    settle()
    compile_one(-1 - _WARM_UP)  # by now the daemon trusts the headers' stats
    processes, executed = Processes(machine), machine.count("miss.remote.executed")
    idle = processes.seconds()
    time.sleep(_IDLE_SECONDS)
    before, started = processes.seconds(), time.monotonic()
    for number in range(rounds):
        compile_one(number)
    after, wall = processes.seconds(), time.monotonic() - started
    ran = machine.count("miss.remote.executed") - executed
    if ran != rounds:
        raise BenchError(f"{ran} of {rounds} compiles ran on the farm")
    rest = {name: (before[name] - idle[name]) / _IDLE_SECONDS for name in _PARTS}
    return Costs(
        {n: 1000 * (after[n] - before[n] - wall * rest[n]) / rounds for n in _PARTS},
        {n: 1000 * rest[n] for n in _PARTS},
    )


def measure_compiler(machine: Machine, image: Path, rounds: int) -> float:
    """Return the mean CPU of the image's compiler without hpcc, in milliseconds."""
    root = machine.root / "image"
    root.mkdir()
    argv = " ".join(["gcc", *_FLAGS, "-o", "unit.o"])
    # In a separate mount namespace, which ends with the last compile.
    script = (
        f"mount -t erofs -o ro,loop {image} {root}"
        f" && mount --bind {machine.root}/project {root}/mnt"
        f" && exec chroot {root} sh -c 'cd /mnt; for i in $0; do {argv}; done' \"$(seq $1)\""
    )
    run = ["unshare", "--mount", "sh", "-c", script, "sh"]
    subprocess.run([*run, "2"], check=True, timeout=600)
    started = children_seconds()
    subprocess.run([*run, str(rounds)], check=True, timeout=600)
    return 1000 * (children_seconds() - started) / rounds


@contextmanager
def farm(cache: Path, scratch: Path | None = None) -> Iterator[tuple[Machine, Path]]:
    """Start containerd and a farm; yield the user's machine and the image's file.

    `scratch` is where all stores are; None is the directory for temporary files.
    """
    with (
        tempfile.TemporaryDirectory(prefix="hpcc-cost-", dir=scratch) as name,
        containerd_daemon() as containerd,
    ):
        machine = Machine(Path(name), cache)
        settings = machine.directory / "config/hpcc.toml"
        settings.parent.mkdir(parents=True)
        settings.write_text(_SETTINGS.format(containerd.socket))
        try:
            argv = ("image", "build-debian", "--if-missing", "gcc", "g++")
            reference = machine.hpcc(*argv, timeout=900).stdout.split()[-1]
            machine.hpcc("up", timeout=300)
            yield machine, _image_file(cache, reference)
        finally:
            machine.close()


def _image_file(cache: Path, reference: str) -> Path:
    store = ImageStore(cache / "images", SystemClock())
    try:
        prepared = store.get(ImageRef.parse(reference).digest)
    finally:
        store.close()
    if prepared is None:
        raise BenchError(f"no prepared image {reference}")
    return prepared.path


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--cache", type=Path, help="where images and guest assets are kept")
    parser.add_argument("--scratch", type=Path, help="where to work (a tmpfs with room, if any)")
    options = parser.parse_args()
    cache = options.cache or RESULTS / "tmp/farm-cost"
    scratch = (options.scratch or default_parent()).absolute()
    print(f"on {file_system(scratch)}\n")
    with farm(cache.absolute(), scratch) as (machine, image):
        costs = measure(machine, options.rounds)
        bare = measure_compiler(machine, image, options.rounds)
    parts, idle = costs.compile, costs.idle
    inside = parts.pop(_IN_GUEST)
    print("| part | CPU of a compile | CPU of an idle second |\n| --- | --- | --- |")
    for name, ms in parts.items():
        print(f"| {name} | {ms:.1f} ms | {idle[name]:.1f} ms |")
    print(f"| sum | {sum(parts.values()):.1f} ms | {sum(idle.values()):.1f} ms |")
    # Their difference, the sandbox, is smaller than what two runs of the compiler differ by.
    print(f"\nsandbox and compiler {inside:.1f} ms, the compiler alone {bare:.1f} ms")
    print_rates(parts, inside, bare)
    return 0


def print_rates(parts: dict[str, float], inside: float, bare: float) -> None:
    """Print how many compiles a second a worker's machine can serve, by these figures."""
    guest = parts["warden"] + parts["agent"] + max(inside - bare, 0.0)
    print("\n| computed, compiles a second | one worker process | all of use | how many |")
    print("| --- | --- | --- | --- |")
    for vcpus in (os.cpu_count() or 1, VCPUS):
        full = WorkerMachine(vcpus=vcpus, worker=parts["worker"], guest=guest, compiler=bare)
        stub = WorkerMachine(vcpus=vcpus, worker=parts["worker"], guest=guest, compiler=0.0)
        for what, at in (("with this compiler", full), ("without a compiler", stub)):
            row = f"{at.served(1):.0f} | {at.served():.0f} | {at.processes}"
            print(f"| {vcpus} vCPUs, {what} | {row} |")
    print(f"\nthe compiler's share of a machine in full use: {100 * full.share:.0f} %")


if __name__ == "__main__":
    raise SystemExit(main())
