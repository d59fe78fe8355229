"""The Host Compute Service: what the host knows about utility VMs. Not yet run on Windows.

It uses computecore.dll, Windows Server 2019 and later. VMs are only listed, and ended if their shim
is gone. No handle stays open, because it would keep a VM alive after its shim. Sources: Microsoft,
Virtualization-Documentation, `virtualization/api/hcs/Reference`; hcsshim `computecore.go` for the
rule that a call is never abandoned midway. The service's answers are bounded and checked.
"""

# ruff: noqa: N802 - names of the library
from __future__ import annotations

import ctypes
import json
import os
import re
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from hpcc.core import InfrastructureError, IntegrityError
from hpcc.runtime.host.threads import in_thread
from hpcc.runtime.windows.spec import SHIM_OWNER, check_container_id, utility_vm_id

_VIRTUAL_MACHINE: Final = "VirtualMachine"
_GENERIC_ALL: Final = 0x1000_0000
_WAIT_MS: Final = 30_000
# A host has a few hundred systems at most, each a few hundred characters.
MAX_ANSWER_CHARS: Final = 4 << 20
MAX_SYSTEMS: Final = 4096
_MAX_FIELD_CHARS: Final = 1024
_OURS: Final = re.compile(r"(hpcc-[a-z0-9-]{1,60})@vm")
# One code in the service's two forms: an HRESULT, and an NTSTATUS in an HRESULT.
_NOT_FOUND: Final = frozenset({0x8037010E, 0xC037010E})
_ALREADY_STOPPED: Final = frozenset({0x80370110, 0xC0370110})
_ACCESS_DENIED: Final = 0x80070005
_RIGHTS: Final = "the worker's account must be in Administrators or Hyper-V Administrators"


class HcsError(InfrastructureError):
    """The service refused or failed; `code` is its HRESULT, unsigned, or 0."""

    default_reason = "hcs"

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class ComputeCore(Protocol):
    """The functions used from computecore.dll, and LocalFree. HRESULTs are signed, handles ints."""

    def HcsCreateOperation(self, context: None, callback: None, /) -> int | None: ...
    def HcsCloseOperation(self, operation: int, /) -> None: ...
    def HcsWaitForOperationResult(
        self, operation: int, milliseconds: int, out: object, /
    ) -> int: ...
    def HcsEnumerateComputeSystems(self, query: str, operation: int, /) -> int: ...
    def HcsOpenComputeSystem(self, name: str, access: int, out: object, /) -> int: ...
    def HcsGetComputeSystemProperties(
        self, system: int, operation: int, query: str | None, /
    ) -> int: ...
    def HcsTerminateComputeSystem(self, system: int, operation: int, options: None, /) -> int: ...
    def HcsCloseComputeSystem(self, system: int, /) -> None: ...
    def LocalFree(self, memory: int, /) -> None: ...


class _Libraries:
    """The real libraries, with the types that ctypes cannot know."""

    def __init__(self) -> None:
        windll = cast("Callable[[str], Any]", vars(ctypes)["WinDLL"])
        core, kernel = windll("computecore.dll"), windll("kernel32.dll")
        handle, text, number = ctypes.c_void_p, ctypes.c_wchar_p, ctypes.c_uint32
        result = ctypes.c_long
        signatures: dict[str, tuple[Any, tuple[Any, ...]]] = {
            "HcsCreateOperation": (handle, (handle, handle)),
            "HcsCloseOperation": (None, (handle,)),
            "HcsWaitForOperationResult": (result, (handle, number, ctypes.POINTER(handle))),
            "HcsEnumerateComputeSystems": (result, (text, handle)),
            "HcsOpenComputeSystem": (result, (text, number, ctypes.POINTER(handle))),
            "HcsGetComputeSystemProperties": (result, (handle, handle, text)),
            "HcsTerminateComputeSystem": (result, (handle, handle, text)),
            "HcsCloseComputeSystem": (None, (handle,)),
            "LocalFree": (handle, (handle,)),
        }
        for name, (restype, argtypes) in signatures.items():
            function = getattr(kernel if name == "LocalFree" else core, name)
            function.restype, function.argtypes = restype, argtypes
            setattr(self, name, function)


def load_computecore() -> ComputeCore:
    """Return the system's library.

    Raises:
        HcsError: this is not Windows, or the Containers feature is not installed.
    """
    if os.name != "nt":
        raise HcsError("no Host Compute Service here: not Windows")
    try:
        return cast("ComputeCore", _Libraries())
    except (OSError, AttributeError) as error:
        raise HcsError(
            f"computecore.dll cannot be loaded ({error}): install the Containers feature"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeSystem:
    """One entry of the host's list; `runtime_id` is None for a container."""

    system_id: str
    kind: str
    owner: str
    state: str
    runtime_id: uuid.UUID | None


def parse_systems(text: str) -> list[ComputeSystem]:
    """Decode the answer to an enumeration.

    Raises:
        IntegrityError: it is too large or malformed.
    """
    if len(text) > MAX_ANSWER_CHARS:
        raise _bad("too long")
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad("no JSON") from error
    if not isinstance(entries, list) or len(entries) > MAX_SYSTEMS:
        raise _bad("not a list, or too long")
    systems = [_system(entry) for entry in entries]
    if len({s.system_id for s in systems}) != len(systems):
        raise _bad("two systems of one id")
    return systems


def _system(entry: object) -> ComputeSystem:
    if not isinstance(entry, dict):
        raise _bad("an entry that is not an object")
    raw = _field(entry, "RuntimeId")
    try:
        runtime_id = uuid.UUID(raw) if raw else None
    except ValueError as error:
        raise _bad("a RuntimeId that is not a GUID") from error
    name = _field(entry, "Id")
    if not name:
        raise _bad("a system without an id")
    return ComputeSystem(
        system_id=name,
        kind=_field(entry, "SystemType"),
        owner=_field(entry, "Owner"),
        state=_field(entry, "State"),
        runtime_id=runtime_id,
    )


def _field(entry: dict[str, object], name: str) -> str:
    value = entry.get(name, "")
    if not isinstance(value, str) or len(value) > _MAX_FIELD_CHARS:
        raise _bad(f"a {name} that is not a short text")
    return value


def _bad(what: str) -> IntegrityError:
    return IntegrityError(f"the list of compute systems is wrong: {what}", reason="hcs-answer")


def _query(container_id: str) -> str:
    return json.dumps({"Ids": [utility_vm_id(container_id)], "Types": [_VIRTUAL_MACHINE]})


def find_utility_vm(systems: Sequence[ComputeSystem], container_id: str) -> uuid.UUID:
    """Return the address of the utility VM that the shim made for a container.

    Raises:
        HcsError: there is no such VM.
        IntegrityError: the system of this id is not a VM, or not the shim's.
    """
    wanted = utility_vm_id(container_id)
    found = [s for s in systems if s.system_id.lower() == wanted]
    if not found:
        raise HcsError(f"the host has no system {wanted}")
    if len(found) > 1 or found[0].kind != _VIRTUAL_MACHINE or found[0].owner != SHIM_OWNER:
        raise IntegrityError(f"{wanted} is not one utility VM of the shim's", reason="hcs-answer")
    if found[0].runtime_id is None:
        raise _bad("a utility VM without RuntimeId")
    return found[0].runtime_id


def orphans(systems: Sequence[ComputeSystem], containers: Collection[str]) -> list[str]:
    """Return the ids of containers whose utility VM outlived them.

    A VM counts only if its name is hpcc's and its owner the shim. `containers` are all that
    containerd still has. Other VMs are never returned.
    """
    return [
        match[1]
        for s in systems
        if s.kind == _VIRTUAL_MACHINE
        and s.owner == SHIM_OWNER
        and (match := _OURS.fullmatch(s.system_id)) is not None
        and match[1] not in containers
    ]


class ComputeService:
    """The service's calls, each in a thread that is waited for even after a cancel."""

    def __init__(self, core: ComputeCore) -> None:
        self._core = core

    async def systems(self) -> list[ComputeSystem]:
        """Return every compute system of the host.

        Raises:
            HcsError: the service refused or failed.
            IntegrityError: its answer is malformed.
        """
        return await in_thread(lambda: self._systems("{}"))

    async def utility_vm(self, container_id: str) -> uuid.UUID:
        """Return the address of a container's utility VM; see `find_utility_vm`."""
        query = _query(container_id)
        found = await in_thread(lambda: self._systems(query))
        return find_utility_vm(found, container_id)

    async def properties(self, container_id: str) -> str:
        """Return the service's description of a utility VM, as unchecked JSON text.

        Raises:
            HcsError: there is no such VM, or the service failed.
        """
        return await in_thread(lambda: self._properties(utility_vm_id(container_id)))

    async def terminate(self, container_id: str) -> bool:
        """End a utility VM whose shim is gone; False if it had already ended.

        Raises:
            HcsError: the service refused or failed.
        """
        check_container_id(container_id)
        return await in_thread(lambda: self._terminate(utility_vm_id(container_id)))

    def _systems(self, query: str) -> list[ComputeSystem]:
        with self._operation() as operation:
            _check("enumerate", self._core.HcsEnumerateComputeSystems(query, operation))
            return parse_systems(self._result("enumerate", operation))

    def _properties(self, name: str) -> str:
        with self._system(name) as system, self._operation() as operation:
            code = self._core.HcsGetComputeSystemProperties(system, operation, None)
            _check("properties", code)
            return self._result("properties", operation)

    def _terminate(self, name: str) -> bool:
        try:
            with self._system(name) as system, self._operation() as operation:
                _check("end", self._core.HcsTerminateComputeSystem(system, operation, None))
                self._result("end", operation)
        except HcsError as error:
            if error.code in _NOT_FOUND | _ALREADY_STOPPED:
                return False
            raise
        return True

    @contextmanager
    def _operation(self) -> Iterator[int]:
        operation = self._core.HcsCreateOperation(None, None)
        if not operation:
            raise HcsError("the Host Compute Service created no operation")
        try:
            yield operation
        finally:
            self._core.HcsCloseOperation(operation)

    @contextmanager
    def _system(self, name: str) -> Iterator[int]:
        out = ctypes.c_void_p()
        code = self._core.HcsOpenComputeSystem(name, _GENERIC_ALL, ctypes.byref(out))
        _check("open", code)
        if not out.value:
            raise HcsError("the Host Compute Service gave no handle")
        try:
            yield out.value
        finally:
            self._core.HcsCloseComputeSystem(out.value)

    def _result(self, what: str, operation: int) -> str:
        """Wait for an operation. Its document is freed even if it reports a failure."""
        out = ctypes.c_void_p()
        wait = self._core.HcsWaitForOperationResult
        code = wait(operation, _WAIT_MS, ctypes.byref(out))
        try:
            _check(what, code)
            return ctypes.wstring_at(out.value) if out.value else ""
        finally:
            if out.value:
                self._core.LocalFree(out.value)


def _check(what: str, code: int) -> None:
    """Raise for a negative HRESULT."""
    if code >= 0:
        return
    unsigned = code & 0xFFFF_FFFF
    hint = f": {_RIGHTS}" if unsigned == _ACCESS_DENIED else ""
    raise HcsError(f"the Host Compute Service, {what}: 0x{unsigned:08x}{hint}", unsigned)
