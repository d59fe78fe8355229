"""The choice of a runtime on Linux: the backend that was asked for, or the best that works."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, Literal

from hpcc.config.backends import Backend
from hpcc.config.settings import default_containerd
from hpcc.core import CallerError
from hpcc.ports import Clock, Runtime
from hpcc.runtime.assets.assets import GuestAssets
from hpcc.runtime.host.leftovers import sweep
from hpcc.runtime.registry.table import LINUX, last_resort, row_or_none
from hpcc.runtime.vm.backend import RuntimeRequest
from hpcc.runtime.vm.warm import WarmStart

_CONTAINERD: Final = Path(default_containerd())


async def pick_runtime(
    assets: GuestAssets,
    *,
    accelerator: Literal["auto", "tcg"],
    state_dir: Path,
    clock: Clock,
    backend: Backend = "auto",
    containerd: Path = _CONTAINERD,
    warm: WarmStart | None = None,
) -> Runtime:
    """Return the best runtime that really works here, or the one that was asked for.

    KVM counts as working when a probe guest has booted under it to its agent's answer within 15 s,
    as the user who will run guests. A failure is remembered under `state_dir` until the machine
    reboots, or kernel, VMM or CPU change. A backend that was asked for by name is never replaced by
    another. "auto" never chooses containers, which share the host's kernel. With `warm`, guests are
    restored from snapshots.

    Raises:
        InfrastructureError: no backend works here, or the one that was asked for does not.
        CallerError: Firecracker without KVM was asked for, or a backend for Windows.
    """
    request = RuntimeRequest(
        assets=assets, accelerator=accelerator, state_dir=state_dir, clock=clock,
        containerd=containerd, warm=warm,
    )  # fmt: skip
    await asyncio.to_thread(sweep, request.guests)
    if backend == "auto":
        return await _best(request)
    row = row_or_none(LINUX, backend)
    if row is None:
        raise CallerError(
            f'runtime = "{backend}" is for Windows Server; on Linux, "auto" takes the best there is'
        )
    return await row.load().open(request)


async def _best(request: RuntimeRequest) -> Runtime:
    for row in LINUX:
        offer = row.load().offer if row.auto == "if-it-works" else None
        runtime = await offer(request) if offer is not None else None
        if runtime is not None:
            return runtime
    return await last_resort(LINUX).load().open(request)
