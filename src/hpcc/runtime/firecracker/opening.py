"""Opens the Firecracker backend: finds its programs, checks the machine, boots a probe guest."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.core import CallerError, InfrastructureError
from hpcc.runtime.firecracker.backend import FirecrackerConfig, FirecrackerRuntime
from hpcc.runtime.firecracker.tools import FirecrackerTools, check_machine, find_firecracker
from hpcc.runtime.host.probe_check import check_probe
from hpcc.runtime.host.probe_record import machine_key, recall, remember
from hpcc.runtime.vm.backend import LinuxBackend, RuntimeRequest

_RECORD: Final = "firecracker-probe.json"
# A backend that was asked for has no substitute, so a slow machine (nested virtualisation) gets
# more time.
_PATIENT_PROBE_SECONDS: Final = 90.0


async def open_firecracker(request: RuntimeRequest) -> FirecrackerRuntime:
    """Return a runtime whose probe guest answered. A recorded failure does not count.

    Raises:
        InfrastructureError: Firecracker does not work here; the text says why.
        CallerError: the request excludes KVM.
    """
    if request.accelerator == "tcg":
        raise CallerError('runtime = "firecracker" needs KVM; accelerator = "tcg" excludes it')
    tools = await find_firecracker()
    await asyncio.to_thread(check_machine, request.guests)
    config = FirecrackerConfig(
        tools=tools, directory=request.guests, probe_seconds=_PATIENT_PROBE_SECONDS
    )
    runtime = FirecrackerRuntime(config, request.assets, request.clock, request.warm)
    await check_probe(runtime, "Firecracker does not work")
    return runtime


async def offer_firecracker(request: RuntimeRequest) -> FirecrackerRuntime | None:
    """Return a runtime whose probe guest answered; None if it does not work or did not before."""
    if request.accelerator == "tcg":
        return None
    try:
        tools = await find_firecracker()
        await asyncio.to_thread(check_machine, request.guests)
    except InfrastructureError:
        return None
    record, key = request.state_dir / _RECORD, await _key(tools)
    if await asyncio.to_thread(recall, record, key):
        return None
    config = FirecrackerConfig(tools=tools, directory=request.guests)
    runtime = FirecrackerRuntime(config, request.assets, request.clock, request.warm)
    probe = await runtime.probe()
    if probe.is_usable:
        return runtime
    await asyncio.to_thread(remember, record, key, probe)
    return None


@dataclass(frozen=True, slots=True)
class FirecrackerState:
    """What is known of Firecracker without booting; `reason` is "" if nothing speaks against it."""

    reason: str
    tools: FirecrackerTools | None = None
    was_probed: bool = False


async def firecracker_state(state_dir: Path) -> FirecrackerState:
    """Return what speaks against Firecracker: programs, KVM, rights, or a probe that failed."""
    tools = None
    try:
        tools = await find_firecracker()
        await asyncio.to_thread(check_machine, state_dir / "guests")
    except InfrastructureError as error:
        return FirecrackerState(str(error), tools)
    reason = await asyncio.to_thread(recall, state_dir / _RECORD, await _key(tools))
    return FirecrackerState(reason, tools, was_probed=bool(reason))


async def _key(tools: FirecrackerTools) -> str:
    return await machine_key(tools.firecracker_digest + tools.jailer_digest)


BACKEND: Final = LinuxBackend(
    runtime=FirecrackerRuntime,
    config=FirecrackerConfig,
    open=open_firecracker,
    offer=offer_firecracker,
)
