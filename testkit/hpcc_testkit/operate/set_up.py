"""A scheduler and workers of the shipped units, with the embedded database and copied images.

These commands are a test's own, for tests that are about something else than the page. The machines
of `booted` have hpcc's packages.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc_testkit.farm.booted import HERE, BootedMachine
from hpcc_testkit.farm.estate import ProviderThread, log_in
from hpcc_testkit.farm.machine import Machine
from hpcc_testkit.services.identity_provider import CLIENT

_CONFIG: Final = "/etc/hpcc/scheduler/scheduler.json"
_STATE: Final = "/var/lib/hpcc-worker"
_USER: Final = "hpcc-worker"


@dataclass(frozen=True, slots=True)
class Scheduler:
    """A scheduler that serves at `HERE`; `facts` is the line it prints when ready."""

    machine: BootedMachine
    issuer: str
    image: str
    facts: Mapping[str, object]

    def enrol_token(self, name: str) -> str:
        return self.machine.run(
            "setpriv", "--reuid=hpcc-scheduler", "--regid=hpcc-scheduler", "--clear-groups",
            "/usr/bin/hpcc", "scheduler", "enrol-token", "--config", _CONFIG, "--name", name,
            "--valid", "1h",
        )  # fmt: skip


def start_scheduler(machine: BootedMachine, issuer: str, image: str) -> Scheduler:
    """Start the scheduler of a machine without an own network, with one tenant."""
    tenants = (
        f'[tenants.acme]\nimages = ["{image}"]\nminimum_isolation = "qemu/tcg"\n'
        f'parity = "ignore"\n[tenants.acme.identity]\nissuer = "{issuer}"\n'
        f'audience = "{CLIENT}"\nclient_ids = ["{CLIENT}"]\n'
    )
    user = "hpcc-scheduler"
    machine.write("/etc/hpcc/scheduler/tenants.toml", tenants, owner=user)
    machine.write("/etc/hpcc/scheduler/sealing.key", secrets.token_hex(32), owner=user)
    config = {
        "sealing_key": "/etc/hpcc/scheduler/sealing.key",
        "state": "/var/lib/hpcc-scheduler/state",
        "keys": "/var/lib/hpcc-scheduler/keys",
        "tenants": "/etc/hpcc/scheduler/tenants.toml",
        "host": "0.0.0.0", "port": 7443, "worker_port": 7444,  # noqa: S104 - the machines' network
    }  # fmt: skip
    machine.write(_CONFIG, json.dumps(config), owner=user)
    machine.start("hpcc-scheduler", until='"worker_port"')
    line = next(x for x in machine.journal("hpcc-scheduler").splitlines() if '"worker_port"' in x)
    return Scheduler(machine, issuer, image, dict(json.loads(line)))


def copy_cache(machine: BootedMachine, shared_cache: Path, *names: str) -> None:
    """Copy directories of the cache to the worker's, and make them the worker's own."""
    machine.run("install", "-d", "-m", "700", "-o", _USER, _STATE)
    for name in names:
        cache = machine.root / _STATE.removeprefix("/") / "cache" / name
        shutil.copytree(shared_cache / name, cache, symlinks=True)
    machine.run("chown", "-R", f"{_USER}:", _STATE)


def start_worker(
    machine: BootedMachine,
    scheduler: Scheduler,
    host: str,
    shared_cache: Path,
    *,
    bundle: str = "",
    **settings: object,
) -> None:
    """Enrol and start the worker of a machine, under the machine's name.

    `host` is the machine's address. The cache has the image and, without a `bundle`, what guests
    boot from; a `bundle` is there already. `settings` are more keys of the config file.
    """
    copy_cache(machine, shared_cache, "images", *([] if bundle else ["guest"]))
    token = scheduler.enrol_token(machine.name)
    machine.write("/etc/hpcc/worker/enrol.token", token, owner=_USER)
    places = ("keys", "store", "audit", "state")
    config = {
        "worker_id": machine.name, "host": host, "port": 7445,
        **{p: f"{_STATE}/{p}" for p in places},
        "images": f"{_STATE}/cache/images",
        "guest_assets": f"{_STATE}/cache/guest",
        "guest_bundle": bundle,
        "image_digests": [scheduler.image.partition("@")[2]],
        "scheduler": f"{HERE}:7444",
        "scheduler_certificate_pem": scheduler.facts["certificate_pem"],
        "enrol_at": f"{HERE}:7443",
        "enrol_token_file": "/etc/hpcc/worker/enrol.token",
        "guest_memory_mib": 512,
        # More than a compile of tests takes in an emulated guest of a loaded host.
        "drain_seconds": 280,
        "stores": {"kind": "disk"},
        **settings,
    }  # fmt: skip
    machine.write("/etc/hpcc/worker/worker.json", json.dumps(config), owner=_USER)
    machine.start("hpcc-worker", until='"port"')
    (machine.root / "etc/hpcc/worker/enrol.token").unlink()


def log_in_at(scheduler: Scheduler, person: Machine, provider: ProviderThread) -> None:
    """Log the person in to the farm, as `ann`."""
    farm = person.root / "farm.toml"
    farm.write_text(
        f'scheduler = "{HERE}:7443"\ntenant = "acme"\nissuer = "{scheduler.issuer}"\n'
        f'client_id = "{CLIENT}"\nimage = "{scheduler.image}"\n'
        f'scheduler_certificate = """\n{scheduler.facts["certificate_pem"]}"""\n'
    )
    log_in(person, farm, provider, "ann")
