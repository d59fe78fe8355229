"""The choice of a runtime on Windows: the one that was asked for, once its probe guest answered.

Not yet run on Windows.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.core import CallerError, ImageDigest, ImageRef
from hpcc.ports import Clock
from hpcc.runtime.containerd.client import Connect, pipe_connector
from hpcc.runtime.containerd.exec_channel import NewStreams
from hpcc.runtime.host.probe_check import check_probe
from hpcc.runtime.host.threads import in_thread
from hpcc.runtime.registry.table import WINDOWS, last_resort, row_or_none
from hpcc.runtime.windows.host import (
    WindowsBackend,
    WindowsHost,
    WindowsRuntimeConfig,
    find_shim,
    host_build,
)
from hpcc.runtime.windows.layers.layer import read_windows_layer
from hpcc.runtime.windows.runtime import WindowsRuntime

AGENT_LAYER: Final = "windows-agent.tar"


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsChoice:
    """A worker's settings for its guests.

    `agent` is the tar file with the agent's layer. `pulled` are images that containerd fetches at
    the start. `images` are the images that are offered; the probe guest boots the first. `worker`
    names the worker and is unique on this host. containerd's shim is looked for in `program_files`.
    """

    backend: WindowsBackend
    worker: str
    agent: Path
    containerd: str
    images: tuple[ImageDigest, ...] = ()
    pulled: tuple[ImageRef, ...] = ()
    program_files: str = ""


async def pick_windows_runtime(
    choice: WindowsChoice,
    clock: Clock,
    *,
    streams: NewStreams,
    build: Callable[[], int] = host_build,
    connect: Callable[[str], Connect] = pipe_connector,
    make: Callable[[WindowsHost], WindowsRuntime] | None = None,
) -> WindowsRuntime:
    """Return the runtime that was asked for, swept, with its images, and proved by a guest.

    It is never replaced by another. Process isolation, on the host's own kernel, is used only if it
    was asked for, and Hyper-V isolation that does not work is an error. `make`, `build` and
    `connect` replace the host's parts in tests.

    Raises:
        InfrastructureError: the runtime does not work here; the text gives reason and remedy.
        CallerError: the agent's layer is missing or not valid.
    """
    layer = await in_thread(lambda: read_windows_layer(choice.agent))
    number = build()
    shim = await in_thread(lambda: find_shim(choice.program_files))
    config = WindowsRuntimeConfig(
        worker=choice.worker,
        boot=secrets.token_hex(8),
        connect=connect(choice.containerd),
        layer=layer,
        build=number,
        is_hyperv=choice.backend == "hyperv",
        shim=shim,
        pulled=choice.pulled,
        probe_image=choice.images[0] if choice.images else None,
    )
    host = WindowsHost(config, clock)
    # Before the sweep: this names what is wrong, where the sweep could only report that containerd
    # does not answer.
    await host.tools()
    runtime = make(host) if make is not None else _runtime(choice.backend, host, clock, streams)
    await runtime.sweep()
    await host.pull()
    await check_probe(runtime, f"{runtime.isolation} guests do not work")
    return runtime


def _runtime(
    backend: WindowsBackend, host: WindowsHost, clock: Clock, streams: NewStreams
) -> WindowsRuntime:
    row = row_or_none(WINDOWS, backend)
    assert row is not None
    return row.load().make(host, clock, streams)


def check_windows_backend(name: str) -> WindowsBackend:
    """Return the backend that a worker's `runtime` names on Windows; "auto" is Hyper-V there.

    Raises:
        CallerError: it is a backend for Linux.
    """
    row = last_resort(WINDOWS) if name == "auto" else row_or_none(WINDOWS, name)
    if row is None:
        names = " or ".join(f'"{row.name}"' for row in WINDOWS)
        raise CallerError(f'runtime = "{name}" is for Linux; on Windows it is {names}')
    return row.name
