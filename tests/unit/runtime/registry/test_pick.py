"""KVM is used only if a probe guest answered. A failure is remembered, and nothing hangs."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.core import InfrastructureError, Isolation
from hpcc.ports import SystemClock
from hpcc.runtime.assets.assets import GuestAssets, probe_spec
from hpcc.runtime.firecracker.backend import FirecrackerConfig, FirecrackerRuntime
from hpcc.runtime.firecracker.tools import FirecrackerTools
from hpcc.runtime.host.users import VMM_NUMBERS, VmmUser
from hpcc.runtime.qemu import backend as qemu
from hpcc.runtime.qemu import opening
from hpcc.runtime.qemu import vm as qemu_vm
from hpcc.runtime.qemu.opening import kvm_state
from hpcc.runtime.registry.pick import pick_runtime
from hpcc.runtime.vm import vm

# What QEMU does on hosts whose /dev/kvm opens and then does not work.
ABORTS = 'echo "failed to set MSR 0x10a" >&2; kill -ABRT $$'
HANGS = "exec sleep 600"


@pytest.fixture
def assets(tmp_path: Path) -> GuestAssets:
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    digest = "sha256:" + "0" * 64
    return GuestAssets(
        kernel=empty, kernel_digest=digest, initramfs=empty, initramfs_digest=digest,
        vmlinux=empty, vmlinux_digest=digest, vsock_initramfs=empty, agent_drive=empty, agent_digest=digest, firmware=None,
    )  # fmt: skip


@pytest.fixture
def starts(tmp_path: Path) -> Path:
    return tmp_path / "starts"


def fake_vmm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, starts: Path, body: str) -> None:
    directory = tmp_path / "bin"
    directory.mkdir()
    script = directory / "qemu-system-x86_64"
    script.write_text(
        f'#!/bin/sh\nif [ "$1" = --version ]; then echo fake 1; exit; fi\nmktemp -p {starts} > /dev/null\n{body}\n'
    )
    for path in (tmp_path, directory):
        path.chmod(0o755)
    script.chmod(0o755)
    starts.mkdir()  # one empty file for each start: the VMM may not write a byte to a file
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    monkeypatch.setattr(opening, "_KVM", directory)  # something that exists


def entries(directory: Path) -> list[Path]:
    return list(directory.iterdir())


async def pick_auto(assets: GuestAssets, state: Path) -> Isolation:
    runtime = await pick_runtime(assets, accelerator="auto", state_dir=state, clock=SystemClock())
    return runtime.isolation


async def test_a_vmm_that_aborts_under_kvm_is_tried_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, starts: Path, assets: GuestAssets
) -> None:
    monkeypatch.setattr(qemu_vm, "vmm_user", lambda _: VmmUser(None, ()))
    fake_vmm(monkeypatch, tmp_path, starts, ABORTS)
    state = tmp_path / "state"
    assert await pick_auto(assets, state) is Isolation.QEMU_TCG
    assert await pick_auto(assets, state) is Isolation.QEMU_TCG
    assert len(entries(starts)) == 1
    known = await kvm_state(state)
    assert "MSR" in known.reason
    assert known.was_probed
    assert entries(state / "guests") == []


async def test_a_vmm_that_hangs_under_kvm_is_ended_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, starts: Path, assets: GuestAssets
) -> None:
    monkeypatch.setattr(qemu_vm, "vmm_user", lambda _: VmmUser(None, ()))
    spec = qemu._probe_spec(assets, "kvm")
    assert spec.boot_timeout_seconds == 15.0
    monkeypatch.setattr(qemu, "_probe_spec", lambda *_: replace(spec, boot_timeout_seconds=1.0))
    fake_vmm(monkeypatch, tmp_path, starts, HANGS)
    async with asyncio.timeout(60):  # the VMM itself would take 600 s
        assert await pick_auto(assets, tmp_path / "state") is Isolation.QEMU_TCG
    assert "no answer" in (await kvm_state(tmp_path / "state")).reason


async def test_what_was_remembered_of_another_machine_or_boot_does_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, starts: Path
) -> None:
    fake_vmm(monkeypatch, tmp_path, starts, ABORTS)
    for content in (json.dumps({"key": "other", "reason": "broken"}), "{", "[]", "null"):
        (tmp_path / "kvm-probe.json").write_text(content)
        assert (await kvm_state(tmp_path)).reason == ""


async def test_tcg_that_was_asked_for_probes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, starts: Path, assets: GuestAssets
) -> None:
    fake_vmm(monkeypatch, tmp_path, starts, ABORTS)
    runtime = await pick_runtime(assets, accelerator="tcg", state_dir=tmp_path, clock=SystemClock())
    assert runtime.isolation is Isolation.QEMU_TCG
    assert entries(starts) == []


async def test_without_a_vmm_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, assets: GuestAssets
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InfrastructureError, match="apt-get install qemu-system-x86"):
        await pick_runtime(assets, accelerator="auto", state_dir=tmp_path, clock=SystemClock())


@pytest.mark.parametrize("slow", ["directory", "process"])
async def test_a_cancel_at_any_step_of_a_start_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, starts: Path, assets: GuestAssets, slow: str
) -> None:
    monkeypatch.setattr(qemu_vm, "vmm_user", lambda _: VmmUser(None, ()))
    fake_vmm(monkeypatch, tmp_path, starts, HANGS)
    make, spawn = vm.new_directory, asyncio.create_subprocess_exec
    numbers = set(VMM_NUMBERS._taken)
    pids: list[int] = []

    def make_slowly(parent: Path) -> Path:
        time.sleep(0.3)
        return make(parent)

    async def spawn_slowly(*argv: str, **options: object) -> asyncio.subprocess.Process:
        process = await spawn(*argv, **options)  # type: ignore[arg-type]  # mixed options
        pids.append(process.pid)
        await asyncio.sleep(0.3)
        return process

    if slow == "directory":
        monkeypatch.setattr(vm, "new_directory", make_slowly)
    else:
        monkeypatch.setattr(asyncio, "create_subprocess_exec", spawn_slowly)
    config = qemu.QemuConfig(accelerator="tcg", directory=tmp_path / "guests")
    runtime = qemu.QemuRuntime(config, assets, SystemClock())
    runtime.why_no_jail = "the VMM is a script here"
    spec = probe_spec(assets, 60.0)

    async def boot() -> None:
        async with asyncio.timeout(0.2), runtime.guest(spec):
            pytest.fail("a VMM that hangs gave a guest")

    with pytest.raises(TimeoutError):
        await boot()
    assert entries(tmp_path / "guests") == []
    assert not [p for p in pids if (Path("/proc") / str(p)).exists()]
    assert numbers == VMM_NUMBERS._taken


def test_guests_of_another_command_line_have_snapshots_of_their_own(
    assets: GuestAssets, tmp_path: Path
) -> None:
    qemu_config = qemu.QemuConfig(accelerator="tcg", directory=tmp_path)
    tools = FirecrackerTools(
        firecracker=Path("f"), jailer=Path("j"), version="1.12.1",
        firecracker_digest="sha256:f", jailer_digest="sha256:j",
    )  # fmt: skip
    firecracker_config = FirecrackerConfig(tools=tools, directory=tmp_path)
    spec = probe_spec(assets, 60.0)
    for runtime in (
        qemu.QemuRuntime(qemu_config, assets, SystemClock()),
        FirecrackerRuntime(firecracker_config, assets, SystemClock()),
    ):
        on, off = (replace(spec, has_mitigations=has) for has in (True, False))
        assert runtime.key(on) == runtime.key(replace(on))
        assert runtime.key(on) != runtime.key(off)
