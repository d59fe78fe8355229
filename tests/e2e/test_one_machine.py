"""One machine: `hpcc up`, `make CC="hpcc gcc"`, the cache, the audit trail, and killed parts."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from hpcc.runtime.channel.warden_launch import warden_label
from hpcc_testkit.farm.machine import Machine

# CI runs `./demo.sh`, which builds, hits and audits on one machine.
pytestmark = [pytest.mark.vm, pytest.mark.nightly, pytest.mark.timeout(600)]

UNITS = 8
MAKEFILE = """
SRC := $(wildcard *.c)
OBJ := $(SRC:.c=.o)
all: $(OBJ)
%.o: %.c
\t$(CC) -O1 -g -MD -MP -c $< -o $@
clean:
\trm -f *.o *.d
-include $(wildcard *.d)
"""


def project(root: Path, units: int = UNITS, *, lines: int = 40) -> Path:
    """Make a project of `units` translation units that share a header in a sub-directory."""
    directory = root / "project"
    (directory / "include").mkdir(parents=True)
    (directory / ".hpcc").touch()
    (directory / "Makefile").write_text(MAKEFILE)
    (directory / "include/common.h").write_text(
        "#include <stdio.h>\n#define TWICE(x) ((x) + (x))\n"
    )
    for i in range(units):
        body = "\n".join(f"int f{i}_{j}(int n) {{ return TWICE(n) * {j}; }}" for j in range(lines))
        (directory / f"unit{i}.c").write_text(f'#include "include/common.h"\n{body}\n')
    return directory


def objects(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(directory.glob("*.[od]"))}


def build(machine: Machine, directory: Path, *, jobs: int = 2) -> dict[str, bytes]:
    machine.run(["make", f"-j{jobs}", "CC=hpcc gcc"], cwd=directory, timeout=300)
    found = objects(directory)
    assert len([n for n in found if n.endswith(".o")]) == len(list(directory.glob("*.c")))
    return found


def clean(machine: Machine, directory: Path) -> None:
    machine.run(["make", "clean"], cwd=directory)


def host_objects(machine: Machine, directory: Path) -> dict[str, bytes]:
    clean(machine, directory)
    machine.run(["make", "CC=gcc"], cwd=directory)
    found = objects(directory)
    clean(machine, directory)
    return found


def test_misses_compile_in_a_guest_and_hits_come_from_the_cache(
    machine: Machine, toolchain: str
) -> None:
    directory = project(machine.root)
    machine.hpcc("up", timeout=300)
    first = build(machine, directory)
    assert machine.count("miss.remote.executed") == UNITS
    assert machine.count("fallback") == 0
    clean(machine, directory)
    before = machine.count("hit")
    assert build(machine, directory) == first
    assert machine.count("hit") - before == UNITS

    rows = [
        json.loads(line)
        for line in machine.hpcc("audit", "export", "--format", "jsonl").stdout.splitlines()
    ]
    executed = [row for row in rows if row["cache_status"] == "executed"]
    assert len(executed) == UNITS
    assert {row["isolation"] for row in executed} <= {"qemu/tcg", "qemu/kvm"}
    assert {row["warden"] for row in executed} == {warden_label()}
    assert {row["image_digest"] for row in executed} == {toolchain.partition("@")[2]}

    # The worker asked the image before it registered, and the session told the daemon.
    shown = json.loads(machine.hpcc("image", "inspect", "--json", toolchain).stdout)
    (gcc,) = [c for c in shown["compilers"] if "gcc" in c["names"]]
    session = json.loads((machine.directory / "state/farm-session.json").read_text())
    assert session["compilers"] == shown["compilers"]
    checks = json.loads(machine.hpcc("doctor", "--json", check=False).stdout)
    (parity,) = [c["detail"] for c in checks if c["name"] == "parity"]
    assert "gcc: " in parity
    assert "warn" in parity
    assert "fell back to this machine" in machine.hpcc("status").stdout
    assert gcc["headers"]
    assert {row["exit_code"] for row in executed} == {0}
    assert all(
        row["argv"] and row["outputs"] and row["kernel_digest"] and row["agent_digest"]
        for row in executed
    )
    machine.hpcc("audit", "verify")

    # Boots a separate guest beside the running worker, from the files that the worker retained.
    done = machine.hpcc("audit", "reproduce", executed[0]["row_id"], timeout=400)
    assert f"reproduced, {len(executed[0]['outputs'])} outputs are the same" in done.stdout
    (lost,) = (machine.directory / "cache/worker/local").glob(
        f"retained/??/{executed[1]['action_digest'].partition('/')[0]}"
    )
    lost.unlink()
    machine.directory.joinpath("cache/worker/local/cas", lost.parent.name, lost.name).unlink()
    gone = machine.hpcc("audit", "reproduce", executed[1]["row_id"], check=False)
    assert gone.returncode == 4
    assert f"expired: action: {executed[1]['action_digest']}" in gone.stdout


def test_a_second_client_without_a_private_cache_is_served_by_the_workers_action_cache(
    machine: Machine,
) -> None:
    directory = project(machine.root, units=2)
    machine.hpcc("up", timeout=300)
    first = build(machine, directory)
    machine.hpcc("clean")
    clean(machine, directory)
    assert build(machine, directory) == first
    assert machine.count("miss.remote.cached") == 2


def test_a_compile_error_is_the_hosts_own_and_the_build_says_so(machine: Machine) -> None:
    directory = project(machine.root, units=1)
    (directory / "unit0.c").write_text("int broken(void) { return undeclared; }\n")
    machine.hpcc("up", timeout=300)
    bare = machine.run(["gcc", "-c", "unit0.c"], cwd=directory, check=False)
    ours = machine.run(["hpcc", "gcc", "-c", "unit0.c"], cwd=directory, check=False)
    assert (ours.returncode, ours.stderr) == (bare.returncode, bare.stderr)


@pytest.mark.parametrize(
    "victim",
    [["qemu-system"], ["hpcc.worker"], ["hpcc.scheduler"]],
    ids=["guest", "worker", "scheduler"],
)
def test_a_part_killed_in_mid_build_costs_no_build(machine: Machine, victim: list[str]) -> None:
    # Two compiles are in guests when the part dies, and two have yet to begin.
    directory = project(machine.root, units=4, lines=400)
    expected_host = host_objects(machine, directory)
    machine.hpcc("up", timeout=300)
    make = machine.spawn(["make", "-j2", "CC=hpcc gcc"], cwd=directory)
    try:
        time.sleep(1.0)
        for pid in machine.processes(*victim):
            os.kill(pid, signal.SIGKILL)
        out, _ = make.communicate(timeout=300)
    finally:
        if make.poll() is None:
            os.killpg(make.pid, signal.SIGKILL)
    assert make.returncode == 0, out
    found = objects(directory)
    assert {n for n in found if n.endswith(".o")} == {n for n in expected_host if n.endswith(".o")}
    for name, data in found.items():
        assert data, name
    # What was built is linkable, whichever compiler made which part.
    machine.run(
        ["gcc", "-shared", "-o", "all.so", *[n for n in found if n.endswith(".o")]], cwd=directory
    )


def test_the_daemon_killed_in_mid_build_costs_no_build(machine: Machine) -> None:
    directory = project(machine.root, units=4, lines=400)
    machine.hpcc("up", timeout=300)
    pid = json.loads(machine.hpcc("status", "--json").stdout)["pid"]
    make = machine.spawn(["make", "-j2", "CC=hpcc gcc"], cwd=directory)
    try:
        time.sleep(1.0)
        os.kill(pid, signal.SIGKILL)
        out, _ = make.communicate(timeout=300)
    finally:
        if make.poll() is None:
            os.killpg(make.pid, signal.SIGKILL)
    assert make.returncode == 0, out
    assert len([n for n in objects(directory) if n.endswith(".o")]) == 4


def test_interrupting_make_kills_the_compile_in_the_guest(machine: Machine) -> None:
    directory = project(machine.root, units=1, lines=6000)
    machine.hpcc("up", timeout=300)
    make = machine.spawn(["make", "CC=hpcc gcc", "unit0.o"], cwd=directory)
    time.sleep(3.0)
    assert make.poll() is None, "the compile was over too soon for this test"
    os.killpg(make.pid, signal.SIGINT)
    make.communicate(timeout=30)
    assert make.returncode != 0
    # The guest is free again at once: another compile does not wait for the one that was cancelled.
    (directory / "small.c").write_text("int small;\n")
    machine.run(["hpcc", "gcc", "-c", "small.c"], cwd=directory, timeout=60)
    rows = [
        json.loads(line)
        for line in machine.hpcc("audit", "export", "--format", "jsonl").stdout.splitlines()
    ]
    assert not any(
        row["cache_status"] == "executed"
        and row["exit_code"] == 0
        and "unit0.c" in " ".join(row["argv"])
        for row in rows
    )


def test_up_twice_and_down_twice_are_harmless(machine: Machine) -> None:
    machine.hpcc("up", timeout=300)
    again = machine.hpcc("up", timeout=60)
    assert "already" in again.stdout + again.stderr
    machine.hpcc("down")
    machine.hpcc("down")


def test_up_replaces_what_a_killed_predecessor_left(machine: Machine) -> None:
    machine.hpcc("up", timeout=300)
    for pid in machine.processes("supervise"):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while machine.processes("qemu-system") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert machine.processes("qemu-system") == [], "the guest outlived its supervisor"
    directory = project(machine.root, units=1)
    build(machine, directory)
    machine.hpcc("up", timeout=300)
    (directory / "more.c").write_text("int more;\n")
    machine.run(["hpcc", "gcc", "-c", "more.c"], cwd=directory)
    assert machine.count("miss.remote.executed") == 1, machine.counters()
