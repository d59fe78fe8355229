"""A container's life and death: nothing hangs, nothing is left, and the label is right."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from hpcc.core import InfrastructureError, Isolation
from hpcc.ports import GuestBootError, GuestLostError, GuestSpec, SystemClock
from hpcc.runtime.assets.assets import GuestAssets
from hpcc.runtime.registry.pick import pick_runtime
from hpcc.runtime.runc.backend import RuncRuntime
from hpcc.runtime.runc.spec import FIRST_UID
from hpcc.runtime.runc.tools import RuncConfig
from hpcc.runtime.vm.vm import VmGuest
from hpcc_testkit.guests.containerd_daemon import ContainerdDaemon, containerd_daemon
from hpcc_testkit.guests.guest_contract import request, run
from hpcc_testkit.suite.pipes import gone

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]
CAP_SYS_ADMIN = 21
ENDED_SECONDS = 10.0
LIMITS = {
    "memory.max", "memory.swap.max", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes",
    "pids.max", "cpu.max",
}  # fmt: skip


@pytest.fixture
def config(containerd: ContainerdDaemon, guests_directory: Path) -> RuncConfig:
    return RuncConfig(directory=guests_directory, socket=containerd.socket)


@pytest.fixture
def containers(config: RuncConfig, assets: GuestAssets) -> RuncRuntime:
    return RuncRuntime(config, assets, SystemClock())


@pytest_asyncio.fixture
async def guest(containers: RuncRuntime, spec: GuestSpec) -> AsyncIterator[VmGuest]:
    async with containers.guest(spec) as started:
        yield started


def entries(directory: Path) -> set[Path]:
    return set(directory.iterdir()) if directory.exists() else set()


def groups_of(guest_id: str) -> list[Path]:
    """Return every cgroup of that name, in any hierarchy."""
    places = [
        m.split(" ")[1] for m in Path("/proc/mounts").read_text().splitlines() if " cgroup" in m
    ]
    return [p for place in places if (p := Path(place, "hpcc", guest_id)).exists()]


def processes_under(pid: int) -> list[int]:
    """Return the processes of the pid namespace whose first process is `pid`."""
    namespace = Path(f"/proc/{pid}/ns/pid").readlink()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "ns/pid").readlink() == namespace:
                    found.append(int(entry.name))
            except OSError:
                continue
    return sorted(found)


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def namespaces_of(pid: int) -> set[Path]:
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    return {Path(f"/proc/{pid}/ns/{kind}").readlink() for kind in kinds}


def mounts_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/mountinfo").read_text().splitlines()


def first_id_of(pid: int) -> str:
    return Path(f"/proc/{pid}/uid_map").read_text().split()[1]


def owner_uid(path: Path) -> int:
    return path.stat().st_uid


def names_in_links(guests: Path) -> list[Path]:
    return [p for d in guests.glob("guest-*/link") for p in d.iterdir()]


def is_running(pid: int) -> bool:
    try:
        return not status_of(pid)["State"].startswith(("Z", "X"))
    except (FileNotFoundError, ProcessLookupError):
        return False


async def wait_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + ENDED_SECONDS
    while any(is_running(p) for p in pids):
        assert time.monotonic() < deadline, pids
        await asyncio.sleep(0.02)


async def test_a_guest_leaves_nothing(
    containers: RuncRuntime,
    containerd: ContainerdDaemon,
    spec: GuestSpec,
    guests_directory: Path,
) -> None:
    before = entries(guests_directory)
    async with containers.guest(spec) as guest:
        pids = processes_under(guest.vmm_pid)
        assert len(pids) == 2
        assert groups_of(guest.identity.guest_id)
        assert containerd.leftovers()
        await run(guest, request("/probe", "exit", "0"))
    assert guest.is_lost
    assert not any(is_running(p) for p in pids)
    assert containerd.leftovers() == []
    assert groups_of(guest.identity.guest_id) == []
    assert entries(guests_directory) == before


async def test_the_label_and_the_identity_say_what_ran(guest: VmGuest) -> None:
    identity = guest.identity
    assert identity.isolation is Isolation.PROCESS_RUNC
    assert identity.isolation.value == "process/runc"
    assert identity.kernel_digest == ""
    assert identity.vmm_version.startswith("runc 1.")
    assert ", containerd 1." in identity.vmm_version
    for digest in (identity.vmm_digest, identity.jailer_digest, identity.agent_digest):
        assert digest.startswith("sha256:")


async def test_the_agent_is_confined(guest: VmGuest) -> None:
    hold, agent = processes_under(guest.vmm_pid)
    for pid in (hold, agent):
        status = status_of(pid)
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        # Root in a separate user namespace, and an unprivileged uid outside.
        assert all(int(uid) >= FIRST_UID for uid in status["Uid"].split())
    assert int(status_of(hold)["CapEff"], 16) == int(status_of(hold)["CapBnd"], 16) == 0
    assert int(status_of(agent)["CapBnd"], 16) & 1 << CAP_SYS_ADMIN
    assert not namespaces_of(os.getpid()) & namespaces_of(agent)


async def test_nothing_of_the_host_can_be_written_from_inside(guest: VmGuest) -> None:
    """Every mount of the container is its own tmpfs, the kernel's, or read-only."""
    mounts = mounts_of(guest.vmm_pid)
    for line in mounts:
        options, _, rest = line.partition(" - ")
        place, flags = options.split(" ")[4:6]
        kind = rest.split(" ")[0]
        is_device = place.startswith(("/dev/", "/proc/")) and kind == "devtmpfs"
        own = kind in {"tmpfs", "proc", "cgroup", "cgroup2", "mqueue"}
        if not is_device and (not own or place.startswith("/run/link")):
            assert "ro" in flags.split(","), line
    link = next(m.split(" ")[3] for m in mounts if m.split(" ")[4] == "/run/link")
    assert link.endswith("/link")


async def test_a_containers_limits_are_not_its_own_to_raise(guest: VmGuest) -> None:
    """The container may create subgroups but does not own the files with its limits."""
    groups = [g for g in groups_of(guest.identity.guest_id) if owner_uid(g)]
    assert groups
    limits = [p for g in groups for p in g.iterdir() if p.name in LIMITS]
    assert {p.name for p in limits} >= {"pids.max"}
    assert [p for p in limits if owner_uid(p)] == []
    assert all(owner_uid(g / "cgroup.procs") >= FIRST_UID for g in groups)


async def test_no_name_of_the_link_stays(guest: VmGuest, guests_directory: Path) -> None:
    """After the handshake no other process can connect to the address where the agent connected."""
    assert not guest.is_lost
    assert names_in_links(guests_directory) == []


@pytest.mark.parametrize("victim", ["hold", "agent"])
async def test_a_killed_guest_is_noticed_at_once(
    containers: RuncRuntime, containerd: ContainerdDaemon, spec: GuestSpec, victim: str
) -> None:
    async with containers.guest(spec) as guest:
        pids = processes_under(guest.vmm_pid)
        async with asyncio.timeout(ENDED_SECONDS), asyncio.TaskGroup() as group:

            async def lost_in_mid_compile() -> None:
                with pytest.raises(GuestLostError):
                    await run(guest, request("/probe", "sleep", "600"))

            group.create_task(lost_in_mid_compile())
            await asyncio.sleep(0.5)
            os.kill(pids[victim == "agent"], signal.SIGKILL)
            assert await guest.lost
        await wait_gone(pids)
        with pytest.raises(GuestLostError):
            await run(guest, request("/probe", "exit", "0"))
    assert containerd.leftovers() == []


async def test_a_cancel_in_mid_start_leaves_nothing(
    containers: RuncRuntime,
    containerd: ContainerdDaemon,
    spec: GuestSpec,
    guests_directory: Path,
) -> None:
    before = entries(guests_directory)

    async def start(seconds: float) -> None:
        async with asyncio.timeout(seconds), containers.guest(spec):
            await asyncio.sleep(600)

    for seconds in (0.005, 0.02, 0.05, 0.1, 0.2, 0.4):
        with pytest.raises(TimeoutError):
            await start(seconds)
    assert containerd.leftovers() == []
    assert entries(guests_directory) == before


def loops_of(directory: Path) -> list[str]:
    """Return the loop devices whose file is below `directory`."""
    files = [p.read_text().strip() for p in Path("/sys/block").glob("loop*/loop/backing_file")]
    return [f for f in files if f.startswith(str(directory))]


async def test_loop_devices_do_where_the_kernel_mounts_no_files(
    config: RuncConfig, assets: GuestAssets, spec: GuestSpec
) -> None:
    by_loop = replace(config, by_loop=True)
    async with RuncRuntime(by_loop, assets, SystemClock()).guest(spec) as guest:
        assert len(loops_of(spec.image_path.parent)) == 1
        assert (await run(guest, request("/probe", "exit", "5"))).result.exit_code == 5
    assert loops_of(spec.image_path.parent) == []


async def test_an_image_that_is_none_is_a_boot_error(
    containers: RuncRuntime, containerd: ContainerdDaemon, spec: GuestSpec, tmp_path: Path
) -> None:
    zeros = tmp_path / "zeros"
    zeros.write_bytes(bytes(1 << 20))
    damaged = tmp_path / "damaged"
    damaged.write_bytes(bytes(1024) + bytes.fromhex("e2e1f5e0") + bytes(1 << 20))
    for image in (zeros, damaged, tmp_path / "absent"):
        with pytest.raises(GuestBootError):
            async with containers.guest(replace(spec, image_path=image)):
                pass
    assert containerd.leftovers() == []


async def test_a_guest_that_says_nothing_is_given_up_at_the_deadline(
    containers: RuncRuntime, containerd: ContainerdDaemon, spec: GuestSpec
) -> None:
    with pytest.raises(GuestBootError, match="no answer"):
        async with containers.guest(replace(spec, boot_timeout_seconds=0.05)):
            pass
    assert containerd.leftovers() == []


async def test_guests_outlive_a_containerd_that_is_started_anew(
    assets: GuestAssets, spec: GuestSpec, tmp_path: Path
) -> None:
    with containerd_daemon() as daemon:
        config = RuncConfig(directory=tmp_path / "guests", socket=daemon.socket)
        async with RuncRuntime(config, assets, SystemClock()).guest(spec) as guest:
            daemon.kill()
            assert (await run(guest, request("/probe", "exit", "3"))).result.exit_code == 3
            daemon.start()
            assert (await run(guest, request("/probe", "exit", "4"))).result.exit_code == 4
        assert daemon.leftovers() == []


WORKER = """
import asyncio, json, sys
from pathlib import Path
from hpcc.core import ImageDigest
from hpcc.ports import GuestSpec, SystemClock
from hpcc.runtime.assets.assets import GuestAssets
from hpcc.runtime.runc.backend import RuncRuntime
from hpcc.runtime.runc.tools import RuncConfig
drive, image, guests, socket = sys.argv[1:]
assets = GuestAssets(
    kernel=Path("unused"), kernel_digest="", initramfs=Path("unused"), initramfs_digest="",
    vmlinux=Path("unused"), vmlinux_digest="", vsock_initramfs=Path("unused"),
    agent_drive=Path(drive), agent_digest="", firmware=None,
)
spec = GuestSpec(image=ImageDigest("sha256:" + "0" * 64), image_path=Path(image), memory_mib=384)
async def main():
    config = RuncConfig(directory=Path(guests), socket=Path(socket))
    async with RuncRuntime(config, assets, SystemClock()).guest(spec) as guest:
        print(json.dumps([guest.vmm_pid, guest.identity.guest_id]), flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_what_a_killed_worker_left_ends_and_is_swept(
    assets: GuestAssets, spec: GuestSpec, tmp_path: Path
) -> None:
    with containerd_daemon() as daemon:
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-c", textwrap.dedent(WORKER), str(assets.agent_drive),
            str(spec.image_path), str(tmp_path / "guests"), str(daemon.socket),
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert worker.stdout is not None
        pid, guest_id = json.loads(await worker.stdout.readline())
        pids = processes_under(pid)
        worker.kill()
        await gone(worker)
        await wait_gone(pids)  # by themselves: the agent's session is over
        assert daemon.leftovers()
        runtime = await pick_runtime(
            assets, accelerator="auto", state_dir=tmp_path, clock=SystemClock(),
            backend="process", containerd=daemon.socket,
        )  # fmt: skip
        assert runtime.isolation is Isolation.PROCESS_RUNC
        assert daemon.leftovers() == []
    assert groups_of(guest_id) == []
    assert not entries(tmp_path / "guests")


async def test_workers_of_one_machine_give_their_guests_different_ids(
    assets: GuestAssets, spec: GuestSpec, tmp_path: Path
) -> None:
    from_one_number = WORKER.replace(
        "asyncio.run(",
        "from hpcc.runtime.runc import backend\nbackend._RANGE_NUMBERS._next = 7\nasyncio.run(",
    )
    firsts, workers = set[str](), list[asyncio.subprocess.Process]()
    with containerd_daemon() as daemon:
        try:
            for number in range(2):
                worker = await asyncio.create_subprocess_exec(
                    sys.executable, "-c", from_one_number, str(assets.agent_drive),
                    str(spec.image_path), str(tmp_path / f"guests{number}"), str(daemon.socket),
                    stdout=subprocess.PIPE,
                )  # fmt: skip
                workers.append(worker)
                assert worker.stdout is not None
                pid, _ = json.loads(await worker.stdout.readline())
                firsts.add(first_id_of(pid))
        finally:
            for worker in workers:
                worker.kill()
                await gone(worker)
        config = RuncConfig(directory=tmp_path / "swept", socket=daemon.socket)
        await RuncRuntime(config, assets, SystemClock()).sweep()
    assert len(firsts) == 2


async def test_a_sweep_spares_what_has_an_owner(
    containers: RuncRuntime, guest: VmGuest, containerd: ContainerdDaemon
) -> None:
    before = containerd.leftovers()
    assert await containers.sweep() == 0
    assert containerd.leftovers() == before
    assert (await run(guest, request("/probe", "exit", "6"))).result.exit_code == 6


async def test_a_probe_says_what_answered(containers: RuncRuntime) -> None:
    probe = await containers.probe()
    assert probe.is_usable, probe
    assert "process/runc" in probe.summary
    assert any("host's own kernel" in d for d in probe.details)


async def test_a_probe_without_containerd_says_how_to_mend_it(
    config: RuncConfig, assets: GuestAssets, tmp_path: Path
) -> None:
    absent = replace(config, socket=tmp_path / "absent.sock")
    probe = await RuncRuntime(absent, assets, SystemClock()).probe()
    assert not probe.is_usable
    assert "containerd does not listen" in probe.summary
    assert "apt-get install containerd" in probe.remedy


async def test_a_probe_without_runc_says_how_to_mend_it(
    config: RuncConfig, assets: GuestAssets
) -> None:
    probe = await RuncRuntime(replace(config, runc="no-such-runc"), assets, SystemClock()).probe()
    assert not probe.is_usable
    assert "apt-get install runc" in probe.remedy


async def test_containers_are_never_picked_unasked(
    assets: GuestAssets, containerd: ContainerdDaemon, tmp_path: Path
) -> None:
    runtime = await pick_runtime(
        assets, accelerator="tcg", state_dir=tmp_path, clock=SystemClock(),
        containerd=containerd.socket,
    )  # fmt: skip
    assert runtime.isolation is Isolation.QEMU_TCG


async def test_containers_that_do_not_work_are_not_replaced(
    assets: GuestAssets, tmp_path: Path
) -> None:
    with pytest.raises(InfrastructureError, match="containerd does not listen"):
        await pick_runtime(
            assets, accelerator="auto", state_dir=tmp_path, clock=SystemClock(),
            backend="process", containerd=tmp_path / "absent.sock",
        )  # fmt: skip
