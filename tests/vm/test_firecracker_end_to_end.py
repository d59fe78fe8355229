"""A C file compiled in a jailed microVM: by the runtime only, and through the whole stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.core import ExecLimits, ImageRef, Isolation
from hpcc.images.store import ImageStore
from hpcc.ports import GuestSpec, SystemClock
from hpcc.runtime.assets.assets import GuestAssets
from hpcc.runtime.firecracker.backend import FirecrackerConfig, FirecrackerRuntime
from hpcc.runtime.firecracker.tools import FirecrackerTools
from hpcc_testkit.farm.machine import Machine
from hpcc_testkit.guests.guest_contract import MemoryBlobs, request, run

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1200)]

ENV = (("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LC_ALL", "C"))
SOURCE = b'#include <stdio.h>\nint main(void) { return puts("from a microVM") < 0; }\n'
SETTINGS = """
[worker]
runtime = "firecracker"
guest_memory_mib = 640
max_guests = 1
vcpus = 1
boot_timeout_seconds = 300
[remote]
fallback = "never"
"""


def entries(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.exists() else []


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
def machine(tmp_path: Path, shared_cache: Path, firecracker_directory: Path) -> Iterator[Machine]:
    """Yield hpcc with Firecracker configured; stop it and check for leftovers at the end."""
    machine = Machine(tmp_path, shared_cache)
    machine.env["PATH"] = f"{firecracker_directory}:{machine.env['PATH']}"
    settings = machine.directory / "config/hpcc.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(SETTINGS)
    try:
        yield machine
    finally:
        machine.close()
    assert machine.leftovers() == []
    assert not list((machine.directory / "state").glob("**/guest-*"))
    cgroups = Path("/sys/fs/cgroup/hpcc")
    assert not cgroups.exists() or not [p for p in cgroups.iterdir() if p.is_dir()]


async def test_a_c_file_is_compiled_in_a_jailed_microvm(
    assets: GuestAssets,
    firecracker_tools: FirecrackerTools,
    guests_directory: Path,
    spec: GuestSpec,
    image: Path,
) -> None:
    config = FirecrackerConfig(tools=firecracker_tools, directory=guests_directory)
    wanted = GuestSpec(image=spec.image, image_path=image, memory_mib=640, boot_timeout_seconds=300)
    compile_ = request(
        "gcc", "-c", "-O1", "a.c", "-o", "a.o", inputs=[("a.c", SOURCE)], outputs=("a.o",), env=ENV,
        limits=ExecLimits(wall_seconds=300, memory_bytes=400 << 20),
    )  # fmt: skip
    looks = [
        request("cat", "/proc/net/dev", env=ENV),
        request("sh", "-c", "echo x > /usr/bin/x", env=ENV),
    ]
    async with FirecrackerRuntime(config, assets, SystemClock()).guest(wanted) as guest:
        done = await run(guest, compile_, MemoryBlobs(SOURCE))
        again = await run(guest, compile_, MemoryBlobs(SOURCE))
        network, written = [await run(guest, look) for look in looks]
    assert done.result.exit_code == 0, done.stderr
    assert done.outputs["a.o"].startswith(b"\x7fELF")
    assert done.outputs == again.outputs
    assert guest.identity.isolation is Isolation.FIRECRACKER_KVM
    names = [line.split(b":")[0].strip() for line in network.stdout.splitlines() if b":" in line]
    assert names == [b"lo"]
    assert written.result.exit_code != 0
    assert b"Read-only" in written.stderr or b"Permission denied" in written.stderr
    assert entries(guests_directory) == []


def test_a_build_with_firecracker_goes_through_the_whole_stack(
    machine: Machine, toolchain: str
) -> None:
    project = machine.root / "project"
    project.mkdir()
    (project / ".hpcc").touch()
    (project / "a.c").write_bytes(SOURCE)
    machine.hpcc("up", timeout=700)
    machine.run(["hpcc", "gcc", "-c", "a.c", "-o", "a.o"], cwd=project, timeout=300)
    assert (project / "a.o").read_bytes().startswith(b"\x7fELF")
    assert machine.count("miss.remote.executed") == 1
    exported = machine.hpcc("audit", "export", "--format", "jsonl", timeout=200).stdout
    (row,) = [r for r in map(json.loads, exported.splitlines()) if r["cache_status"] == "executed"]
    assert row["isolation"] == "firecracker/kvm"
    assert row["image_digest"] == toolchain.partition("@")[2]
    assert row["vmm_version"] == "firecracker 1.12.1"
    digests = [row[f"{name}_digest"] for name in ("kernel", "vmm", "jailer", "agent")]
    assert all(d.startswith("sha256:") for d in digests)
