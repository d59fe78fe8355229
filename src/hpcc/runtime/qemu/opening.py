"""Opens the QEMU backend: under KVM if a probe guest answers there, else emulated."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.core import InfrastructureError
from hpcc.runtime.host.probe_record import machine_key, recall, remember
from hpcc.runtime.host.tools import run_tool
from hpcc.runtime.qemu.backend import PROGRAM, QemuConfig, QemuRuntime
from hpcc.runtime.vm.backend import LinuxBackend, RuntimeRequest

_KVM: Final = Path("/dev/kvm")
_RECORD: Final = "kvm-probe.json"


async def open_qemu(request: RuntimeRequest) -> QemuRuntime:
    """Return a runtime under KVM if a probe guest answered there within 15 s, else under TCG.

    TCG needs no probe: it works wherever the program runs.

    Raises:
        InfrastructureError: QEMU is not installed.
    """
    if shutil.which(PROGRAM) is None:
        raise InfrastructureError(
            f"{PROGRAM} is not installed: apt-get install qemu-system-x86", reason="no-runtime"
        )
    emulated = QemuRuntime(
        QemuConfig(accelerator="tcg", directory=request.guests),
        request.assets,
        request.clock,
        request.warm,
    )
    if request.accelerator == "tcg" or (await kvm_state(request.state_dir)).reason:
        return emulated
    config = QemuConfig(accelerator="kvm", directory=request.guests)
    runtime = QemuRuntime(config, request.assets, request.clock, request.warm)
    probe = await runtime.probe()
    if probe.is_usable:
        return runtime
    await asyncio.to_thread(remember, request.state_dir / _RECORD, await _key(), probe)
    return emulated


@dataclass(frozen=True, slots=True)
class KvmState:
    """What is known of KVM without booting; `reason` is "" if nothing speaks against it."""

    reason: str
    was_probed: bool = False


async def kvm_state(state_dir: Path) -> KvmState:
    """Return what speaks against KVM: no device, or a probe that failed since the last boot."""
    if not await asyncio.to_thread(_KVM.exists):
        return KvmState("/dev/kvm does not exist: no hardware virtualisation here")
    reason = await asyncio.to_thread(recall, state_dir / _RECORD, await _key())
    return KvmState(reason, was_probed=bool(reason))


async def _key() -> str:
    return await machine_key(await run_tool(PROGRAM, "--version"))


# Without `offer`: "auto" takes QEMU last, and its error is then the answer.
BACKEND: Final = LinuxBackend(runtime=QemuRuntime, config=QemuConfig, open=open_qemu)
