"""What containerd on Windows is told of a guest: the container's OCI specification and its ids.

No I/O. Nothing of the host is given to a container: no mount, no directory, no share, no pipe, no
network; what goes in and out goes over one Hyper-V socket. Sources: hcsshim 0.13 (`internal/oci`,
`internal/hcsoci`, `internal/tools/hvsocketaddr`, `pkg/annotations`). Not yet run on Windows.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from typing import Final

from hpcc.core import CallerError, InfrastructureError

RUNTIME: Final = "io.containerd.runhcs.v1"
RUNHCS_OPTIONS: Final = "containerd.runhcs.v1.Options"
AGENT_PORT: Final = 17727
# The first that brings hcsshim 0.13.0, where a container has a GUID of its own to dial; 2.1.0 has
# a release candidate of it that lacks this (containerd, script/setup/runhcs-version).
MINIMUM_CONTAINERD: Final = (2, 1, 1)
# Where a container's GUID began (hcsshim pull request 2353).
MINIMUM_SHIM: Final = (0, 13, 0)
# Who a utility VM belongs to in the host's list, where the shim made it for a single container.
SHIM_OWNER: Final = "containerd-shim-runhcs-v1.exe"
# Windows itself in the utility VM, beside what the container may use.
VM_OVERHEAD_MIB: Final = 2048
_MIN_MEMORY_MIB, _MAX_MEMORY_MIB = 512, 1 << 20
_MAX_VCPUS: Final = 240
# Namespace of HCS's system GUIDs (hcsshim internal/tools/hvsocketaddr).
_HCS_NAMESPACE: Final = uuid.UUID("cab70344-facb-41e4-b5e5-ab6592283e6e")
# What a vsock port is among the services of Hyper-V sockets.
_SERVICE_TAIL: Final = "facb-11e6-bd58-64006a7986d3"
_MAX_PORT: Final = 0x7FFF_FFFF
_CONTAINER_ID: Final = re.compile(r"hpcc-[a-z0-9](?:[a-z0-9-]{0,58}[a-z0-9])?")
# The Windows snapshotters make no scratch disk where a key has this in it.
_FORBIDDEN_WORD: Final = "extract"
_VERSION: Final = re.compile(
    r"v?([0-9]{1,5})\.([0-9]{1,5})\.([0-9]{1,5})(-[0-9A-Za-z.-]{1,64})?(?:\+[0-9A-Za-z.-]{1,64})?"
)
_SHIM_VERSION: Final = re.compile(
    r"^\S* ?version:? v?([0-9]{1,5})\.([0-9]{1,5})\.([0-9]{1,5})(-[0-9A-Za-z.-]{1,64})?$",
    re.MULTILINE,
)
_COMPUTE_TOPOLOGY: Final = "io.microsoft.virtualmachine.computetopology"
_SERVICE_TABLE: Final = "io.microsoft.virtualmachine.hv-socket.service-table"
# No gMSA, no writable share, no direct map of shared memory, no host process containers.
_NO_UNSAFE_OPERATIONS: Final = "io.microsoft.disable-unsafe-operations"
# Of processes on the host: none may take the guest's calls, system and administrators may call it.
_NOBODY: Final = "D:P(D;;FA;;;WD)"
_SYSTEM_AND_ADMINISTRATORS: Final = "D:P(A;;FA;;;SY)(A;;FA;;;BA)"
_AGENT: Final = "C:\\.hpcc\\hpcc-agent.exe"
_MIB: Final = 1 << 20
# Fields of containerd.runhcs.v1.Options, all of them variable-length integers here.
_SANDBOX_ISOLATION, _VM_PROCESSORS, _VM_MEMORY, _NO_TIMEZONE, _SCRUB_LOGS = 6, 8, 9, 19, 20
_HYPERVISOR: Final = 1
_CONTINUED: Final = 0x80


def check_container_id(container_id: str) -> str:
    """Return the id if a guest may have it: short, lower case, ASCII, ours.

    Raises:
        CallerError: it may not.
    """
    if not _CONTAINER_ID.fullmatch(container_id) or _FORBIDDEN_WORD in container_id:
        raise CallerError(
            f"not an id of a Windows guest: {container_id[:80]!r} (hpcc-…, of a-z, 0-9 and '-', "
            f"without the word {_FORBIDDEN_WORD!r})",
            reason="container-id",
        )
    return container_id


def container_vmid(container_id: str) -> uuid.UUID:
    """Return the address of a container's Hyper-V sockets, which follows from its id alone.

    Raises:
        CallerError: the id is not one of a guest's, for which upper case has one meaning.
    """
    name = check_container_id(container_id).upper().encode("utf-16-le")
    return uuid.uuid5(_HCS_NAMESPACE, name)


def service_guid(port: int) -> uuid.UUID:
    """Return what a vsock port is called among the services of Hyper-V sockets.

    Raises:
        CallerError: not a port.
    """
    if not 0 < port <= _MAX_PORT:
        raise CallerError(f"not a vsock port: {port}", reason="port")
    return uuid.UUID(f"{port:08x}-{_SERVICE_TAIL}")


def utility_vm_id(container_id: str) -> str:
    """Return what the host calls the utility VM of a container."""
    return f"{check_container_id(container_id)}@vm"


def check_containerd(version: str) -> None:
    """Refuse a containerd whose shim gives containers no GUID.

    Raises:
        InfrastructureError: it is older than 2.1.1, a candidate of it, or no version.
    """
    match = _VERSION.fullmatch(version)
    numbers = tuple(int(part) for part in match.groups()[:3]) if match else (0,)
    is_candidate = match is not None and bool(match[4])
    if numbers < MINIMUM_CONTAINERD or (numbers == MINIMUM_CONTAINERD and is_candidate):
        least = ".".join(map(str, MINIMUM_CONTAINERD))
        raise InfrastructureError(
            f"containerd is {version[:80]!r}; Windows guests need {least} or newer, whose shim "
            "(hcsshim 0.13.0) gives a container an address of its own: install a newer release "
            "from https://github.com/containerd/containerd/releases",
            reason="containerd-version",
        )


def check_shim(said: str) -> str:
    """Return the shim's version from what it says of itself, "" where it names none.

    The one in containerd's releases is built without a number (script/setup/install-runhcs-shim):
    for that one containerd's own version stands.

    Raises:
        InfrastructureError: it names one in which containers have no address.
    """
    match = _SHIM_VERSION.search(said)
    if match is None:
        return ""
    version = ".".join(match.groups()[:3]) + (match[4] or "")
    numbers = tuple(int(part) for part in match.groups()[:3])
    if numbers < MINIMUM_SHIM or (numbers == MINIMUM_SHIM and match[4]):
        least = ".".join(map(str, MINIMUM_SHIM))
        raise InfrastructureError(
            f"{SHIM_OWNER} is of hcsshim {version}; Windows guests need {least} or newer, which"
            " gives a container an address of its own: put the shim of a containerd release"
            " beside containerd.exe",
            reason="shim-version",
        )
    return version


def runhcs_options(*, memory_mib: int, vcpus: int) -> bytes:
    """Encode the shim's options for a guest in a utility VM.

    Complete, because the shim refuses options that do not say HYPERVISOR beside `windows.hyperv`.
    A guest in process isolation is given none.
    """
    fields = {
        _SANDBOX_ISOLATION: _HYPERVISOR,
        _VM_PROCESSORS: vcpus,
        _VM_MEMORY: memory_mib + VM_OVERHEAD_MIB,
        _NO_TIMEZONE: 1,
        _SCRUB_LOGS: 1,
    }
    return b"".join(_varint(number << 3) + _varint(value) for number, value in fields.items())


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= _CONTINUED:
        out.append(value % _CONTINUED + _CONTINUED)
        value //= _CONTINUED
    out.append(value)
    return bytes(out)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsPlan:
    """One guest: a container in a utility VM of its own, or one on the host's own kernel."""

    container_id: str
    memory_mib: int
    vcpus: int
    is_hyperv: bool
    port: int = AGENT_PORT

    def __post_init__(self) -> None:
        """Refuse what the shim would refuse later, or size in a way nobody asked for."""
        check_container_id(self.container_id)
        service_guid(self.port)
        if not _MIN_MEMORY_MIB <= self.memory_mib <= _MAX_MEMORY_MIB:
            raise CallerError(
                f"a Windows guest has {_MIN_MEMORY_MIB} to {_MAX_MEMORY_MIB} MiB of memory, "
                f"not {self.memory_mib}",
                reason="guest-size",
            )
        if not 0 < self.vcpus <= _MAX_VCPUS:
            raise CallerError(
                f"a Windows guest has 1 to {_MAX_VCPUS} processors, not {self.vcpus}",
                reason="guest-size",
            )

    @property
    def options(self) -> bytes:
        """The shim's options; none in process isolation."""
        if not self.is_hyperv:
            return b""
        return runhcs_options(memory_mib=self.memory_mib, vcpus=self.vcpus)

    @property
    def spec(self) -> dict[str, object]:
        """The container, whose first process is the agent, or in process isolation a pause."""
        windows: dict[str, object] = {
            "ignoreFlushesDuringBoot": True,
            "resources": {
                "memory": {"limit": self.memory_mib * _MIB},
                "cpu": {"count": self.vcpus},
            },
        }
        if self.is_hyperv:
            windows["hyperv"] = {}
        return {
            "ociVersion": "1.1.0",
            "root": {},
            "process": _process(self._verb),
            "mounts": [],
            "windows": windows,
            "annotations": self._annotations,
        }

    @property
    def agent(self) -> dict[str, object]:
        """The process of one compile in process isolation: an agent on its standard streams."""
        return _process(("serve", "--stdio"))

    @property
    def _verb(self) -> tuple[str, ...]:
        return ("serve", "--port", str(self.port)) if self.is_hyperv else ("pause",)

    @property
    def _annotations(self) -> dict[str, str]:
        annotations = {_NO_UNSAFE_OPERATIONS: "true"}
        if self.is_hyperv:
            memory_mib = self.memory_mib + VM_OVERHEAD_MIB
            annotations[f"{_COMPUTE_TOPOLOGY}.memory.sizeinmb"] = str(memory_mib)
            annotations[f"{_COMPUTE_TOPOLOGY}.processor.count"] = str(self.vcpus)
            annotations[f"{_SERVICE_TABLE}.{service_guid(self.port)}"] = service_table()
        return annotations


def _process(verb: tuple[str, ...]) -> dict[str, object]:
    return {
        "args": [_AGENT, *verb],
        "cwd": "C:\\",
        "env": ["VSLANG=1033"],
        # What hcsshim's own tests bind a socket as is even more, the system itself.
        "user": {"username": "ContainerAdministrator"},
        "terminal": False,
    }


def service_table() -> str:
    """Return who on the host may use the agent's service, as JSON.

    The shim skips what it cannot read, and then says so in its log alone: what counts is the
    self-test's dial without rights, not this request.
    """
    entry = {
        "BindSecurityDescriptor": _NOBODY,
        "ConnectSecurityDescriptor": _SYSTEM_AND_ADMINISTRATORS,
        "AllowWildcardBinds": False,
    }
    return json.dumps(entry, separators=(",", ":"))
