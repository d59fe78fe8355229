"""The choice of a runtime: KVM where a probe guest answered under it, else emulation."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from hpcc.core import InfrastructureError
from hpcc.ports import Clock
from hpcc.runtime._assets import GuestAssets
from hpcc.runtime._leftovers import sweep
from hpcc.runtime._qemu import PROGRAM, QemuConfig, QemuRuntime
from hpcc.runtime._qemu_argv import cpu_model
from hpcc.runtime._tools import key_of, run_tool

_KVM: Final = Path("/dev/kvm")
_RECORD: Final = "kvm-probe.json"
_MAX_REASON_CHARS: Final = 2000


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
) -> QemuRuntime:
    """Return the fastest runtime that really works here.

    KVM counts as working when a probe guest has booted under it to its agent's answer within 15 s,
    as the user who will run guests. A failure is remembered under `state_dir` until the machine
    reboots, or kernel, VMM or CPU change.

    Raises:
        InfrastructureError: there is no VMM at all.
    """
    if shutil.which(PROGRAM) is None:
        raise InfrastructureError(
            f"{PROGRAM} is not installed: apt-get install qemu-system-x86", reason="no-runtime"
        )
    guests = state_dir / "guests"
    await asyncio.to_thread(sweep, guests)
    emulated = QemuRuntime(QemuConfig(accelerator="tcg", directory=guests), assets, clock)
    if accelerator == "tcg" or (await kvm_state(state_dir)).reason:
        return emulated
    runtime = QemuRuntime(QemuConfig(accelerator="kvm", directory=guests), assets, clock)
    probe = await runtime.probe()
    if probe.is_usable:
        return runtime
    reason = " ".join([probe.summary, *probe.details])[:_MAX_REASON_CHARS]
    await asyncio.to_thread(_remember, state_dir, await _machine_key(), reason)
    return emulated


async def kvm_state(state_dir: Path) -> KvmState:
    """Say what speaks against KVM: no device, or a probe that failed since the last boot."""
    if not await asyncio.to_thread(_KVM.exists):
        return KvmState("/dev/kvm does not exist: no hardware virtualisation here")
    key = await _machine_key()
    reason = await asyncio.to_thread(_recall, state_dir, key)
    return KvmState(reason, was_probed=bool(reason))


async def _machine_key() -> str:
    """Name what a failed probe holds for: kernel, VMM, CPU, this boot, this user."""
    version = await run_tool(PROGRAM, "--version")
    boot_id, cpuinfo = await asyncio.to_thread(
        lambda: (
            Path("/proc/sys/kernel/random/boot_id").read_text(),
            Path("/proc/cpuinfo").read_text(),
        )
    )
    return key_of([platform.release(), version, cpu_model(cpuinfo), boot_id, str(os.geteuid())])


def _recall(state_dir: Path, key: str) -> str:
    try:
        record = json.loads((state_dir / _RECORD).read_text())
        return str(record["reason"]) if record["key"] == key else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _remember(state_dir: Path, key: str, reason: str) -> None:
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = state_dir / f".{_RECORD}.{os.getpid()}"
    temporary.write_text(json.dumps({"key": key, "reason": reason}))
    temporary.rename(state_dir / _RECORD)
