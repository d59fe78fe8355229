"""Calls Windows' libraries by name, and accesses the memory that they read and write.

All values are numbers, as in a register: handles, addresses, DWORDs. Callers pack structures
themselves, so the bytes are the same whether ctypes makes the call or, in tests, a program under
Wine. Source of each call: Microsoft, Win32 API reference.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, Protocol

from hpcc.core import InfrastructureError

_LIBRARIES: Final = ("kernel32.dll", "advapi32.dll")
# These return a pointer or a handle. All others return 32 bits, and the upper bits are undefined.
_WIDE: Final = frozenset(
    {
        "CreateEventW", "CreateFileW", "CreateNamedPipeW", "LocalFree", "OpenProcess",
        "OpenSCManagerW", "OpenServiceW", "CreateServiceW",
    }
)  # fmt: skip
_LOW: Final = 0xFFFF_FFFF
# HANDLE pseudo-values, and what CreateFileW and CreateNamedPipeW return on failure.
INVALID_HANDLE: Final = (1 << 64) - 1
CURRENT_PROCESS: Final = (1 << 64) - 1
CURRENT_THREAD: Final = (1 << 64) - 2
_POINTER: Final = struct.Struct("<Q")
_MAX_TEXT_UNITS: Final = 32768


class WindowsError(InfrastructureError):
    """A call failed; `code` is the system's number for it."""

    default_reason = "windows-call"

    def __init__(self, function: str, code: int) -> None:
        super().__init__(f"{function} failed with Windows error {code}")
        self.function, self.code = function, code


def narrowed(function: str, value: int) -> int:
    """Return the bits of the register that are the function's result."""
    return value if function in _WIDE else value & _LOW


class CallResult(NamedTuple):
    """What a call returned, and the thread's last error right after it."""

    value: int
    error: int


class Library(Protocol):
    """The system's calls and this process's memory. Safe for calls from several threads."""

    def call(self, function: str, *arguments: int) -> CallResult:
        """Call one function of kernel32 or advapi32 on this thread; may block."""
        ...

    def allocate(self, data: bytes) -> int:
        """Return the address of a copy of `data`; it stays valid until `free`."""
        ...

    def load(self, address: int, size: int) -> bytes:
        """Return `size` bytes of memory from the system or from `allocate`."""
        ...

    def free(self, address: int) -> None:
        """Free what `allocate` returned."""
        ...


class _System:
    """`Library` over ctypes."""

    def __init__(self, windll: Callable[..., Any], last_error: Callable[[], int]) -> None:
        self._libraries = [windll(name, use_last_error=True) for name in _LIBRARIES]
        self._last_error = last_error
        self._functions: dict[str, Any] = {}
        self._buffers: dict[int, Any] = {}
        self._lock = threading.Lock()

    def call(self, function: str, *arguments: int) -> CallResult:
        value = self._function(function)(*map(ctypes.c_size_t, arguments))
        return CallResult(narrowed(function, value), self._last_error())

    def _function(self, name: str) -> Any:  # noqa: ANN401 - ctypes has no public type for one
        found = self._functions.get(name)
        if found is None:
            owner = next(lib for lib in self._libraries if hasattr(lib, name))
            # Not by attribute: that object is shared with all code that sets its types.
            found = owner[name]
            found.restype = ctypes.c_size_t
            self._functions[name] = found
        return found

    def allocate(self, data: bytes) -> int:
        buffer = ctypes.create_string_buffer(data, max(len(data), 1))
        address = ctypes.addressof(buffer)
        with self._lock:
            self._buffers[address] = buffer
        return address

    def load(self, address: int, size: int) -> bytes:
        return ctypes.string_at(address, size)

    def free(self, address: int) -> None:
        with self._lock:
            del self._buffers[address]


def load_library() -> Library:
    """Return the library of this system.

    Raises:
        InfrastructureError: this is not Windows (reason `not-windows`).
    """
    if os.name != "nt":
        raise InfrastructureError("this works only on Windows", reason="not-windows")
    calls = vars(ctypes)
    return _System(calls["WinDLL"], calls["get_last_error"])


# ---- what all callers need ----


@contextmanager
def memory(library: Library, data: bytes) -> Iterator[int]:
    """Yield the address of a copy of `data`, valid inside the block."""
    address = library.allocate(data)
    try:
        yield address
    finally:
        library.free(address)


def text(value: str) -> bytes:
    """Return a text as the system expects it: UTF-16 with a final zero.

    Raises:
        ValueError: it contains a zero, where the system would stop reading.
    """
    if "\0" in value:
        raise ValueError("a text for Windows holds a zero")
    return value.encode("utf-16-le", "surrogatepass") + b"\0\0"


def load_text(library: Library, address: int) -> str:
    """Return a text that the system wrote, up to its zero."""
    units = library.call("lstrlenW", address).value
    if units > _MAX_TEXT_UNITS:
        raise WindowsError("lstrlenW", 0)
    return library.load(address, units * 2).decode("utf-16-le", "surrogatepass")


def load_pointer(library: Library, address: int) -> int:
    """Return the handle or address stored at `address`."""
    return int(_POINTER.unpack(library.load(address, _POINTER.size))[0])


def checked(library: Library, function: str, *arguments: int) -> int:
    """Return the result of a call that returns zero on failure.

    Raises:
        WindowsError: it failed.
    """
    answer = library.call(function, *arguments)
    if not answer.value:
        raise WindowsError(function, answer.error)
    return answer.value
