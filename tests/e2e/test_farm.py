"""A whole farm: two tenants, three people, two schedulers, two workers, and real peer services.

People build a real project while a VM, a worker and a scheduler are killed. Every build succeeds
with correct objects, hits are shared only inside a tenant, and the audit trails verify afterwards.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc_testkit.farm.estate import Estate, Service, estate
from hpcc_testkit.farm.machine import Machine
from hpcc_testkit.guests.host import ProcessTracker

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parents[2]
UNITS = 16


@pytest.fixture(scope="module")
def lua(shared_cache: Path) -> Path:
    """Return Lua's sources, from the distribution."""
    directory = shared_cache / "sources" / "lua5.4"
    if not list(directory.glob("*.tar.*")):
        directory.mkdir(parents=True, exist_ok=True)
        script = ROOT / "tools/fetch_source.sh"
        subprocess.run([script, "--upstream", "lua5.4", directory], check=True, timeout=300)
    return next(iter(sorted(directory.glob("*.orig.tar.*"))))


def project(machine: Machine, lua: Path) -> Path:
    """Unpack Lua below a person's directory, with a marker at its root."""
    directory = machine.root / "src"
    directory.mkdir()
    subprocess.run(
        ["tar", "xf", lua, "-C", directory, "--strip-components=1"], check=True, timeout=60
    )
    sources = directory / "src"
    (sources / ".hpcc").touch()
    units = sorted(p.name for p in sources.glob("l*.c"))[:UNITS]
    assert len(units) == UNITS
    objects = " ".join(u.replace(".c", ".o") for u in units)
    (sources / "farm.mk").write_text(
        f"all: {objects}\n%.o: %.c\n\t$(CC) -O1 -DLUA_USE_POSIX -c $< -o $@\n"
    )
    return sources


class Build:
    """One person's `make`; a test may disturb it while it runs."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        self.machine, self.directory = machine, directory
        argv = ["make", "-f", "farm.mk", "-j2", "CC=hpcc gcc"]
        self._make = machine.spawn(argv, cwd=directory)

    def when(self, count: int, act: Callable[[], None]) -> None:
        """Run `act` as soon as so many objects exist."""
        deadline = time.monotonic() + 600
        while len(list(self.directory.glob("*.o"))) < count:
            assert self._make.poll() is None, "the build was over too soon for this test"
            assert time.monotonic() < deadline, "the build does not get on"
            time.sleep(0.02)
        act()

    def end(self) -> dict[str, bytes]:
        try:
            said, _ = self._make.communicate(timeout=900)
        finally:
            if self._make.poll() is None:
                os.killpg(self._make.pid, signal.SIGKILL)
                self._make.communicate()
        assert self._make.returncode == 0, said
        assert "hpcc:" not in said, said
        return {p.name: p.read_bytes() for p in self.directory.glob("*.o")}


def rows(farm: Estate, worker: Service, *more: str) -> list[dict[str, object]]:
    trail = farm.directory / worker.name / "audit"
    argv = ("audit", "export", "--directory", str(trail), "--format", "jsonl", *more)
    return [json.loads(line) for line in farm.operator(*argv).splitlines()]


def all_rows(farm: Estate, *more: str) -> list[dict[str, object]]:
    return [row for worker in farm.workers for row in rows(farm, worker, *more)]


def kill_a_vm(tracker: ProcessTracker, farm: Estate) -> None:
    victims = tracker.alive("qemu-system", str(farm.directory))
    assert victims, "no guest is running"
    os.kill(victims[0].pid, signal.SIGKILL)


def counts(machine: Machine) -> tuple[int, int, int]:
    """Return how many compiles ran in a guest, came from the farm's cache, and ran locally."""
    found = machine.counters()
    local = sum(v for k, v in found.items() if k.startswith("fallback."))
    return found.get("miss.remote.executed", 0), found.get("miss.remote.cached", 0), local


@pytest.mark.nightly
def test_a_farm_of_two_tenants_loses_a_vm_a_worker_and_a_scheduler_and_no_object(
    tmp_path: Path, shared_cache: Path, toolchain: str, lua: Path
) -> None:
    with ProcessTracker() as tracker:
        with estate(tmp_path, shared_cache, toolchain) as farm:
            lose_parts_and_no_object(farm, tracker, lua)
        assert tracker.wait_gone(60) == []
        assert farm.leftovers() == []


def lose_parts_and_no_object(farm: Estate, tracker: ProcessTracker, lua: Path) -> None:
    farm.start_schedulers("qemu/tcg")
    farm.start_workers(
        runtime="qemu", accelerator="tcg", guest_reuse="tenant", guest_memory_mib=512,
        max_guests=2, vcpus=2,
    )  # fmt: skip
    ann, bob, carol = (
        farm.person(name, tenant)
        for name, tenant in (("ann", "acme"), ("bob", "acme"), ("carol", "globex"))
    )

    # Ann builds first; a VM dies under her, and she does not notice.
    build = Build(ann, project(ann, lua))
    build.when(6, lambda: kill_a_vm(tracker, farm))
    anns = build.end()
    executed, cached, local = counts(ann)
    assert executed > UNITS // 2, ann.counters()
    assert (executed + cached + local) == UNITS, ann.counters()

    # Bob is of her tenant: what she made he gets, also when a worker dies: it is in S3.
    wait_until_written(farm, executed)
    build = Build(bob, project(bob, lua))
    build.when(4, farm.workers[0].kill)
    bobs = build.end()
    assert bobs == anns
    executed_for_bob, cached_for_bob, local_for_bob = counts(bob)
    assert cached_for_bob > UNITS // 2, bob.counters()
    assert executed_for_bob + cached_for_bob + local_for_bob == UNITS, bob.counters()
    farm.workers[0].start()

    # Carol belongs to another tenant and gets none of their results. Her scheduler dies in mid-build.
    build = Build(carol, project(carol, lua))
    build.when(6, farm.schedulers[0].kill)
    carols = build.end()
    assert carols == anns
    executed_for_carol, cached_for_carol, _ = counts(carol)
    assert cached_for_carol == 0, carol.counters()
    assert executed_for_carol > UNITS // 2, carol.counters()
    farm.schedulers[0].start()

    check_rows(farm)
    check_trails(farm)


def wait_until_written(farm: Estate, count: int) -> None:
    """Wait until acme's results are in S3, because writes there follow the answers."""
    deadline = time.monotonic() + 120
    while True:
        keys = farm.s3.list_keys("acme/")
        results = [k for k in keys if "/ac/" in k]
        if len(results) >= count:
            return
        assert time.monotonic() < deadline, (len(results), count, keys[:20])
        time.sleep(0.2)


def check_rows(farm: Estate) -> None:
    """Assert that each row's person, tenant and isolation agree with the tenants' policies."""
    found = all_rows(farm)
    people = {(r["tenant"], r["principal"]) for r in found}
    assert people == {("acme", "ann"), ("acme", "bob"), ("globex", "carol")}
    for row in found:
        assert row["isolation"] == "qemu/tcg"
        assert row["reuse"] == ("tenant" if row["tenant"] == "acme" else "principal")
        assert row["image_digest"] == farm.image.partition("@")[2]
    guests = {t: {r["guest_id"] for r in found if r["tenant"] == t} for t in ("acme", "globex")}
    assert not guests["acme"] & guests["globex"]
    hits = [r for r in found if r["cache_status"] == "hit"]
    assert {r["principal"] for r in hits} >= {"bob"}
    assert not [r for r in hits if r["tenant"] == "globex"]


def check_trails(farm: Estate) -> None:
    """Verify the chains against the schedulers' anchors, reproduce a row, and list events."""
    anchors = farm.directory / "anchors.jsonl"
    scheduler = ("scheduler", "--config", str(farm.schedulers[0].config))
    anchors.write_text(farm.operator(*scheduler, "anchors"))
    for worker in farm.workers:
        trail = farm.directory / worker.name / "audit"
        said = farm.operator(
            "audit", "verify", "--directory", str(trail), "--anchors", str(anchors),
            "--worker", worker.name,
        )  # fmt: skip
        assert "anchors match" in said, said
    worker = farm.workers[1]
    row = next(r for r in rows(farm, worker) if r["cache_status"] == "executed")
    said = farm.operator(
        "audit", "reproduce", str(row["row_id"]), "--config", str(worker.config),
        "--directory", str(farm.directory / worker.name / "audit"),
    )  # fmt: skip
    assert "same" in said, said
    events = {str(e["name"]) for e in all_rows(farm, "--events")}
    assert events & {"guest-lost-in-compile", "guest-lost"}, events
