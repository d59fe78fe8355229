"""A C file compiled in a container through the whole stack, labelled so everywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.core import ImageRef, Isolation
from hpcc.images import ImageStore
from hpcc.ports import GuestSpec, SystemClock
from hpcc.runtime import GuestAssets, QemuConfig, QemuRuntime, RuncConfig, RuncRuntime
from hpcc.testing._containerd_daemon import ContainerdDaemon
from hpcc.testing._guest_contract import MemoryBlobs, request, run
from hpcc.testing._machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

ENV = (("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LC_ALL", "C"))
SOURCE = b'#include <stdio.h>\nint main(void) { return puts("from a container") < 0; }\n'
SETTINGS = """
[worker]
runtime = "process"
containerd = "{}"
max_guests = 1
[remote]
fallback = "never"
"""


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
    """hpcc that was told to use containers; down, and checked to have left nothing, at the end."""
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


async def test_the_object_is_the_one_that_a_vm_makes(
    assets: GuestAssets,
    containerd: ContainerdDaemon,
    guests_directory: Path,
    spec: GuestSpec,
    image: Path,
) -> None:
    """Same image, same command, and a guest of the other kind: the same bytes."""
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
    assert "this machine's own kernel" in told
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


def test_doctor_says_what_containers_are(machine: Machine) -> None:
    checks = json.loads(machine.hpcc("doctor", "--json", check=False).stdout)
    (found,) = [c for c in checks if c["name"] == "containers"]
    assert found["state"] == "ok"
    assert "runc 1." in found["detail"]
    assert "this machine's own kernel" in found["detail"]


def test_doctor_says_how_to_mend_them(machine: Machine, tmp_path: Path) -> None:
    settings = machine.directory / "config/hpcc.toml"
    settings.write_text(SETTINGS.format(tmp_path / "absent.sock"))
    checks = json.loads(machine.hpcc("doctor", "--json", check=False).stdout)
    (found,) = [c for c in checks if c["name"] == "containers"]
    assert found["state"] == "missing"
    assert "apt-get install containerd" in found["remedy"]
