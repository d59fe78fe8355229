"""Guest reuse with real guests: which tenants' and users' code a guest may have run before."""

from __future__ import annotations

import json

import pytest

from hpcc_testkit.farm.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]


def executed(machine: Machine, reuse: str, units: int) -> list[dict[str, object]]:
    """Compile some units under that policy; return their audit rows."""
    (machine.directory / "config").mkdir(parents=True)
    settings = f'[worker]\nguest_reuse = "{reuse}"\nmax_guests = 1\n'
    (machine.directory / "config" / "hpcc.toml").write_text(settings)
    machine.hpcc("up", timeout=300)
    for i in range(units):
        (machine.root / f"unit{i}.c").write_text(f"int unit{i};\n")
        machine.run(["hpcc", "gcc", "-c", f"unit{i}.c"], cwd=machine.root)
    assert machine.count("miss.remote.executed") == units, machine.counters()
    text = machine.hpcc("audit", "export", "--format", "jsonl").stdout
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.nightly
def test_with_reuse_exec_each_compile_has_a_guest_that_ran_nothing_before(machine: Machine) -> None:
    rows = executed(machine, "exec", 3)
    assert len({row["guest_id"] for row in rows}) == 3
    assert {(row["guest_execs_before"], row["reuse"]) for row in rows} == {(0, "exec")}


@pytest.mark.nightly
def test_with_reuse_principal_a_guest_counts_what_it_ran(machine: Machine) -> None:
    rows = executed(machine, "principal", 3)
    assert len({row["guest_id"] for row in rows}) == 1
    assert [row["guest_execs_before"] for row in rows] == [0, 1, 2]
    assert {row["reuse"] for row in rows} == {"principal"}
    lines = {str(row["kernel_command_line"]) for row in rows}
    assert [set(line.split()) & {"mitigations=off", "mitigations=auto"} for line in lines] == [
        {"mitigations=off"}
    ]
    (jail,) = {row["vmm_jail"] for row in rows}
    assert jail in ("hpcc", "jailer", "none")
    shown = machine.hpcc("audit", "show", str(rows[0]["row_id"])).stdout.splitlines()
    assert {f"{'kernel_command_line:':<22}{lines.pop()}", f"{'vmm_jail:':<22}{jail}"} <= set(shown)
