"""`hpcc up` takes a snapshot beside its first guest and restores the next guest from it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from hpcc_testkit.farm.machine import POLL_SECONDS, Machine

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def snapshots() -> Path | None:
    """Return None: these guests boot, and the worker takes snapshots beside them."""
    return None


def executed(machine: Machine, name: str) -> dict[str, object]:
    """Compile a file of that name and return its audit row."""
    source = machine.root / f"{name}.c"
    source.write_text(f"int {name}(void) {{ return 0; }}\n")
    machine.run(["hpcc", "gcc", "-c", source.name], timeout=300)
    lines = machine.hpcc("audit", "export", "--format", "jsonl").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    return next(r for r in rows if r["cache_status"] == "executed" and source.name in r["argv"])


def wait_for_snapshot(machine: Machine, seconds: float = 420) -> Path:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := list(machine.directory.glob("**/snapshots/*/snapshot.json")):
            return found[0]
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"no snapshot within {seconds} s")


@pytest.mark.nightly
def test_the_second_up_restores_what_the_first_one_saved(machine: Machine) -> None:
    (machine.root / ".hpcc").touch()
    machine.hpcc("up", timeout=300)
    assert executed(machine, "first")["snapshot_digest"] == ""
    wait_for_snapshot(machine)
    machine.hpcc("down", timeout=120)
    machine.hpcc("up", timeout=300)
    row = executed(machine, "second")
    assert str(row["snapshot_digest"]).startswith("sha256:")
    assert machine.count("fallback") == 0
    machine.hpcc("down", timeout=120)
    config = machine.directory / "config/hpcc.toml"
    config.parent.mkdir(exist_ok=True)
    with config.open("a") as file:
        file.write("[worker]\nwarm_start = false\n")
    machine.hpcc("up", timeout=300)
    assert executed(machine, "third")["snapshot_digest"] == ""
