"""Isolation backends: guests as QEMU microVMs, and what they boot from."""

from hpcc.runtime._assets import GuestAssets, find_static_compiler, prepare_assets
from hpcc.runtime._channel import GuestChannel
from hpcc.runtime._kernel import KERNELS, distribution_id, kernel_package_name, packages_for
from hpcc.runtime._pick import KvmState, kvm_state, pick_runtime
from hpcc.runtime._qemu import PROGRAM as QEMU_PROGRAM
from hpcc.runtime._qemu import QemuConfig, QemuGuest, QemuRuntime
from hpcc.runtime._tools import ToolError, run_tool

__all__ = [
    "KERNELS",
    "QEMU_PROGRAM",
    "GuestAssets",
    "GuestChannel",
    "KvmState",
    "QemuConfig",
    "QemuGuest",
    "QemuRuntime",
    "ToolError",
    "distribution_id",
    "find_static_compiler",
    "kernel_package_name",
    "kvm_state",
    "packages_for",
    "pick_runtime",
    "prepare_assets",
    "run_tool",
]
