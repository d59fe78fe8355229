"""A VM's life and death: nothing hangs, nothing is left, and the label is right."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.core import Isolation
from hpcc.ports import GuestBootError, GuestLostError, GuestSpec, SystemClock
from hpcc.runtime.assets.assets import GuestAssets
from hpcc.runtime.qemu.backend import QemuConfig, QemuRuntime
from hpcc.runtime.registry.pick import pick_runtime
from hpcc_testkit.guests.confinement import status_of, unconfined
from hpcc_testkit.guests.guest_contract import request, run
from hpcc_testkit.suite.pipes import gone

pytestmark = [pytest.mark.vm, pytest.mark.timeout(400)]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def entries(directory: Path) -> set[Path]:
    return set(directory.iterdir())


def read(path: str) -> str:
    return Path(path).read_text()


async def test_a_guest_leaves_no_process_and_no_file(
    runtime: QemuRuntime, spec: GuestSpec, guests_directory: Path
) -> None:
    before = entries(guests_directory)
    async with runtime.guest(spec) as guest:
        assert is_running(guest.vmm_pid)
        assert guest.identity.isolation is Isolation.QEMU_TCG
        assert guest.identity.kernel_digest.startswith("sha256:")
        assert len(entries(guests_directory) - before) == 1
    assert not is_running(guest.vmm_pid)
    assert guest.is_lost
    assert entries(guests_directory) == before


async def test_the_vmm_is_confined(
    runtime: QemuRuntime, assets: GuestAssets, spec: GuestSpec
) -> None:
    async with runtime.guest(spec) as guest:
        arguments = read(f"/proc/{guest.vmm_pid}/cmdline").split("\0")
        held = (assets.kernel, assets.initramfs, assets.agent_drive, spec.image_path)
        found = unconfined(guest.vmm_pid, may_hold=frozenset(p.name for p in held))
    assert runtime.why_no_jail == ""
    assert found == ""
    assert not any("netdev" in a or "virtio-net" in a for a in arguments)
    assert arguments[arguments.index("-nic") + 1] == "none"


# Takes a VMM's place: its namespaces, its root, its user. Everything is imported before.
TAKE_OVER = """
import encodings.idna, os, socket, sys
vmm, uid, worker, port, secret = int(sys.argv[1]), int(sys.argv[2]), *map(int, sys.argv[3:5]), sys.argv[5]
names = ("ipc", "uts", "net", "pid", "mnt", "user")
for fd in [os.open(f"/proc/{vmm}/ns/{name}", os.O_RDONLY) for name in names]:
    os.setns(fd)
if os.fork():
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
os.setgroups([]), os.setresgid(uid, uid, uid), os.setresuid(uid, uid, uid)

def attempt(name, attack):
    try:
        attack()
    except OSError:
        return
    print(name)

for path in (secret, "/etc/passwd", "/proc/1/environ", f"/proc/{worker}/status"):
    attempt(f"read {path}", lambda: open(path).read())
attempt("sees the worker", lambda: os.kill(worker, 0))
attempt("connected", lambda: socket.create_connection(("127.0.0.1", port), 2))
attempt("wrote", lambda: open("/written", "w"))
attempt("wrote to a library", lambda: open("/lib64/ld-linux-x86-64.so.2", "r+"))
attempt("reads its program", lambda: open("/usr/bin/qemu-system-x86_64", "rb"))
"""


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    path = tmp_path / "secret"
    path.write_text("for everybody on the host")
    return path


async def test_a_vmm_that_was_taken_over_sees_nothing_of_the_host(
    runtime: QemuRuntime, spec: GuestSpec, secret: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with runtime.guest(spec) as guest:
            uid = status_of(guest.vmm_pid)["Uid"].split()[0]
            words = (guest.vmm_pid, uid, os.getpid(), listener.getsockname()[1], secret)
            done = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-I", "-c", TAKE_OVER, *map(str, words)],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
    # The last attack shows that the program did take its place.
    assert (done.stdout, done.stderr) == ("reads its program\n", "")


async def test_a_killed_vm_is_noticed_at_once(runtime: QemuRuntime, spec: GuestSpec) -> None:
    async with runtime.guest(spec) as guest:
        # The compile would take 600 s.
        async with asyncio.timeout(90), asyncio.TaskGroup() as group:

            async def lost_in_mid_compile() -> None:
                with pytest.raises(GuestLostError):
                    await run(guest, request("/probe", "sleep", "600"))

            group.create_task(lost_in_mid_compile())
            await asyncio.sleep(0.5)
            os.kill(guest.vmm_pid, signal.SIGKILL)
            assert await guest.lost
        with pytest.raises(GuestLostError):
            await run(guest, request("/probe", "exit", "0"))


async def test_a_guest_that_never_boots_is_an_error_in_time(
    assets: GuestAssets, spec: GuestSpec, guests_directory: Path
) -> None:
    config = QemuConfig(
        accelerator="tcg", directory=guests_directory, extra_kernel_options="rdinit=/no-such-init"
    )
    before = entries(guests_directory)
    with pytest.raises(GuestBootError):
        async with (
            asyncio.timeout(100),
            QemuRuntime(config, assets, SystemClock()).guest(
                replace(spec, boot_timeout_seconds=15)
            ),
        ):
            pass
    assert entries(guests_directory) == before


async def test_a_guest_that_says_nothing_is_given_up_at_the_deadline(
    assets: GuestAssets, spec: GuestSpec, guests_directory: Path
) -> None:
    config = QemuConfig(accelerator="tcg", directory=guests_directory)
    with pytest.raises(GuestBootError, match="no answer"):
        async with (
            asyncio.timeout(100),
            QemuRuntime(config, assets, SystemClock()).guest(
                replace(spec, boot_timeout_seconds=0.5)
            ),
        ):
            pass


async def test_an_image_that_is_none_is_a_boot_error_with_the_guests_words(
    runtime: QemuRuntime, spec: GuestSpec, tmp_path: Path
) -> None:
    image = tmp_path / "zeros"
    image.write_bytes(bytes(1 << 20))
    with pytest.raises(GuestBootError, match="hpcc-init: mount /dev/vda"):
        async with runtime.guest(replace(spec, image_path=image)):
            pass


async def test_an_absent_image_is_a_boot_error(
    runtime: QemuRuntime, spec: GuestSpec, tmp_path: Path
) -> None:
    with pytest.raises(GuestBootError):
        async with runtime.guest(replace(spec, image_path=tmp_path / "absent")):
            pass


async def test_a_cancel_in_mid_boot_leaves_nothing(
    runtime: QemuRuntime, spec: GuestSpec, guests_directory: Path
) -> None:
    before = entries(guests_directory)

    async def boot() -> None:
        async with asyncio.timeout(1.0), runtime.guest(spec):
            pytest.fail("it booted too quickly for this test")

    with pytest.raises(TimeoutError):
        await boot()
    assert entries(guests_directory) == before


async def test_without_kvm_the_label_is_tcg(assets: GuestAssets, tmp_path: Path) -> None:
    runtime = await pick_runtime(assets, accelerator="tcg", state_dir=tmp_path, clock=SystemClock())
    assert runtime.isolation is Isolation.QEMU_TCG
    probe = await runtime.probe()
    assert probe.is_usable, probe


async def test_a_killed_worker_takes_its_vm_along(
    assets: GuestAssets, spec: GuestSpec, tmp_path: Path
) -> None:
    script = textwrap.dedent(
        f"""
        import asyncio
        from pathlib import Path
        from hpcc.core import ImageDigest
        from hpcc.ports import GuestSpec, SystemClock
        from hpcc.runtime.assets.assets import GuestAssets
        from hpcc.runtime.qemu.backend import QemuRuntime
        from hpcc.runtime.qemu.vm import QemuConfig
        assets = GuestAssets(
            kernel=Path({str(assets.kernel)!r}), kernel_digest="", initramfs=Path({str(assets.initramfs)!r}),
            initramfs_digest="", vmlinux=Path("unused"), vmlinux_digest="", vsock_initramfs=Path("unused"), agent_drive=Path({str(assets.agent_drive)!r}), agent_digest="",
            firmware={f"Path({str(assets.firmware)!r})" if assets.firmware else None},
        )
        spec = GuestSpec(image=ImageDigest({str(spec.image)!r}), image_path=Path({str(spec.image_path)!r}), memory_mib=384)
        async def main():
            config = QemuConfig(accelerator="tcg", directory=Path({str(tmp_path / "guests")!r}))
            async with QemuRuntime(config, assets, SystemClock()).guest(spec) as guest:
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
    worker.kill()
    await gone(worker)
    for _ in range(100):
        if not is_running(vmm_pid):
            break
        await asyncio.sleep(0.05)
    assert not is_running(vmm_pid)
    await pick_runtime(assets, accelerator="tcg", state_dir=tmp_path, clock=SystemClock())
    assert not entries(tmp_path / "guests")
