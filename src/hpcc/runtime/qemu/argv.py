"""QEMU's command line: a microvm with two read-only drives, one port, and no network. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from hpcc.runtime.vm.command_line import mitigation_options
from hpcc.wire.exec_frames import PORT_NAME, TOKEN_PARAMETER

Accelerator = Literal["kvm", "tcg"]
# Refuses obsolete calls, new privileges, new processes and scheduling changes.
_SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
# QEMU would ask the kernel to merge its guest's pages with equal ones of others (KSM).
_MACHINE: Final = "microvm,rtc=on,acpi=on,mem-merge=off"
# Smaller translation caches made a warm compile five times slower; larger ones changed nothing.
_TCG_CACHE_MIB: Final = 256
_KERNEL_OPTIONS: Final = (
    "console=ttyS0", "quiet", "loglevel=4", "rdinit=/init", "panic=-1", "reboot=t",
    "random.trust_cpu=on", "cryptomgr.notests",
)  # fmt: skip


# Descriptor set 1 is the image, set 2 the agent's drive.
_STATE_FD_SET: Final = 3
STATE_URI: Final = f"file:/dev/fdset/{_STATE_FD_SET}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFds:
    """Descriptors of a VM that becomes a snapshot (`is_template`) or is restored from one."""

    memory_fd: int
    state_fd: int
    control_fd: int
    is_template: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuMachine:
    """One VM as data. Fields that end in `_fd` are descriptors that QEMU inherits."""

    name: str
    accelerator: Accelerator
    memory_mib: int
    vcpus: int
    kernel_fd: int
    initramfs_fd: int
    image_fd: int
    drive_fd: int
    port_fd: int
    firmware: str
    token: str
    tsc_khz: int
    has_mitigations: bool
    extra_options: str = ""
    snapshot: SnapshotFds | None = None


def qemu_argv(program: str, machine: QemuMachine) -> list[str]:
    """Return the whole command line.

    Files are named by inherited descriptors, so QEMU's user needs no right to their directories.
    """
    fixed = ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"]
    return [
        program, *fixed,
        # For people who read a process list. QEMU reads "," as the end of the value.
        "-name", "guest=" + machine.name.replace(",", ",,"),
        "-sandbox", _SANDBOX,
        "-M", _MACHINE + (",memory-backend=memory" if machine.snapshot else ""),
        *_accelerator(machine.accelerator),
        "-m", f"{machine.memory_mib}M",
        "-smp", str(machine.vcpus),
        *(["-bios", machine.firmware] if machine.firmware else []),
        "-kernel", f"/dev/fd/{machine.kernel_fd}",
        "-initrd", f"/dev/fd/{machine.initramfs_fd}",
        "-append", kernel_command_line(machine),
        "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
        *_drive("image", machine.image_fd, 1),
        *_drive("agent", machine.drive_fd, 2),
        "-device", "virtio-serial-device",
        "-chardev", f"socket,id=port,fd={machine.port_fd}",
        "-device", f"virtserialport,chardev=port,name={PORT_NAME}",
        *(_snapshot(machine.memory_mib, machine.snapshot) if machine.snapshot else []),
    ]  # fmt: skip


def _snapshot(memory_mib: int, fds: SnapshotFds) -> list[str]:
    """Return the options that write memory and device state to two files, or restore from them.

    A restored guest maps the memory privately: it shares the pages that it does not write.
    """
    mode = "share=on" if fds.is_template else "share=off,readonly=on,rom=off"
    memory = f"id=memory,size={memory_mib}M,mem-path=/dev/fd/{fds.memory_fd},{mode}"
    return [
        "-object", f"memory-backend-file,{memory}",
        "-add-fd", f"fd={fds.state_fd},set={_STATE_FD_SET}",
        "-chardev", f"socket,id=control,fd={fds.control_fd}",
        "-mon", "chardev=control,mode=control",
        *([] if fds.is_template else ["-incoming", "defer"]),
    ]  # fmt: skip


def kernel_command_line(machine: QemuMachine) -> str:
    """Return the guest kernel's options.

    Under emulation a busy host makes the kernel's TSC calibration fail. The boot then hangs forever
    in about half the cases. So the frequency is passed as an option.
    """
    options = [
        *_KERNEL_OPTIONS, *mitigation_options(has_mitigations=machine.has_mitigations),
        f"{TOKEN_PARAMETER}={machine.token}",
    ]  # fmt: skip
    if machine.accelerator == "tcg" and machine.tsc_khz:
        options.append(f"tsc_early_khz={machine.tsc_khz}")
    if machine.extra_options:
        options.append(machine.extra_options)
    return " ".join(options)


def tsc_khz(cpuinfo: str) -> int:
    """Return the clock rate in kHz from the text of /proc/cpuinfo; 0 if it does not state one."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "cpu MHz":
            try:
                return int(float(value) * 1000)
            except ValueError:
                return 0
    return 0


def _accelerator(accelerator: Accelerator) -> list[str]:
    if accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", f"tcg,thread=multi,tb-size={_TCG_CACHE_MIB}", "-cpu", "max"]


def _drive(name: str, fd: int, fd_set: int) -> list[str]:
    file = f"file=/dev/fdset/{fd_set},format=raw,if=none,readonly=on,file.locking=off"
    return [
        "-add-fd", f"fd={fd},set={fd_set}",
        "-drive", f"id={name},{file}",
        "-device", f"virtio-blk-device,drive={name}",
    ]  # fmt: skip
