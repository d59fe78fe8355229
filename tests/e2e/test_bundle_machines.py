"""Workers on machines without a network boot what one bundle has, and nothing else."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcc.runtime.assets.bundle import place_of
from hpcc_testkit.farm.booted import HERE, BootedMachine, make_bridge, own_network
from hpcc_testkit.farm.estate import ProviderThread
from hpcc_testkit.farm.machine import Machine
from hpcc_testkit.operate.set_up import log_in_at, start_scheduler, start_worker

pytestmark = [pytest.mark.vm, pytest.mark.nightly, pytest.mark.timeout(1500)]
_ADDRESSES = {"w1": "10.77.0.31", "w2": "10.77.0.32"}
_ASSETS = "/var/lib/hpcc-worker/cache/guest"


@dataclass(frozen=True, slots=True)
class Farm:
    """A scheduler, two workers of one bundle, and somebody who has logged in."""

    bundle: str
    workers: dict[str, BootedMachine]
    person: Machine


def _as_worker(machine: BootedMachine, *argv: str, check: bool = True) -> str:
    user = ("runuser", "-u", "hpcc-worker", "--", "env", "HPCC_DIR=/var/lib/hpcc-worker")
    return machine.run(*user, *argv, check=check)


def _fetch(machine: BootedMachine, file: Path, bundle: str) -> None:
    """Keep the bundle on a worker's machine, as docs/operate.md says."""
    machine.run("install", "-d", "-m", "700", "-o", "hpcc-worker", "/var/lib/hpcc-worker")
    (machine.root / "guest.tar").write_bytes(file.read_bytes())
    said = _as_worker(machine, "hpcc", "assets", "fetch", "/guest.tar", "--digest", bundle)
    assert f'guest_bundle = "{bundle}"' in said
    assert f"ok       {bundle}" in _as_worker(machine, "hpcc", "assets", "verify")


@pytest.fixture(scope="module")
def farm(
    tmp_path_factory: pytest.TempPathFactory,
    machines_base: Path,
    shared_cache: Path,
    toolchain: str,
) -> Iterator[Farm]:
    directory = tmp_path_factory.mktemp("bundle")
    person = Machine(directory / "ann", shared_cache)
    file = directory / "guest.tar"
    bundle = person.hpcc("assets", "build", str(file)).stdout.strip()
    (person.root / ".hpcc").touch()
    with own_network(), ProviderThread() as provider:
        make_bridge()
        subprocess.run(
            ["ip", "address", "add", f"{HERE}/24", "dev", "hpcc0"], check=True, timeout=30
        )
        scheduler = BootedMachine(directory, machines_base, "s1")
        workers = {
            name: BootedMachine(directory, machines_base, name, address=address)
            for name, address in _ADDRESSES.items()
        }
        try:
            scheduler.boot()
            started = start_scheduler(scheduler, provider.issuer, toolchain)
            for name, machine in workers.items():
                machine.boot("/dev/kvm", "/dev/net/tun", "/dev/userfaultfd")
                _fetch(machine, file, bundle)
                start_worker(
                    machine, started, _ADDRESSES[name], shared_cache,
                    bundle=bundle, max_guests=1, memory_mib=1024,
                )  # fmt: skip
            log_in_at(started, person, provider)
            yield Farm(bundle, workers, person)
        finally:
            person.close()
            for machine in (*workers.values(), scheduler):
                machine.close()


def _kernels(machine: BootedMachine) -> set[tuple[str, str]]:
    """Return the digests of kernel and agent in the rows of a worker."""
    trail = ("--directory", "/var/lib/hpcc-worker/audit")
    rows = _as_worker(machine, "hpcc", "audit", "export", "--format", "jsonl", *trail).splitlines()
    executed = [json.loads(line) for line in rows]
    return {
        (row["kernel_digest"], row["agent_digest"]) for row in executed if row.get("kernel_digest")
    }


def test_two_machines_without_a_network_boot_the_kernel_of_the_bundle(farm: Farm) -> None:
    for number, (name, machine) in enumerate(farm.workers.items()):
        # No way out: the machine has the wire to the scheduler only.
        assert "default" not in machine.run("ip", "route")
        others = [other for other in farm.workers.values() if other is not machine]
        for other in others:
            other.run("systemctl", "stop", "hpcc-worker")
        for attempt in range(60):
            source = farm.person.root / f"on_{name}_{attempt}.c"
            source.write_text(f"int on_{name}_{attempt};\n")
            farm.person.run(["hpcc", "gcc", "-c", source.name])
            if farm.person.counters().get("miss.remote.executed", 0) > number:
                break
        for other in others:
            other.run("systemctl", "start", "hpcc-worker")
    first, second = (_kernels(machine) for machine in farm.workers.values())
    assert first == second
    ((kernel, agent),) = first
    for machine in farm.workers.values():
        place = place_of(machine.root / _ASSETS.removeprefix("/"), farm.bundle)
        files = json.loads((place / "bundle.json").read_text())["files"]
        digests = {name: entry["digest"] for name, entry in files.items()}
        assert kernel in {digests["vmlinux"], digests["vmlinuz"]}
        assert agent == digests["agent.erofs"]
        # Neither machine has made or fetched another kernel.
        assert machine.run("ls", _ASSETS).split() == ["bundles"]


def test_a_worker_whose_bundle_was_changed_does_not_start_and_says_which_file(farm: Farm) -> None:
    machine = farm.workers["w2"]
    kernel = f"{place_of(Path(_ASSETS), farm.bundle)}/vmlinux"
    machine.run("systemctl", "stop", "hpcc-worker")
    machine.run("sh", "-c", f"chmod u+w {kernel} && printf x | dd of={kernel} conv=notrunc bs=1")
    machine.run("systemctl", "start", "hpcc-worker", check=False)
    assert machine.run("systemctl", "is-active", "hpcc-worker", check=False) != "active\n"
    assert f"{kernel} is not the file of its bundle" in machine.journal("hpcc-worker")
    assert "damaged" in _as_worker(machine, "hpcc", "assets", "verify", check=False)
