"""What a worker's configuration says of its guests: runtime, sizes and limits of the pool."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from hpcc.config.backends import Backend
from hpcc.config.settings import GUEST_OVERHEAD_MIB
from hpcc.core import CallerError, GuestMitigations, ImageDigest, ImageRef
from hpcc.ports import Clock, Runtime
from hpcc.rpc.base.process import ServiceProcess
from hpcc.runtime.registry.windows_pick import (
    AGENT_LAYER,
    WindowsChoice,
    check_windows_backend,
    pick_windows_runtime,
)
from hpcc.runtime.windows.pipes import load_pipe_calls, windows_streams
from hpcc.runtime.windows.spec import VM_OVERHEAD_MIB
from hpcc.worker.base.config import WorkerConfig
from hpcc.worker.pool.decisions import PoolLimits
from hpcc.worker.pool.pool import GuestShape

if TYPE_CHECKING:
    from hpcc.runtime.vm.warm import WarmStart


async def runtime_of(
    config: WorkerConfig,
    process: ServiceProcess,
    clock: Clock,
    warm: WarmStart | None,
    *,
    is_windows: bool = os.name == "nt",
) -> Runtime:
    """Return the runtime, after a test guest answered.

    Raises:
        InfrastructureError: the backend that the configuration asks for does not work here.
        CallerError: the backend is for another system.
    """
    if is_windows:
        process.progress("looking for containerd, and booting a first guest")
        choice = windows_choice(config, os.environ.get("PROGRAMFILES", ""))
        return await pick_windows_runtime(choice, clock, streams=windows_streams(load_pipe_calls()))
    if config.pull_images:
        raise CallerError("pull_images is for Windows; on Linux: `hpcc image pull`")
    # POSIX only, as are the modules that they import.
    from hpcc.runtime.assets.bundle import open_assets
    from hpcc.runtime.registry.pick import pick_runtime

    process.progress("preparing kernel and agent")
    assets = await open_assets(config.guest_assets, config.guest_bundle, process.progress)
    accelerator: Literal["auto", "tcg"] = "tcg" if config.accelerator == "tcg" else "auto"
    process.progress("looking for the best isolation")
    return await pick_runtime(
        assets,
        accelerator=accelerator,
        state_dir=config.state,
        clock=clock,
        backend=cast("Backend", config.runtime),  # checked by WorkerConfig
        containerd=Path(config.containerd),
        warm=warm,
    )


def windows_choice(config: WorkerConfig, program_files: str) -> WindowsChoice:
    """Return the guest settings of a worker's configuration on Windows.

    Raises:
        CallerError: it asks for a backend of Linux.
    """
    return WindowsChoice(
        backend=check_windows_backend(config.runtime),
        worker=config.worker_id,
        agent=config.guest_assets / AGENT_LAYER,
        containerd=config.containerd,
        images=tuple(map(ImageDigest, config.image_digests)),
        pulled=tuple(map(ImageRef.parse, config.pull_images)),
        program_files=program_files,
    )


def overhead_mib(config: WorkerConfig, *, is_windows: bool = os.name == "nt") -> int:
    """Return the memory in MiB that a guest takes in addition to its own."""
    is_hyperv = is_windows and check_windows_backend(config.runtime) == "hyperv"
    return VM_OVERHEAD_MIB if is_hyperv else GUEST_OVERHEAD_MIB


def shape_of(config: WorkerConfig) -> GuestShape:
    """Return the sizes of guests by a worker's configuration."""
    return GuestShape(
        memory_mib=config.guest_memory_mib,
        boot_timeout_seconds=config.boot_timeout_seconds,
        by_image={ImageDigest(d): mib for d, mib in config.guest_memory_by_image.items()},
        mitigations=GuestMitigations(config.guest_mitigations),
    )


def limits_of(config: WorkerConfig) -> PoolLimits:
    """Return the limits of the pool by a worker's configuration."""
    overhead = overhead_mib(config)
    return PoolLimits(
        max_guests=config.max_guests,
        vcpus=config.vcpus,
        guest_mib=config.guest_memory_mib + overhead,
        mib_by_image={i: mib + overhead for i, mib in shape_of(config).by_image.items()},
        memory_mib=config.memory_mib,
        max_queue=config.max_queue,
        idle_seconds=config.idle_seconds,
        session_seconds=config.session_seconds,
        ahead_guests=config.ahead_guests,
        park_after_starts=config.park_after_starts,
        park_seconds=config.park_seconds,
    )
