"""A microVM's life and death in its jail: nothing hangs, nothing is left, the label is right."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.core import CallerError, ImageDigest, Isolation
from hpcc.ports import GuestBootError, GuestLostError, GuestSpec, SystemClock
from hpcc.runtime.assets.assets import GuestAssets
from hpcc.runtime.firecracker.backend import FirecrackerConfig, FirecrackerRuntime
from hpcc.runtime.firecracker.tools import FirecrackerTools
from hpcc.runtime.registry.pick import pick_runtime
from hpcc_testkit.guests.confinement import status_of, unconfined
from hpcc_testkit.guests.guest_contract import request, run
from hpcc_testkit.suite.pipes import gone

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

CGROUPS = Path("/sys/fs/cgroup/hpcc")


def world() -> tuple[set[str], set[str], str]:
    """Return everything that a guest could leave: processes, cgroups, mounts."""
    processes = {
        (p / "comm").read_text().strip()
        for p in Path("/proc").iterdir()
        if p.name.isdigit() and (p / "cmdline").exists() and (p / "cmdline").read_bytes()
    }
    cgroups = {p.name for p in CGROUPS.iterdir() if p.is_dir()} if CGROUPS.exists() else set()
    return processes & {"firecracker", "jailer", "unshare"}, cgroups, mounts()


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def entries(directory: Path) -> set[Path]:
    return set(directory.iterdir()) if directory.exists() else set()


def exists(path: str) -> bool:
    return Path(path).exists()


def jail_files(guests: Path) -> dict[str, os.stat_result]:
    """Return the files that the only jail shares with the host."""
    (jail,) = guests.glob("guest-*/firecracker/*/root")
    return {n: (jail / n).stat() for n in ("image", "agent", "vmlinux", "initramfs")}


def read(path: str) -> str:
    return Path(path).read_text()


@pytest.fixture(scope="module")
def spec(scratch_image: Path) -> GuestSpec:
    """Return a small spec with long timeouts, because the emulated machine is slow."""
    return GuestSpec(
        image=ImageDigest("sha256:" + "0" * 64),
        image_path=scratch_image,
        memory_mib=192,
        boot_timeout_seconds=200,
    )


@pytest.fixture
def config(firecracker_tools: FirecrackerTools, guests_directory: Path) -> FirecrackerConfig:
    return FirecrackerConfig(tools=firecracker_tools, directory=guests_directory)


@pytest.fixture
def runtime(config: FirecrackerConfig, assets: GuestAssets) -> FirecrackerRuntime:
    return FirecrackerRuntime(config, assets, SystemClock())


@pytest.fixture(autouse=True)
def _nothing_is_left(guests_directory: Path) -> Iterator[None]:
    before = (world(), entries(guests_directory))
    yield
    assert (world(), entries(guests_directory)) == before


async def test_a_jailed_guest_is_confined_named_and_leaves_nothing(
    runtime: FirecrackerRuntime,
    spec: GuestSpec,
    guests_directory: Path,
    firecracker_tools: FirecrackerTools,
) -> None:
    async with runtime.guest(spec) as guest:
        pid, identity = guest.vmm_pid, guest.identity
        status = status_of(pid)
        devices = read(f"/proc/{pid}/net/dev").splitlines()[2:]
        root = os.readlink(f"/proc/{pid}/root")
        cgroup = read(f"/proc/{pid}/cgroup")
        descriptors = [os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")]
        links = jail_files(guests_directory)
        # Its jailer makes no user namespace.
        found = unconfined(pid, may_hold=frozenset(links), shares=frozenset({"user"}))
    assert found == ""
    assert identity.isolation is Isolation.FIRECRACKER_KVM
    assert (identity.vmm_version, identity.vmm_digest, identity.jailer_digest) == (
        "firecracker 1.12.1", firecracker_tools.firecracker_digest, firecracker_tools.jailer_digest,
    )  # fmt: skip
    assert identity.kernel_digest.startswith("sha256:")
    assert identity.agent_digest.startswith("sha256:")
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert set(status["Uid"].split()) == set(status["Gid"].split())
    assert int(status["Uid"].split()[0]) > 1_000_000_000
    assert status["Groups"] == ""
    assert len(status["NSpid"].split()) == 2
    assert [d.split(":")[0].strip() for d in devices] == ["lo"]
    assert not any("/dev/net" in d for d in descriptors)
    assert root == "/" or root.endswith("/root")
    assert f"/hpcc/{identity.guest_id}" in cgroup
    # Theirs to read: the files stay root's.
    assert {s.st_uid for s in links.values()} == {0}
    assert not any(s.st_mode & 0o022 for s in links.values())
    assert links["image"].st_nlink == 2  # not copied


async def test_a_killed_microvm_is_noticed_at_once(
    runtime: FirecrackerRuntime, spec: GuestSpec
) -> None:
    async with runtime.guest(spec) as guest:
        # The compile would take 600 s.
        async with asyncio.timeout(90), asyncio.TaskGroup() as group:

            async def lost_in_mid_compile() -> None:
                with pytest.raises(GuestLostError):
                    await run(guest, request("/probe", "sleep", "600"))

            group.create_task(lost_in_mid_compile())
            await asyncio.sleep(2)
            os.kill(guest.vmm_pid, signal.SIGKILL)
            assert await guest.lost
        with pytest.raises(GuestLostError):
            await run(guest, request("/probe", "exit", "0"))


async def test_a_cancel_in_mid_boot_leaves_no_jail(
    runtime: FirecrackerRuntime, spec: GuestSpec
) -> None:
    async def boot(seconds: float) -> None:
        async with asyncio.timeout(seconds), runtime.guest(spec):
            pytest.fail("it booted too quickly for this test")

    for seconds in (0.05, 0.3, 2.0):
        with pytest.raises(TimeoutError):
            await boot(seconds)


async def test_a_microvm_that_never_boots_is_an_error_with_the_vmms_words(
    config: FirecrackerConfig, assets: GuestAssets, spec: GuestSpec
) -> None:
    broken = replace(config, extra_kernel_options="rdinit=/no-such-init", has_console=True)
    with pytest.raises(GuestBootError, match="Unable to mount root fs"):
        async with FirecrackerRuntime(broken, assets, SystemClock()).guest(
            replace(spec, boot_timeout_seconds=90)
        ):
            pass


async def test_what_the_vmm_refuses_is_a_boot_error(
    runtime: FirecrackerRuntime, spec: GuestSpec
) -> None:
    with pytest.raises(GuestBootError, match=r"/machine-config: status 400"):
        async with runtime.guest(replace(spec, vcpus=99)):
            pass


async def test_an_absent_image_is_a_boot_error_without_a_jail(
    runtime: FirecrackerRuntime, spec: GuestSpec, tmp_path: Path
) -> None:
    with pytest.raises(GuestBootError):
        async with runtime.guest(replace(spec, image_path=tmp_path / "absent")):
            pass


async def test_a_killed_worker_takes_its_microvm_along(
    assets: GuestAssets,
    spec: GuestSpec,
    tmp_path: Path,
    firecracker_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = textwrap.dedent(
        f"""
        import asyncio
        from pathlib import Path
        from hpcc.core import ImageDigest
        from hpcc.ports import GuestSpec, SystemClock
        from hpcc.runtime.assets.assets import prepare_assets
        from hpcc.runtime.firecracker.backend import FirecrackerRuntime
        from hpcc.runtime.firecracker.tools import find_firecracker
        from hpcc.runtime.firecracker.vm import FirecrackerConfig
        spec = GuestSpec(image=ImageDigest({str(spec.image)!r}), image_path=Path({str(spec.image_path)!r}), memory_mib=256)
        async def main():
            assets = await prepare_assets(Path({str(assets.agent_drive.parent)!r}), lambda _: None)
            tools = await find_firecracker({str(firecracker_directory)!r})
            config = FirecrackerConfig(tools=tools, directory=Path({str(tmp_path / "guests")!r}))
            async with FirecrackerRuntime(config, assets, SystemClock()).guest(spec) as guest:
                print(guest.vmm_pid, flush=True)
                await asyncio.sleep(600)
        asyncio.run(main())
        """
    )
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=subprocess.PIPE
    )
    assert worker.stdout is not None
    vmm_pid = int(await worker.stdout.readline())
    assert world()[0] >= {"firecracker"}
    worker.kill()
    await gone(worker)
    for _ in range(200):
        if not exists(f"/proc/{vmm_pid}"):
            break
        await asyncio.sleep(0.05)
    assert not exists(f"/proc/{vmm_pid}")
    assert entries(tmp_path / "guests")
    # The next start sweeps the jail and the cgroup; what it picks does not matter here.
    monkeypatch.setenv("PATH", str(firecracker_directory), prepend=os.pathsep)
    with pytest.raises(CallerError):
        await pick_runtime(
            assets,
            accelerator="tcg",
            state_dir=tmp_path,
            clock=SystemClock(),
            backend="firecracker",
        )
    assert not entries(tmp_path / "guests")
