"""Firecracker as data: versions, the jailer's command line, the API calls of a boot. No I/O.

Sources: Firecracker's `src/firecracker/swagger/firecracker.yaml` for the API, and its
`docs/jailer.md` for the jailer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hpcc.core import InfrastructureError, IntegrityError
from hpcc.runtime.host.cgroups import PARENT_CGROUP
from hpcc.runtime.vm.command_line import mitigation_options
from hpcc.wire.exec_frames import TOKEN_PARAMETER, VSOCK_PARAMETER, VSOCK_PORT

MINIMUM_VERSION: Final = (1, 12)
RELEASES: Final = "https://github.com/firecracker-microvm/firecracker/releases"
PROGRAM: Final = "firecracker"
JAILER: Final = "jailer"
# Names of files in the jail, which the VMM sees in its root directory.
KERNEL: Final = "vmlinux"
INITRAMFS: Final = "initramfs"
IMAGE: Final = "image"
AGENT: Final = "agent"
MEMORY: Final = "memory"
STATE: Final = "state"
API_SOCKET: Final = "api.sock"
VSOCK_SOCKET: Final = "vsock.sock"
_GUEST_CID: Final = 3
# Beside the guest's memory: the VMM's own, page tables and the page cache of its drives.
_OVERHEAD_MIB: Final = 128
# One thread for the API, one for the VMM, one per vCPU; the rest is reserve.
_MAX_PIDS: Final = 64
_MAX_FILES: Final = 256
# The jailer writes a pid file. Only a template writes more: its snapshot.
_MAX_FILE_BYTES: Final = 4096
_KERNEL_OPTIONS: Final = (
    "quiet", "rdinit=/init", "panic=-1", "reboot=k",
    "random.trust_cpu=on", "cryptomgr.notests", "i8042.noaux", "i8042.nomux", "i8042.nopnp",
    "i8042.dumbkbd",
)  # fmt: skip
_VERSION: Final = re.compile(
    r"^(?:Firecracker|Jailer) v(\d{1,4})\.(\d{1,4})\.(\d{1,4})(\S*)\s*$", re.M
)


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One request to the API."""

    method: str
    path: str
    body: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Microvm:
    """One microVM as data."""

    memory_mib: int
    vcpus: int
    token: str
    has_mitigations: bool
    has_console: bool = False
    extra_options: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jail:
    """How the jailer is called.

    `has_cgroup`: there is a cgroup v2 with the needed controllers. `counts_swap`: it counts swap.
    """

    jailer: str
    firecracker: str
    jail_id: str
    base: str
    uid: int
    gid: int
    has_cgroup: bool
    counts_swap: bool
    memory_mib: int
    is_template: bool = False


def parse_version(text: str) -> str:
    """Return the version in the output of `--version`, such as "1.12.1".

    Raises:
        InfrastructureError: it holds no version, or one older than `MINIMUM_VERSION`.
    """
    found = _VERSION.search(text)
    if found is None:
        raise InfrastructureError(
            f"not a version of Firecracker: {text[:80]!r}", reason="firecracker-version"
        )
    version = ".".join(found.groups()[:3]) + found[4]
    if (int(found[1]), int(found[2])) < MINIMUM_VERSION:
        minimum = ".".join(str(n) for n in MINIMUM_VERSION)
        raise InfrastructureError(
            f"Firecracker {version} is too old: hpcc works with {minimum} or newer; install the"
            f" official release ({RELEASES})",
            reason="firecracker-version",
        )
    return version


def jailer_argv(jail: Jail) -> list[str]:
    """Return the whole command line, from the process that the worker starts.

    The jailer drops root, which clears a death signal. So it runs below two processes that keep
    theirs. `unshare` dies with the worker, and the shell dies with `unshare`. The shell is PID 1 of
    a PID namespace, so its death ends the VMM. The VMM's network namespace has no device.
    """
    cgroup: list[str] = []
    if jail.has_cgroup:
        memory_mib = jail.memory_mib * (2 if jail.is_template else 1)  # and a copy of it in a file
        memory = (memory_mib + _OVERHEAD_MIB) << 20
        cgroup = [
            "--cgroup-version", "2", "--parent-cgroup", PARENT_CGROUP,
            "--cgroup", f"memory.max={memory}", "--cgroup", f"pids.max={_MAX_PIDS}",
            # A guest's memory holds sources, which must not reach the host's disk.
            *(["--cgroup", "memory.swap.max=0"] if jail.counts_swap else []),
        ]  # fmt: skip
    file_bytes = jail.memory_mib << 20 if jail.is_template else 0
    return [
        "prlimit", "--core=0", "setpriv", "--pdeathsig=KILL",
        "unshare", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child=KILL",
        "sh", "-c", '"$@"; exit "$?"', "sh",
        jail.jailer, "--id", jail.jail_id, "--exec-file", jail.firecracker,
        "--uid", str(jail.uid), "--gid", str(jail.gid), "--chroot-base-dir", jail.base,
        "--resource-limit", f"no-file={_MAX_FILES}",
        "--resource-limit", f"fsize={_MAX_FILE_BYTES + file_bytes}",
        *cgroup,
        "--", "--api-sock", f"/{API_SOCKET}", "--level", "Warn",
    ]  # fmt: skip


def boot_calls(vm: Microvm) -> list[ApiRequest]:
    """Return the calls that configure a microVM, none of them for a network."""
    return [
        ApiRequest("PUT", "/machine-config", {
            "vcpu_count": vm.vcpus, "mem_size_mib": vm.memory_mib, "smt": False,
        }),
        ApiRequest("PUT", "/boot-source", {
            "kernel_image_path": f"/{KERNEL}", "initrd_path": f"/{INITRAMFS}",
            "boot_args": kernel_command_line(vm),
        }),
        # In the order of the guest's /dev/vda and /dev/vdb.
        *(ApiRequest("PUT", f"/drives/{name}", {
            "drive_id": name, "path_on_host": f"/{name}",
            "is_root_device": False, "is_read_only": True,
        }) for name in (IMAGE, AGENT)),
        ApiRequest("PUT", "/vsock", {"guest_cid": _GUEST_CID, "uds_path": f"/{VSOCK_SOCKET}"}),
    ]  # fmt: skip


VERSION_CALL: Final = ApiRequest("GET", "/version")
CONFIGURATION_CALL: Final = ApiRequest("GET", "/vm/config")
START_CALL: Final = ApiRequest("PUT", "/actions", {"action_type": "InstanceStart"})
# SAVE_CALLS turn a template into a snapshot. A guest is restored by LOAD_CALL. It is resumed after
# the VMM has reported the resulting configuration.
SAVE_CALLS: Final = (
    ApiRequest("PATCH", "/vm", {"state": "Paused"}),
    ApiRequest("PUT", "/snapshot/create", {
        "snapshot_type": "Full", "snapshot_path": f"/{STATE}", "mem_file_path": f"/{MEMORY}",
    }),
)  # fmt: skip
LOAD_CALL: Final = ApiRequest("PUT", "/snapshot/load", {
    "snapshot_path": f"/{STATE}", "resume_vm": False,
    "mem_backend": {"backend_type": "File", "backend_path": f"/{MEMORY}"},
})  # fmt: skip
RESUME_CALL: Final = ApiRequest("PATCH", "/vm", {"state": "Resumed"})


def kernel_command_line(vm: Microvm) -> str:
    """Return the guest kernel's options."""
    console = (
        ["console=ttyS0", "loglevel=4"] if vm.has_console else ["8250.nr_uarts=0", "loglevel=0"]
    )
    options = [
        *console, *_KERNEL_OPTIONS, *mitigation_options(has_mitigations=vm.has_mitigations),
        f"{TOKEN_PARAMETER}={vm.token}", f"{VSOCK_PARAMETER}={VSOCK_PORT}",
    ]  # fmt: skip
    if vm.extra_options:
        options.append(vm.extra_options)
    return " ".join(options)


def check_version(answer: Mapping[str, object], version: str) -> None:
    """Check that the VMM in the jail has the version that its program reported.

    Raises:
        IntegrityError: it has another version.
    """
    if answer.get("firecracker_version") != version:
        raise IntegrityError("the VMM has another version than its program", reason="vmm-version")


def check_configuration(answer: Mapping[str, object]) -> None:
    """Check the VMM's own report: no network, nothing writable, no device that was not requested.

    Raises:
        IntegrityError: it has such a device, or does not report.
    """
    drives = answer.get("drives")
    if answer.get("network-interfaces") != []:
        raise IntegrityError("the VMM has a network device", reason="vmm-configuration")
    if not isinstance(drives, list) or len(drives) != len((IMAGE, AGENT)):
        raise IntegrityError("the VMM has other drives", reason="vmm-configuration")
    if not all(isinstance(d, dict) and d.get("is_read_only") is True for d in drives):
        raise IntegrityError("the VMM has a drive that can be written", reason="vmm-configuration")
    if answer.get("mmds-config") is not None:
        raise IntegrityError("the VMM has a metadata service", reason="vmm-configuration")


def cgroup_of(jail_id: str) -> str:
    """Return the guest's cgroup, relative to the cgroup file system's root."""
    return f"{PARENT_CGROUP}/{jail_id}"
