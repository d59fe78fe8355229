"""A real guest whose agent is hostile, through the whole path: the build has every object.

The worker finds another agent on the drive that it made itself, as if the guest had been
compromised during a compile.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpcc_testkit
from hpcc.runtime.assets import assets, drive
from hpcc_testkit.farm.machine import Machine
from hpcc_testkit.hostile.agent import attack_flag

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

# Three: after as many failures the daemon compiles locally for a while without asking.
ATTACKS = ["stdio-flood", "million-outputs", "hpack-bomb"]
MAX_GROWTH_KIB = 128 << 10
KIT = Path(hpcc_testkit.__file__).parent


def with_hostile_agent() -> Iterator[tuple[str, Path]]:
    """Yield the drive's files, with a hostile agent in place of the agent."""
    for name, path in drive._own_files():
        if name != "hpcc/agent/linux/main.py":
            yield name, path
    yield "hpcc/agent/linux/main.py", KIT / "hostile/agent.py"
    for path in (KIT / "__init__.py", *sorted(KIT.glob("hostile/*.py"))):
        yield f"hpcc_testkit/{path.relative_to(KIT)}", path


async def prepared(shared: Path) -> Path:
    """Prepare the assets that all tests share; return the guest's init."""
    await assets.prepare_assets(shared, print)
    return await assets._build_init(shared)


def hostile_assets(shared: Path, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill `to` with those assets, and put a hostile agent under the honest one's name."""
    init = asyncio.run(prepared(shared))
    name = f"agent-{asyncio.run(drive.drive_key(init))}.erofs"
    stage = to / "stage"
    stage.mkdir(parents=True)
    for path in shared.iterdir():
        if path.name not in {name, ".lock"}:
            (to / path.name).symlink_to(path)
    files = list(with_hostile_agent())
    monkeypatch.setattr(drive, "_own_files", lambda: iter(files))
    asyncio.run(drive.build_drive(stage / name, init))
    (stage / name).rename(to / name)


@pytest.fixture
def machine(
    tmp_path: Path, shared_cache: Path, toolchain: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machine]:
    machine = Machine(tmp_path, shared_cache)
    guest = machine.directory / "cache/guest"
    guest.unlink()
    hostile_assets(shared_cache / "guest", guest, monkeypatch)
    try:
        yield machine
    finally:
        machine.close()
    assert machine.leftovers() == []


def peak_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def lost_guests(machine: Machine) -> list[dict[str, str]]:
    """Return the fields of the events about guests that were lost during a compile."""
    done = machine.hpcc("audit", "export", "--format", "jsonl", "--events")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return [dict(e["fields"]) for e in events if e["name"] == "guest-lost-in-compile"]


@pytest.mark.nightly
def test_a_hostile_guest_costs_no_build_and_leaves_an_event(machine: Machine) -> None:
    machine.hpcc("up", timeout=400)
    (worker,) = machine.processes("-m hpcc.worker")
    before = peak_kib(worker)
    seen = 0
    for number, attack in enumerate(ATTACKS):
        source = machine.root / f"unit{number}.c"
        source.write_text(f"int unit{number}(void) {{ return {number}; }}\n")
        words = ["gcc", "-O1", attack_flag(attack), "-c", source.name]
        machine.run(["hpcc", *words, "-o", "ours.o"], timeout=200)
        machine.run([*words, "-o", "bare.o"])
        assert (machine.root / "ours.o").read_bytes() == (machine.root / "bare.o").read_bytes()
        assert machine.count("fallback") == number + 1, (attack, machine.counters())
        lost = lost_guests(machine)[seen:]
        seen += len(lost)
        assert {event["cause"] for event in lost} == {"protocol-violation"}, (
            attack,
            machine.counters(),
        )
        assert all(event["reason"].isprintable() for event in lost)
    assert machine.processes("-m hpcc.worker") == [worker]
    assert peak_kib(worker) - before < MAX_GROWTH_KIB
    machine.hpcc("audit", "verify")
