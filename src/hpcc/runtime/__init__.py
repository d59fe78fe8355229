"""Isolation backends: guests as microVMs or containers, and what they boot from."""

import sys

from hpcc.runtime._windows_agent import build_agent_layer, build_agent_zip
from hpcc.runtime._windows_layer import (
    AGENT_STUB_SOURCE,
    DIRECTORY_SDDL,
    FILE_SDDL,
    WindowsLayer,
    build_windows_layer,
    read_python_zip,
    security_descriptor,
)
from hpcc.runtime._windows_selftest import CheckResult, SelfTestSettings
from hpcc.runtime._windows_selftest import report as windows_report
from hpcc.runtime._windows_selftest import run_checks as run_windows_checks

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
    from hpcc.runtime._users import warden_label
    from hpcc.runtime._vm import VmGuest
    from hpcc.runtime._warden import Launch, WardenEnds, Zygote, launch_warden, warden_trouble
    from hpcc.runtime._warm import WarmStart, snapshot_bytes
    from hpcc.runtime._warm import open_store as open_snapshots

__all__ = [
    "AGENT_STUB_SOURCE",
    "CONTAINERD_SOCKET",
    "DIRECTORY_SDDL",
    "FILE_SDDL",
    "KERNELS",
    "QEMU_PROGRAM",
    "Backend",
    "ChannelTiming",
    "CheckResult",
    "FirecrackerConfig",
    "FirecrackerRuntime",
    "FirecrackerState",
    "FirecrackerTools",
    "GuestAssets",
    "GuestChannel",
    "KvmState",
    "Launch",
    "QemuConfig",
    "QemuRuntime",
    "RuncConfig",
    "RuncRuntime",
    "RuncTools",
    "SelfTestSettings",
    "ToolError",
    "VmGuest",
    "WardenEnds",
    "WarmStart",
    "WindowsLayer",
    "Zygote",
    "build_agent_layer",
    "build_agent_zip",
    "build_initramfs",
    "build_windows_layer",
    "collect_modules",
    "distribution_id",
    "find_firecracker",
    "find_runc",
    "find_static_compiler",
    "firecracker_state",
    "kernel_package_name",
    "kvm_state",
    "launch_warden",
    "open_snapshots",
    "packages_for",
    "pick_runtime",
    "prepare_assets",
    "read_python_zip",
    "run_tool",
    "run_windows_checks",
    "security_descriptor",
    "snapshot_bytes",
    "warden_label",
    "warden_trouble",
    "why_no_snapshots",
    "windows_report",
]
