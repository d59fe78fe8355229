"""The two backends for Windows, as the registry uses them. Not yet run on Windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hpcc.ports import Clock
from hpcc.runtime.containerd.exec_channel import NewStreams
from hpcc.runtime.windows.host import WindowsHost, WindowsRuntimeConfig
from hpcc.runtime.windows.hyperv import HyperVRuntime
from hpcc.runtime.windows.process import WindowsProcessRuntime
from hpcc.runtime.windows.runtime import WindowsRuntime


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsKind:
    """One backend for Windows: its class, its configuration and how a runtime is made.

    `make` does no I/O; the registry sweeps and probes what it returns.
    """

    runtime: type[WindowsRuntime]
    make: Callable[[WindowsHost, Clock, NewStreams], WindowsRuntime]
    config: type[object] = WindowsRuntimeConfig


HYPERV: Final = WindowsKind(
    runtime=HyperVRuntime, make=lambda host, clock, _: HyperVRuntime(host, clock)
)
PROCESS: Final = WindowsKind(runtime=WindowsProcessRuntime, make=WindowsProcessRuntime)
