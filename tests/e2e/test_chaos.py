"""Builds during which parts are killed succeed with the same objects and leave a clean host."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcc_testkit.farm.machine import Machine
from hpcc_testkit.guests.host import Process, ProcessTracker, files_below, traces_of

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

UNITS = 50
# No debug information and no __FILE__: where a unit was compiled does not show in its object.
MAKEFILE = """
SRC := $(wildcard *.c)
OBJ := $(SRC:.c=.o)
all: $(OBJ)
%.o: %.c
\t$(CC) -O1 -MD -MP -c $< -o $@
clean:
\trm -f *.o *.d
"""


@pytest.fixture(scope="module")
def snapshots() -> Path | None:
    """Return None: these guests boot, and the worker takes snapshots beside them."""
    return None


@pytest.fixture
def tracker() -> Iterator[ProcessTracker]:
    with ProcessTracker() as tracker:
        yield tracker


@pytest.fixture
def chaos(machine: Machine) -> Machine:
    """Yield the machine with a private directory for temporary files."""
    temporary = machine.root / "tmp"
    temporary.mkdir()
    machine.env["TMPDIR"] = str(temporary)
    return machine


def project(directory: Path, units: int) -> Path:
    (directory / "include").mkdir(parents=True)
    (directory / ".hpcc").touch()
    (directory / "Makefile").write_text(MAKEFILE)
    (directory / "include/common.h").write_text(
        "#include <stdio.h>\n#define TWICE(x) ((x) + (x))\n"
    )
    for i in range(units):
        body = "\n".join(f"int f{i}_{j}(int n) {{ return TWICE(n) * {j}; }}" for j in range(20))
        (directory / f"unit{i}.c").write_text(f'#include "include/common.h"\n{body}\n')
    return directory


def made(directory: Path) -> dict[str, bytes]:
    """Return objects as bytes, and depfiles as names, because compilers wrap lines differently."""
    objects = {p.name: p.read_bytes() for p in directory.glob("*.o")}
    depfiles = {p.name: b" ".join(p.read_bytes().split()) for p in directory.glob("*.d")}
    return objects | {n: d.replace(b"\\ ", b"") for n, d in depfiles.items()}


def same_compiler(machine: Machine) -> str:
    """Return the name of the host's compiler that makes the same objects as the image's."""
    directory = project(machine.root / "version", 1)
    machine.run(["hpcc", "gcc", "-c", "unit0.c", "-o", "image.o"], cwd=directory)
    assert machine.count("miss.remote.executed") == 1
    wanted = (directory / "image.o").read_bytes()
    for path in sorted(Path("/usr/bin").glob("gcc*")):
        if re.fullmatch(r"gcc(-\d+)?", path.name):
            machine.run([path.name, "-c", "unit0.c", "-o", "host.o"], cwd=directory)
            if (directory / "host.o").read_bytes() == wanted:
                return path.name
    raise AssertionError("no compiler of this host is the image's")


def bare(machine: Machine, directory: Path, compiler: str) -> dict[str, bytes]:
    """Return the objects that the compiler makes without hpcc."""
    machine.run(["make", "-j2", f"CC={compiler}"], cwd=directory)
    objects = made(directory)
    machine.run(["make", "clean"], cwd=directory)
    return objects


def rows(machine: Machine) -> list[dict[str, object]]:
    text = machine.hpcc("audit", "export", "--format", "jsonl").stdout
    return [json.loads(line) for line in text.splitlines()]


def kill(victims: list[Process]) -> None:
    for victim in victims:
        try:
            os.kill(victim.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def assert_clean(machine: Machine, tracker: ProcessTracker, guests: set[str]) -> None:
    """Take everything down and assert that nothing is left."""
    machine.close()
    assert tracker.wait_gone(10) == []
    assert traces_of(machine.root, guests) == []
    guests_directory = machine.directory / "state" / "runtime" / "guests"
    assert files_below(guests_directory, machine.root / "tmp") == []
    # Whatever is written aside, in a store or a snapshot, is hidden; locks are empty.
    half_written = [p for p in machine.directory.rglob(".*") if p.is_dir() or p.stat().st_size]
    assert half_written == []


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def compiles_in_a_guest(machine: Machine, compiler: str) -> bool:
    """Return whether one more compile, new to the cache, ran in a guest."""
    before = machine.count("miss.remote.executed")
    source = machine.root / f"fresh{time.monotonic_ns()}.c"
    source.write_text(f"int fresh_{time.monotonic_ns()};\n")
    machine.run(["hpcc", compiler, "-c", source.name], cwd=machine.root)
    return machine.count("miss.remote.executed") > before


def wardens(tracker: ProcessTracker) -> list[Process]:
    """Return the processes that a zygote forked, one for each guest."""
    family = tracker.alive("warden/__main__")
    pids = {p.pid for p in family}
    return [p for p in family if p.parent in pids]


@pytest.mark.nightly
def test_a_vm_a_warden_and_a_worker_killed_in_one_build_cost_no_object(
    chaos: Machine, tracker: ProcessTracker
) -> None:
    directory = project(chaos.root / "project", UNITS)
    chaos.hpcc("up", timeout=300)
    compiler = same_compiler(chaos)
    expected = bare(chaos, directory, compiler)
    victims: list[tuple[int, Callable[[], list[Process]]]] = [
        (6, lambda: tracker.alive("qemu-system", str(chaos.directory))),
        (12, lambda: wardens(tracker)),
        (18, lambda: tracker.alive("hpcc.worker")),
    ]
    make = chaos.spawn(["make", "-j4", f"CC=hpcc {compiler}"], cwd=directory)
    try:
        for progress, find in victims:
            while make.poll() is None and not (is_far(directory, progress) and find()):
                time.sleep(0.02)
            assert make.poll() is None, "the build was over too soon for this test"
            kill(find())
        out, _ = make.communicate(timeout=300)
    finally:
        if make.poll() is None:
            os.killpg(make.pid, signal.SIGKILL)
            make.communicate()
    assert make.returncode == 0, out
    assert made(directory) == expected
    # The first died while guests were compiling; all were there again afterwards.
    assert chaos.count("miss.remote.executed") > 6
    until(lambda: compiles_in_a_guest(chaos, compiler))
    chaos.hpcc("audit", "verify")
    guests = {str(r["guest_id"]) for r in rows(chaos)}
    assert len(guests) >= 3
    assert_clean(chaos, tracker, guests)


def is_far(directory: Path, progress: int) -> bool:
    return len(list(directory.glob("*.o"))) >= progress


WRAPPER = """#!/bin/sh
# A VMM that does not hear of its starter's death: what a lost signal would leave.
if [ -e {marker} ] && [ "$1" != --version ]; then
    {program} "$@" &
    wait
else
    exec {program} "$@"
fi
"""


@pytest.fixture
def deaf_qemu() -> Iterator[Path]:
    """Make a directory for PATH with a QEMU that outlives its worker while `marker` exists."""
    program = shutil.which("qemu-system-x86_64")
    assert program is not None
    with tempfile.TemporaryDirectory() as name:
        directory, marker = Path(name), Path(name, "marker")
        directory.chmod(0o755)  # the VMM's user must get in
        marker.touch()
        wrapper = directory / "qemu-system-x86_64"
        wrapper.write_text(WRAPPER.format(marker=marker, program=program))
        wrapper.chmod(0o755)
        yield directory


@pytest.mark.nightly
def test_a_vmm_that_outlives_a_killed_worker_is_swept_by_the_next(
    chaos: Machine, tracker: ProcessTracker, deaf_qemu: Path
) -> None:
    chaos.env["PATH"] = f"{deaf_qemu}:{chaos.env['PATH']}"
    (chaos.directory / "config").mkdir(parents=True)
    (chaos.directory / "config" / "hpcc.toml").write_text('[worker]\nruntime = "qemu"\n')
    chaos.hpcc("up", timeout=300)
    assert compiles_in_a_guest(chaos, "gcc")
    (deaf_qemu / "marker").unlink()
    program = str(shutil.which("qemu-system-x86_64"))
    orphans = [p for p in tracker.alive(str(chaos.directory)) if p.command.startswith(program)]
    assert orphans
    try:
        for orphan in orphans:
            # It cannot end by itself either, as a guest does whose stream ended.
            os.kill(orphan.pid, signal.SIGSTOP)
        kill(tracker.alive("hpcc.worker"))
        assert all(o.is_alive for o in orphans), "they died with their worker: this shows nothing"
        until(lambda: not any(o.is_alive for o in orphans))
    finally:
        kill([o for o in orphans if o.is_alive])
    until(lambda: compiles_in_a_guest(chaos, "gcc"))
    assert_clean(chaos, tracker, {str(r["guest_id"]) for r in rows(chaos)})
