"""A C file compiled in a container through the whole stack, labelled as such everywhere."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcc.core import ImageRef, Isolation
from hpcc.images.store import ImageStore
from hpcc.ports import GuestSpec, SystemClock
from hpcc.runtime.assets.assets import GuestAssets
from hpcc.runtime.qemu.backend import QemuConfig, QemuRuntime
from hpcc.runtime.runc.backend import RuncRuntime
from hpcc.runtime.runc.spec import FIRST_UID
from hpcc.runtime.runc.tools import RuncConfig
from hpcc_testkit.farm.machine import Machine
from hpcc_testkit.guests.containerd_daemon import ContainerdDaemon
from hpcc_testkit.guests.guest_contract import MemoryBlobs, request, run

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

ENV = (("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LC_ALL", "C"))
SOURCE = b'#include <stdio.h>\nint main(void) { return puts("from a container") < 0; }\n'
UNITS = 12
MAKEFILE = """
OBJ := $(patsubst %.c,%.o,$(wildcard *.c))
all: $(OBJ)
%.o: %.c
\t$(CC) -c $< -o $@
"""
SETTINGS = """
[worker]
runtime = "process"
containerd = "{}"
max_guests = 1
[remote]
fallback = "never"
"""


def agents() -> list[int]:
    """Return the agents of all containers: root in a user namespace, with the drive's command."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
                uid = (entry / "uid_map").read_text().split()[1]
            except (OSError, IndexError):
                continue
            if b"main_in_container" in line and int(uid) >= FIRST_UID:
                found.append(int(entry.name))
    assert found
    return found


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def image(toolchain: str, shared_cache: Path) -> Path:
    store = ImageStore(shared_cache / "images", SystemClock())
    try:
        prepared = store.get(ImageRef.parse(toolchain).digest)
        assert prepared is not None
        return prepared.path
    finally:
        store.close()


@pytest.fixture
def machine(tmp_path: Path, shared_cache: Path, containerd: ContainerdDaemon) -> Iterator[Machine]:
    """Yield hpcc with containers configured; stop it and check for leftovers at the end."""
    machine = Machine(tmp_path, shared_cache)
    settings = machine.directory / "config/hpcc.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(SETTINGS.format(containerd.socket))
    try:
        yield machine
    finally:
        machine.close()
    assert machine.leftovers() == []
    assert containerd.leftovers() == []
    assert not list((machine.directory / "state").glob("**/guest-*"))


@pytest.mark.nightly
async def test_the_object_is_the_one_that_a_vm_makes(
    assets: GuestAssets,
    containerd: ContainerdDaemon,
    guests_directory: Path,
    spec: GuestSpec,
    image: Path,
) -> None:
    """The same image and command in a guest of the other kind give the same bytes."""
    wanted = GuestSpec(image=spec.image, image_path=image, memory_mib=640, boot_timeout_seconds=120)
    compile_ = request(
        "gcc", "-c", "-O1", "-g", "a.c", "-o", "a.o",
        inputs=[("a.c", SOURCE)], outputs=("a.o",), env=ENV,
    )  # fmt: skip
    runc = RuncConfig(directory=guests_directory, socket=containerd.socket)
    qemu = QemuConfig(accelerator="tcg", directory=guests_directory)
    clock = SystemClock()
    objects = []
    for runtime in (RuncRuntime(runc, assets, clock), QemuRuntime(qemu, assets, clock)):
        async with runtime.guest(wanted) as guest:
            done = await run(guest, compile_, MemoryBlobs(SOURCE))
        assert done.result.exit_code == 0, done.stderr
        objects.append(done.outputs["a.o"])
    assert objects[0].startswith(b"\x7fELF")
    assert objects[0] == objects[1]


def test_a_build_with_containers_goes_through_the_whole_stack(
    machine: Machine, toolchain: str
) -> None:
    project = machine.root / "project"
    project.mkdir()
    (project / ".hpcc").touch()
    (project / "a.c").write_bytes(SOURCE)
    told = machine.hpcc("up", timeout=300).stdout
    assert Isolation.PROCESS_RUNC.value in told
    assert "this machine's kernel" in told
    machine.run(["hpcc", "gcc", "-c", "a.c", "-o", "a.o"], cwd=project, timeout=120)
    assert (project / "a.o").read_bytes().startswith(b"\x7fELF")
    assert machine.count("miss.remote.executed") == 1
    exported = machine.hpcc("audit", "export", "--format", "jsonl").stdout
    (row,) = [r for r in map(json.loads, exported.splitlines()) if r["cache_status"] == "executed"]
    assert row["isolation"] == "process/runc"
    assert row["image_digest"] == toolchain.partition("@")[2]
    assert row["vmm_version"].startswith("runc 1.")
    assert row["kernel_digest"] == ""
    assert all(row[f"{n}_digest"].startswith("sha256:") for n in ("vmm", "jailer", "agent"))


@pytest.mark.parametrize("victim", ["worker", "guest"])
def test_a_part_killed_in_mid_build_costs_no_build_and_leaves_nothing(
    machine: Machine, containerd: ContainerdDaemon, toolchain: str, victim: str
) -> None:
    settings = machine.directory / "config/hpcc.toml"
    settings.write_text(settings.read_text().replace('"never"', '"quiet"'))
    project = machine.root / "project"
    project.mkdir()
    (project / ".hpcc").touch()
    (project / "Makefile").write_text(MAKEFILE)
    for number in range(UNITS):
        body = "\n".join(f"int f{number}_{i}(int n) {{ return n * {i}; }}" for i in range(200))
        (project / f"u{number}.c").write_text(body)
    machine.hpcc("up", timeout=300)
    build = machine.spawn(["make", "-j4", "CC=hpcc gcc"], cwd=project)
    machine.wait_for("a compile", "gcc -c u2.c")
    before = set(containerd.leftovers())
    assert before
    for pid in machine.processes("hpcc.worker") if victim == "worker" else agents():
        os.kill(pid, signal.SIGKILL)
    said, _ = build.communicate(timeout=300)
    assert build.returncode == 0, said
    assert len(list(project.glob("*.o"))) == UNITS
    assert machine.count("miss.remote.executed") > 0
    # By the worker that lost it, or by the next one, which sweeps before it serves.
    wait_until(lambda: not before & set(containerd.leftovers()))


def test_doctor_says_what_containers_are(machine: Machine) -> None:
    checks = json.loads(machine.hpcc("doctor", "--json", check=False).stdout)
    (found,) = [c for c in checks if c["name"] == "containers"]
    assert found["state"] == "ok"
    assert "runc 1." in found["detail"]
    assert "this machine's kernel" in found["detail"]


def test_doctor_says_how_to_mend_them(machine: Machine, tmp_path: Path) -> None:
    settings = machine.directory / "config/hpcc.toml"
    settings.write_text(SETTINGS.format(tmp_path / "absent.sock"))
    checks = json.loads(machine.hpcc("doctor", "--json", check=False).stdout)
    (found,) = [c for c in checks if c["name"] == "containers"]
    assert found["state"] == "missing"
    assert "apt-get install containerd" in found["remedy"]
