"""Named pipes that a shim opens: the standard streams of a process in a container.

Calls block, each in its own thread, and another thread can interrupt them. Only the system and
administrators may open such a pipe: containerd and its shims. Sources: Win32, CreateNamedPipeW,
ConnectNamedPipe, CancelIoEx. Not yet run on Windows.
"""

# ruff: noqa: N802 - names and arguments of the library
from __future__ import annotations

import ctypes
import os
import struct
import threading
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol, cast

from hpcc.core import InfrastructureError
from hpcc.runtime.containerd.exec_channel import NewStreams, Streams
from hpcc.runtime.windows.pipe_streams import pipe_streams
from hpcc.runtime.windows.process import pipe_names

# System and administrators. Clients over the network are rejected (_REJECT_REMOTE).
_SDDL: Final = "D:P(A;;FA;;;SY)(A;;FA;;;BA)"
_SDDL_REVISION: Final = 1
# Size, descriptor, whether the handle is inherited; 64 bits.
_SECURITY_ATTRIBUTES: Final = struct.Struct("<I4xQi4x")
# PIPE_ACCESS_DUPLEX, FILE_FLAG_FIRST_PIPE_INSTANCE: a name that is taken is refused.
_OPEN_MODE: Final = 3 | 0x0008_0000
_REJECT_REMOTE: Final = 8  # the rest is zero: a byte stream, blocking calls
_BUFFER_BYTES: Final = 64 << 10
_INVALID: Final = ctypes.c_void_p(-1).value
_PIPE_CONNECTED: Final = 535
_ENDS: Final = frozenset({109, 232, 233})  # broken, no more data, not connected


class PipeCalls(Protocol):
    """The functions used from kernel32.dll and advapi32.dll. Handles and addresses are ints."""

    def CreateNamedPipeW(
        self, name: str, open_mode: int, pipe_mode: int, most: int, out: int, into: int,
        wait_ms: int, security: object, /,
    ) -> int | None: ...  # fmt: skip
    def ConnectNamedPipe(self, pipe: int, overlapped: None, /) -> int: ...
    def ReadFile(
        self, pipe: int, buffer: object, size: int, moved: object, overlapped: None, /
    ) -> int: ...
    def WriteFile(
        self, pipe: int, data: bytes, size: int, moved: object, overlapped: None, /
    ) -> int: ...
    def CancelIoEx(self, pipe: int, overlapped: None, /) -> int: ...
    def CloseHandle(self, pipe: int, /) -> int: ...
    def ConvertStringSecurityDescriptorToSecurityDescriptorW(
        self, sddl: str, revision: int, out: object, size: None, /
    ) -> int: ...
    def LocalFree(self, memory: int, /) -> int | None: ...
    def last_error(self) -> int: ...


class _Libraries:
    """The real libraries, with the types that ctypes cannot know."""

    def __init__(self) -> None:
        windll = cast("Any", vars(ctypes)["WinDLL"])
        kernel, advapi = (windll(f"{n}.dll", use_last_error=True) for n in ("kernel32", "advapi32"))
        handle, text, number = ctypes.c_void_p, ctypes.c_wchar_p, ctypes.c_uint32
        count = ctypes.POINTER(number)
        signatures: dict[str, tuple[Any, tuple[Any, ...]]] = {
            "CreateNamedPipeW": (handle, (text, *[number] * 6, handle)),
            "ConnectNamedPipe": (ctypes.c_int, (handle, handle)),
            "ReadFile": (ctypes.c_int, (handle, handle, number, count, handle)),
            "WriteFile": (ctypes.c_int, (handle, ctypes.c_char_p, number, count, handle)),
            "CancelIoEx": (ctypes.c_int, (handle, handle)),
            "CloseHandle": (ctypes.c_int, (handle,)),
            "LocalFree": (handle, (handle,)),
            "ConvertStringSecurityDescriptorToSecurityDescriptorW": (
                ctypes.c_int, (text, number, ctypes.POINTER(handle), handle),
            ),
        }  # fmt: skip
        for name, (restype, argtypes) in signatures.items():
            function = getattr(advapi if name.startswith("Convert") else kernel, name)
            function.restype, function.argtypes = restype, argtypes
            setattr(self, name, function)
        self.last_error = cast("Any", vars(ctypes)["get_last_error"])


def load_pipe_calls() -> PipeCalls:
    """Return the system's libraries.

    Raises:
        InfrastructureError: this is not Windows.
    """
    if os.name != "nt":
        raise InfrastructureError("no named pipes here: not Windows", reason="not-windows")
    return cast("PipeCalls", _Libraries())


class WindowsAcceptor:
    """A pipe that waits for a client; see `hpcc.runtime.windows.pipe_streams.PipeAcceptor`.

    Raises:
        OSError: it cannot be created, or a pipe of this name exists.
    """

    def __init__(self, calls: PipeCalls, name: str) -> None:
        self._calls = calls
        self._lock = threading.Lock()
        self._is_closed = False
        self._handle = self._make(name)

    def _make(self, name: str) -> int:
        descriptor = ctypes.c_void_p()
        convert = self._calls.ConvertStringSecurityDescriptorToSecurityDescriptorW
        if not convert(_SDDL, _SDDL_REVISION, ctypes.byref(descriptor), None):
            raise _error(self._calls, "the pipe's descriptor")
        try:
            size = _SECURITY_ATTRIBUTES.size
            packed = _SECURITY_ATTRIBUTES.pack(size, descriptor.value or 0, 0)
            attributes = ctypes.create_string_buffer(packed, size)
            handle = self._calls.CreateNamedPipeW(
                name, _OPEN_MODE, _REJECT_REMOTE, 1, _BUFFER_BYTES, _BUFFER_BYTES, 0,
                attributes,
            )  # fmt: skip
        finally:
            if descriptor.value:
                self._calls.LocalFree(descriptor.value)
        if handle is None or handle == _INVALID:
            raise _error(self._calls, "CreateNamedPipeW")
        return handle

    def accept(self) -> WindowsEnd | None:
        """Wait for a client; None after `close`. Call it once, from one thread."""
        is_open = bool(self._calls.ConnectNamedPipe(self._handle, None))
        # A client may have connected between the two calls.
        is_open = is_open or self._calls.last_error() == _PIPE_CONNECTED
        with self._lock:
            handle, self._handle = self._handle, 0
            if is_open and not self._is_closed:
                return WindowsEnd(self._calls, handle)
            self._is_closed = True
        self._calls.CloseHandle(handle)
        return None

    def close(self) -> None:
        """Interrupt `accept`, which then closes the pipe; idempotent."""
        with self._lock:
            self._is_closed = True
            if self._handle:
                self._calls.CancelIoEx(self._handle, None)


class WindowsEnd:
    """Our end of a pipe, see `hpcc.runtime.windows.pipe_streams.PipeEnd`; one thread uses it."""

    def __init__(self, calls: PipeCalls, handle: int) -> None:
        self._calls, self._handle = calls, handle
        self._lock = threading.Lock()
        self._cancelled = threading.Event()

    def receive(self, size: int, wait_ms: int | None) -> bytes:
        """Read up to `size` bytes; b"" when the other end has closed or after `cancel`.

        Raises:
            OSError: the read failed.
        """
        assert wait_ms is None
        buffer, moved = ctypes.create_string_buffer(size), ctypes.c_uint32()
        if self._cancelled.is_set():
            return b""
        if self._calls.ReadFile(self._handle, buffer, size, ctypes.byref(moved), None):
            return buffer.raw[: moved.value]
        if self._cancelled.is_set() or self._calls.last_error() in _ENDS:
            return b""
        raise _error(self._calls, "ReadFile")

    def send(self, data: bytes, wait_ms: int) -> None:
        """Write all bytes; waits as long as the other end does not read, until `cancel`.

        Raises:
            OSError: the other end has closed, or `cancel` was called.
        """
        assert wait_ms
        while data:
            moved = ctypes.c_uint32()
            if self._cancelled.is_set() or not self._calls.WriteFile(
                self._handle, data, len(data), ctypes.byref(moved), None
            ):
                raise _error(self._calls, "WriteFile")
            data = data[moved.value :]

    def cancel(self) -> None:
        """Interrupt a waiting call and all later ones; from any thread, idempotent."""
        with self._lock:
            self._cancelled.set()
            if self._handle:
                self._calls.CancelIoEx(self._handle, None)

    def close(self) -> None:
        """Close the pipe. The other end can still read what was written. Idempotent."""
        with self._lock:
            handle, self._handle = self._handle, 0
        if handle:
            self._calls.CloseHandle(handle)


def _error(calls: PipeCalls, what: str) -> OSError:
    return OSError(f"{what}: Windows error {calls.last_error()}")


def windows_streams(calls: PipeCalls) -> NewStreams:
    """Return a factory for the streams of each process that starts in a container."""

    def new() -> AbstractAsyncContextManager[Streams]:
        return pipe_streams(pipe_names(), lambda name: WindowsAcceptor(calls, name))

    return new
