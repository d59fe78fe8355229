"""Isolation backends: guests as microVMs or containers, and what they boot from."""

import sys

from hpcc.runtime._containerd import Connect, Containerd, Stdio, pipe_connector, unix_connector
from hpcc.runtime._containerd_layers import chain_id
from hpcc.runtime._exec_channel import NewStreams
from hpcc.runtime._hyperv import HyperVRuntime
from hpcc.runtime._pipe_streams import PipeStreams, pipe_streams
from hpcc.runtime._windows_agent import build_agent_layer, build_agent_zip
from hpcc.runtime._windows_host import WindowsConfig, WindowsHost, find_shim, host_build, shim_says
from hpcc.runtime._windows_layer import (
    AGENT_STUB_SOURCE,
    DIRECTORY_SDDL,
    FILE_SDDL,
    WindowsLayer,
    build_windows_layer,
    read_python_zip,
    read_windows_layer,
    security_descriptor,
)
from hpcc.runtime._windows_pick import (
    AGENT_LAYER,
    WindowsChoice,
    check_windows_backend,
    pick_windows_runtime,
)
from hpcc.runtime._windows_pipes import load_pipe_calls, windows_streams
from hpcc.runtime._windows_process import WindowsProcessRuntime
from hpcc.runtime._windows_selftest import CheckResult, SelfTestSettings
from hpcc.runtime._windows_selftest import report as windows_report
from hpcc.runtime._windows_selftest import run_checks as run_windows_checks
from hpcc.runtime._windows_spec import VM_OVERHEAD_MIB, check_containerd, check_shim

if sys.platform != "win32":
    # These need POSIX: fcntl, users, process descriptors, Unix sockets that pass descriptors.
    from hpcc.runtime._assets import GuestAssets, find_static_compiler, prepare_assets
    from hpcc.runtime._channel import ChannelTiming, GuestChannel
    from hpcc.runtime._firecracker import FirecrackerConfig, FirecrackerRuntime
    from hpcc.runtime._firecracker_tools import FirecrackerTools, find_firecracker
    from hpcc.runtime._initramfs import build_initramfs
    from hpcc.runtime._kernel import (
        KERNELS,
        collect_modules,
        distribution_id,
        kernel_package_name,
        packages_for,
    )
    from hpcc.runtime._pick import (
        Backend,
        FirecrackerState,
        KvmState,
        firecracker_state,
        kvm_state,
        pick_runtime,
    )
    from hpcc.runtime._qemu import PROGRAM as QEMU_PROGRAM
    from hpcc.runtime._qemu import QemuConfig, QemuRuntime, why_no_snapshots
    from hpcc.runtime._runc import RuncRuntime
    from hpcc.runtime._runc_tools import DEFAULT_SOCKET as CONTAINERD_SOCKET
    from hpcc.runtime._runc_tools import RuncConfig, RuncTools, find_runc
    from hpcc.runtime._tools import ToolError, run_tool
    from hpcc.runtime._vm import VmGuest
    from hpcc.runtime._warden import WardenEnds, Zygote, warden_trouble
    from hpcc.runtime._warden_launch import launch_warden, warden_label
    from hpcc.runtime._warden_link import Launch
    from hpcc.runtime._warm import WarmStart, snapshot_bytes
    from hpcc.runtime._warm import open_store as open_snapshots

__all__ = [
    "AGENT_LAYER",
    "AGENT_STUB_SOURCE",
    "CONTAINERD_SOCKET",
    "DIRECTORY_SDDL",
    "FILE_SDDL",
    "KERNELS",
    "QEMU_PROGRAM",
    "VM_OVERHEAD_MIB",
    "Backend",
    "ChannelTiming",
    "CheckResult",
    "Connect",
    "Containerd",
    "FirecrackerConfig",
    "FirecrackerRuntime",
    "FirecrackerState",
    "FirecrackerTools",
    "GuestAssets",
    "GuestChannel",
    "HyperVRuntime",
    "KvmState",
    "Launch",
    "NewStreams",
    "PipeStreams",
    "QemuConfig",
    "QemuRuntime",
    "RuncConfig",
    "RuncRuntime",
    "RuncTools",
    "SelfTestSettings",
    "Stdio",
    "ToolError",
    "VmGuest",
    "WardenEnds",
    "WarmStart",
    "WindowsChoice",
    "WindowsConfig",
    "WindowsHost",
    "WindowsLayer",
    "WindowsProcessRuntime",
    "Zygote",
    "build_agent_layer",
    "build_agent_zip",
    "build_initramfs",
    "build_windows_layer",
    "chain_id",
    "check_containerd",
    "check_shim",
    "check_windows_backend",
    "collect_modules",
    "distribution_id",
    "find_firecracker",
    "find_runc",
    "find_shim",
    "find_static_compiler",
    "firecracker_state",
    "host_build",
    "kernel_package_name",
    "kvm_state",
    "launch_warden",
    "load_pipe_calls",
    "open_snapshots",
    "packages_for",
    "pick_runtime",
    "pick_windows_runtime",
    "pipe_connector",
    "pipe_streams",
    "prepare_assets",
    "read_python_zip",
    "read_windows_layer",
    "run_tool",
    "run_windows_checks",
    "security_descriptor",
    "shim_says",
    "snapshot_bytes",
    "unix_connector",
    "warden_label",
    "warden_trouble",
    "why_no_snapshots",
    "windows_report",
    "windows_streams",
]
