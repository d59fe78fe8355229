"""A guest for containerd on Windows: the container's OCI specification and its ids. No I/O.

A container gets nothing from the host: no mount, no directory, no share, no pipe, no network. One
Hyper-V socket is the only way in and out. Sources: hcsshim 0.13 (`internal/oci`, `internal/hcsoci`,
`internal/tools/hvsocketaddr`, `pkg/annotations`). Not yet run on Windows.
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
# The first with hcsshim 0.13.0, in which a container has its own GUID to dial. 2.1.0 has a release
# candidate that lacks it (containerd, script/setup/runhcs-version).
MINIMUM_CONTAINERD: Final = (2, 1, 1)
# The first with a container's GUID (hcsshim pull request 2353).
MINIMUM_SHIM: Final = (0, 13, 0)
# The owner of a utility VM in the host's list, if the shim made it for a single container.
SHIM_OWNER: Final = "containerd-shim-runhcs-v1.exe"
# For Windows itself in the utility VM, beside what the container may use.
VM_OVERHEAD_MIB: Final = 2048
_MIN_MEMORY_MIB, _MAX_MEMORY_MIB = 512, 1 << 20
_MAX_VCPUS: Final = 240
# Namespace of HCS's system GUIDs (hcsshim internal/tools/hvsocketaddr).
_HCS_NAMESPACE: Final = uuid.UUID("cab70344-facb-41e4-b5e5-ab6592283e6e")
# The end of a service GUID that stands for a vsock port.
_SERVICE_TAIL: Final = "facb-11e6-bd58-64006a7986d3"
_MAX_PORT: Final = 0x7FFF_FFFF
_CONTAINER_ID: Final = re.compile(r"hpcc-[a-z0-9](?:[a-z0-9-]{0,58}[a-z0-9])?")
# The Windows snapshotters make no scratch disk for a key that contains this.
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
# For processes on the host: none may bind the guest's service; system and administrators may
# connect.
_NOBODY: Final = "D:P(D;;FA;;;WD)"
_SYSTEM_AND_ADMINISTRATORS: Final = "D:P(A;;FA;;;SY)(A;;FA;;;BA)"
_AGENT: Final = "C:\\.hpcc\\hpcc-agent.exe"
_MIB: Final = 1 << 20
# Fields of containerd.runhcs.v1.Options. All used here are variable-length integers.
_SANDBOX_ISOLATION, _VM_PROCESSORS, _VM_MEMORY, _NO_TIMEZONE, _SCRUB_LOGS = 6, 8, 9, 19, 20
_HYPERVISOR: Final = 1
_CONTINUED: Final = 0x80


def check_container_id(container_id: str) -> str:
    """Return the id if it is allowed for a guest: short, lower case, ASCII, `hpcc-…`.

    Raises:
        CallerError: it is not allowed.
    """
    if not _CONTAINER_ID.fullmatch(container_id) or _FORBIDDEN_WORD in container_id:
        raise CallerError(
            f"not an id of a Windows guest: {container_id[:80]!r} (hpcc-…, of a-z, 0-9 and '-', "
            f"without the word {_FORBIDDEN_WORD!r})",
            reason="container-id",
        )
    return container_id


def container_vmid(container_id: str) -> uuid.UUID:
    """Return the address of a container's Hyper-V sockets. It depends only on the id.

    Raises:
        CallerError: the id is not a guest's. Only in such ids is upper case unambiguous.
    """
    name = check_container_id(container_id).upper().encode("utf-16-le")
    return uuid.uuid5(_HCS_NAMESPACE, name)


def service_guid(port: int) -> uuid.UUID:
    """Return the GUID of a vsock port among the services of Hyper-V sockets.

    Raises:
        CallerError: the port is out of range.
    """
    if not 0 < port <= _MAX_PORT:
        raise CallerError(f"not a vsock port: {port}", reason="port")
    return uuid.UUID(f"{port:08x}-{_SERVICE_TAIL}")


def utility_vm_id(container_id: str) -> str:
    """Return the host's name for the utility VM of a container.

    Raises:
        CallerError: the id is not a guest's.
    """
    return f"{check_container_id(container_id)}@vm"


def check_containerd(version: str) -> None:
    """Refuse a containerd whose shim gives containers no GUID.

    Raises:
        InfrastructureError: it is older than 2.1.1, a candidate of 2.1.1, or not a version.
    """
    match = _VERSION.fullmatch(version)
    numbers = tuple(int(part) for part in match.groups()[:3]) if match else (0,)
    is_candidate = match is not None and bool(match[4])
    if numbers < MINIMUM_CONTAINERD or (numbers == MINIMUM_CONTAINERD and is_candidate):
        least = ".".join(map(str, MINIMUM_CONTAINERD))
        raise InfrastructureError(
            f"containerd is {version[:80]!r}; Windows guests need {least} or newer, whose shim "
            "(hcsshim 0.13.0) gives each container its own address: install a newer release "
            "from https://github.com/containerd/containerd/releases",
            reason="containerd-version",
        )


def check_shim(said: str) -> str:
    """Return the shim's version from its output; "" if the output names none.

    The shim in containerd's releases is built without a number (script/setup/install-runhcs-shim).
    Then containerd's own version counts.

    Raises:
        InfrastructureError: containers have no address in this version.
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
            " gives each container its own address: put the shim of a containerd release"
            " beside containerd.exe",
            reason="shim-version",
        )
    return version


def runhcs_options(*, memory_mib: int, vcpus: int) -> bytes:
    """Encode the shim's options for a guest in a utility VM.

    They are complete, because the shim refuses options without HYPERVISOR beside `windows.hyperv`.
    A guest in process isolation gets none.
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
    """One guest: a container in its own utility VM, or one on the host's own kernel."""

    container_id: str
    memory_mib: int
    vcpus: int
    is_hyperv: bool
    port: int = AGENT_PORT

    def __post_init__(self) -> None:
        """Refuse sizes and ids that the shim would refuse later or silently change."""
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
        """The shim's options, encoded; b"" in process isolation."""
        if not self.is_hyperv:
            return b""
        return runhcs_options(memory_mib=self.memory_mib, vcpus=self.vcpus)

    @property
    def spec(self) -> dict[str, object]:
        """The container as JSON values.

        Its first process is the agent or, in process isolation, one that only waits.
        """
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
        # hcsshim's own tests bind sockets as an even stronger account, the system.
        "user": {"username": "ContainerAdministrator"},
        "terminal": False,
    }


def service_table() -> str:
    """Return who on the host may use the agent's service, as JSON.

    The shim skips entries that it cannot read and only logs that. So the self-test's dial without
    rights decides whether this works.
    """
    entry = {
        "BindSecurityDescriptor": _NOBODY,
        "ConnectSecurityDescriptor": _SYSTEM_AND_ADMINISTRATORS,
        "AllowWildcardBinds": False,
    }
    return json.dumps(entry, separators=(",", ":"))
