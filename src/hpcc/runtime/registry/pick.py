"""The choice of a runtime: one under KVM where a probe guest answered, else emulation."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from hpcc.core import CallerError, InfrastructureError
from hpcc.files.whole import Sync, write_whole
from hpcc.ports import Clock, Probe
from hpcc.runtime.assets.assets import GuestAssets
from hpcc.runtime.firecracker.backend import FirecrackerConfig, FirecrackerRuntime
from hpcc.runtime.firecracker.tools import FirecrackerTools, check_machine, find_firecracker
from hpcc.runtime.host.leftovers import sweep
from hpcc.runtime.host.tools import key_of, run_tool
from hpcc.runtime.qemu.argv import cpu_model
from hpcc.runtime.qemu.backend import PROGRAM, QemuConfig, QemuRuntime
from hpcc.runtime.runc.backend import RuncRuntime
from hpcc.runtime.runc.tools import DEFAULT_SOCKET, RuncConfig
from hpcc.runtime.vm.warm import WarmStart

_KVM: Final = Path("/dev/kvm")
_RECORD: Final = "kvm-probe.json"
_FIRECRACKER_RECORD: Final = "firecracker-probe.json"
# Where there is nothing to fall back to, a slow machine (nested virtualisation) is waited for.
_PATIENT_PROBE_SECONDS: Final = 90.0
_MAX_REASON_CHARS: Final = 2000
Backend = Literal["auto", "qemu", "firecracker", "process", "hyperv"]
SomeRuntime = QemuRuntime | FirecrackerRuntime | RuncRuntime


@dataclass(frozen=True, slots=True)
class KvmState:
    """What is known of KVM without booting; `reason` is "" when nothing speaks against it."""

    reason: str
    was_probed: bool = False


async def pick_runtime(
    assets: GuestAssets,
    *,
    accelerator: Literal["auto", "tcg"],
    state_dir: Path,
    clock: Clock,
    backend: Backend = "auto",
    containerd: Path = DEFAULT_SOCKET,
    warm: WarmStart | None = None,
) -> SomeRuntime:
    """Return the best runtime that really works here, or the one that was asked for.

    KVM counts as working when a probe guest has booted under it to its agent's answer within 15 s,
    as the user who will run guests. A failure is remembered under `state_dir` until the machine
    reboots, or kernel, VMM or CPU change. `backend="firecracker"` is never replaced by another.
    Containers, which share the host's kernel, are used only where `backend="process"` says so.
    With `warm`, guests are restored from snapshots.

    Raises:
        InfrastructureError: there is no VMM at all, or what was asked for does not work.
        CallerError: Firecracker without KVM was asked for, or Hyper-V, which Linux has not.
    """
    guests = state_dir / "guests"
    await asyncio.to_thread(sweep, guests)
    if backend == "firecracker":
        if accelerator == "tcg":
            raise CallerError('runtime = "firecracker" needs KVM; accelerator = "tcg" excludes it')
        return await _firecracker(assets, guests, clock, warm)
    if backend == "hyperv":
        raise CallerError(
            'runtime = "hyperv" is for Windows Server; on Linux, "auto" takes the best there is'
        )
    if backend == "process":
        return await _containers(RuncConfig(directory=guests, socket=containerd), assets, clock)
    if backend == "auto" and accelerator == "auto":
        found = await _firecracker_or_none(assets, state_dir, clock, warm)
        if found is not None:
            return found
    return await _qemu(assets, state_dir, clock, accelerator, warm)


async def _firecracker(
    assets: GuestAssets, guests: Path, clock: Clock, warm: WarmStart | None
) -> FirecrackerRuntime:
    tools = await find_firecracker()
    await asyncio.to_thread(check_machine, guests)
    config = FirecrackerConfig(tools=tools, directory=guests, probe_seconds=_PATIENT_PROBE_SECONDS)
    runtime = FirecrackerRuntime(config, assets, clock, warm)
    probe = await runtime.probe()
    if not probe.is_usable:
        text = "\n".join([f"Firecracker does not work here: {probe.summary}", *probe.details])
        raise InfrastructureError(text, reason="no-runtime")
    return runtime


async def _containers(config: RuncConfig, assets: GuestAssets, clock: Clock) -> RuncRuntime:
    runtime = RuncRuntime(config, assets, clock)
    # First: it says what is missing, where the sweep could only say that nobody answered.
    probe = await runtime.probe()
    if not probe.is_usable:
        lines = [f"containers do not work here: {probe.summary}", *probe.details, probe.remedy]
        raise InfrastructureError("\n".join(filter(None, lines)), reason="no-runtime")
    await runtime.sweep()
    return runtime


async def _firecracker_or_none(
    assets: GuestAssets, state_dir: Path, clock: Clock, warm: WarmStart | None
) -> FirecrackerRuntime | None:
    guests = state_dir / "guests"
    try:
        tools = await find_firecracker()
        await asyncio.to_thread(check_machine, guests)
    except InfrastructureError:
        return None
    key = await _firecracker_key(tools)
    if await asyncio.to_thread(_recall, state_dir / _FIRECRACKER_RECORD, key):
        return None
    config = FirecrackerConfig(tools=tools, directory=guests)
    runtime = FirecrackerRuntime(config, assets, clock, warm)
    probe = await runtime.probe()
    if probe.is_usable:
        return runtime
    await asyncio.to_thread(_remember, state_dir / _FIRECRACKER_RECORD, key, _reason(probe))
    return None


async def _qemu(
    assets: GuestAssets,
    state_dir: Path,
    clock: Clock,
    accelerator: Literal["auto", "tcg"],
    warm: WarmStart | None,
) -> QemuRuntime:
    if shutil.which(PROGRAM) is None:
        raise InfrastructureError(
            f"{PROGRAM} is not installed: apt-get install qemu-system-x86", reason="no-runtime"
        )
    guests = state_dir / "guests"
    emulated = QemuRuntime(QemuConfig(accelerator="tcg", directory=guests), assets, clock, warm)
    if accelerator == "tcg" or (await kvm_state(state_dir)).reason:
        return emulated
    runtime = QemuRuntime(QemuConfig(accelerator="kvm", directory=guests), assets, clock, warm)
    probe = await runtime.probe()
    if probe.is_usable:
        return runtime
    key = await _qemu_key()
    await asyncio.to_thread(_remember, state_dir / _RECORD, key, _reason(probe))
    return emulated


async def kvm_state(state_dir: Path) -> KvmState:
    """Say what speaks against KVM: no device, or a probe that failed since the last boot."""
    if not await asyncio.to_thread(_KVM.exists):
        return KvmState("/dev/kvm does not exist: no hardware virtualisation here")
    reason = await asyncio.to_thread(_recall, state_dir / _RECORD, await _qemu_key())
    return KvmState(reason, was_probed=bool(reason))


@dataclass(frozen=True, slots=True)
class FirecrackerState:
    """What is known of Firecracker without booting; `reason` as in `KvmState`."""

    reason: str
    tools: FirecrackerTools | None = None
    was_probed: bool = False


async def firecracker_state(state_dir: Path) -> FirecrackerState:
    """Say what speaks against Firecracker: programs, KVM, rights, or a probe that failed."""
    tools = None
    try:
        tools = await find_firecracker()
        await asyncio.to_thread(check_machine, state_dir / "guests")
    except InfrastructureError as error:
        return FirecrackerState(str(error), tools)
    key = await _firecracker_key(tools)
    reason = await asyncio.to_thread(_recall, state_dir / _FIRECRACKER_RECORD, key)
    return FirecrackerState(reason, tools, was_probed=bool(reason))


def _reason(probe: Probe) -> str:
    return " ".join([probe.summary, *probe.details])[:_MAX_REASON_CHARS]


async def _qemu_key() -> str:
    return await _machine_key(await run_tool(PROGRAM, "--version"))


async def _firecracker_key(tools: FirecrackerTools) -> str:
    return await _machine_key(tools.firecracker_digest + tools.jailer_digest)


async def _machine_key(version: str) -> str:
    """Name what a failed probe holds for: kernel, VMM, CPU, this boot, this user."""
    boot_id, cpuinfo = await asyncio.to_thread(
        lambda: (
            Path("/proc/sys/kernel/random/boot_id").read_text(),
            Path("/proc/cpuinfo").read_text(),
        )
    )
    return key_of([platform.release(), version, cpu_model(cpuinfo), boot_id, str(os.geteuid())])


def _recall(path: Path, key: str) -> str:
    try:
        record = json.loads(path.read_text())
        return str(record["reason"]) if record["key"] == key else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _remember(path: Path, key: str, reason: str) -> None:
    data = json.dumps({"key": key, "reason": reason}).encode()
    write_whole(path, data, sync=Sync.NONE, mode=0o666, makes_parent=True)
