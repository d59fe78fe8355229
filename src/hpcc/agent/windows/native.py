"""Win32 calls of the agent by ctypes: the machine's memory, and directories with set rights.

Sources: Win32 documentation of GlobalMemoryStatusEx, CreateDirectoryW and
ConvertStringSecurityDescriptorToSecurityDescriptorW.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Final

# The owner is the administrators' group, with full access, as has the system; an owner by name
# could change the rights. In the first, everyone, which includes a program with a restricted token,
# may read, write and delete.
SHARED_SDDL: Final = "O:BAD:P(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)(A;OICI;0x1301bf;;;WD)"
PRIVATE_SDDL: Final = "O:BAD:P(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)"
_SDDL_REVISION: Final = 1


class _SecurityAttributes(ctypes.Structure):
    """SECURITY_ATTRIBUTES."""

    _fields_ = [  # type: ignore[mutable-override]  # the way of ctypes
        ("length", ctypes.c_uint32), ("descriptor", ctypes.c_void_p), ("inherit", ctypes.c_int),
    ]  # fmt: skip


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX."""

    _fields_ = [  # type: ignore[mutable-override]  # the way of ctypes
        ("length", ctypes.c_uint32), ("load", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in (
            "total", "available", "total_page", "available_page", "total_virtual",
            "available_virtual", "available_extended",
        )),
    ]  # fmt: skip


def _library(name: str) -> Any:  # noqa: ANN401 - ctypes has WinDLL only on Windows
    loader: Any = vars(ctypes)["WinDLL"]
    return loader(name, use_last_error=True)


def _last_error(what: str) -> OSError:
    names: dict[str, Any] = vars(ctypes)
    error: OSError = names["WinError"](names["get_last_error"]())
    error.filename = what
    return error


def memory_bytes() -> int:
    """Return the memory of this machine in bytes.

    Raises:
        OSError: Windows reports an error.
    """
    status = _MemoryStatus()
    status.length = ctypes.sizeof(status)
    if not _library("kernel32").GlobalMemoryStatusEx(ctypes.byref(status)):
        raise _last_error("memory")
    return int(status.total)


def make_shared_directory(path: str) -> None:
    """Make a directory that a program without rights may write to, regardless of its parents.

    Raises:
        OSError: it exists already, or cannot be made.
    """
    _make_directory(path, SHARED_SDDL)


def make_private_directory(path: str) -> None:
    """Make a directory that a program without rights cannot enter.

    Raises:
        OSError: it exists already, or cannot be made.
    """
    _make_directory(path, PRIVATE_SDDL)


def _make_directory(path: str, sddl: str) -> None:
    if os.name != "nt":
        raise OSError("not Windows")
    kernel, advapi = _library("kernel32"), _library("advapi32")
    descriptor = ctypes.c_void_p()
    convert = advapi.ConvertStringSecurityDescriptorToSecurityDescriptorW
    if not convert(sddl, _SDDL_REVISION, ctypes.byref(descriptor), None):
        raise _last_error(path)
    attributes = _SecurityAttributes(ctypes.sizeof(_SecurityAttributes), descriptor, 0)
    try:
        if not kernel.CreateDirectoryW(ctypes.c_wchar_p(path), ctypes.byref(attributes)):
            raise _last_error(path)
    finally:
        kernel.LocalFree.argtypes = [ctypes.c_void_p]
        kernel.LocalFree(descriptor)
