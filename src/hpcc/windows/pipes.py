"""Named pipes with deadlines: the server's listener, and both ends of a connection.

Byte pipes with overlapped calls. Every wait ends by a deadline, by the other end or by `cancel`,
and no call is pending when its memory is freed. Sources: Win32 "Named Pipe Operations",
CreateNamedPipeW (what each flag rejects), "Named Pipe Server Using Overlapped I/O", CancelIoEx.
"""

from __future__ import annotations

import contextlib
import struct
import threading
from typing import Final

from hpcc.core import CallerError, InfrastructureError, NotFoundError
from hpcc.windows.library import (
    INVALID_HANDLE,
    Library,
    WindowsError,
    checked,
    memory,
    text,
)
from hpcc.windows.processes import ServerProcess
from hpcc.windows.security import owner_of_pipe, security_attributes
from hpcc.windows.users import client_of_pipe, server_number, server_of_pipe

# PIPE_ACCESS_DUPLEX, FILE_FLAG_OVERLAPPED
_OPEN_MODE: Final = 3 | 0x4000_0000
_FIRST_INSTANCE: Final = 0x0008_0000
_REJECT_REMOTE: Final = 8  # the other bits are zero: bytes, and a wait that overlapped calls lack
_UNLIMITED: Final = 255
_QUEUE_BYTES: Final = 64 << 10
_READ_WRITE: Final = 0xC000_0000
_OPEN_EXISTING: Final = 3
# FILE_FLAG_OVERLAPPED, SECURITY_SQOS_PRESENT, SECURITY_IDENTIFICATION: identity, not rights.
_CLIENT_FLAGS: Final = 0x4000_0000 | 0x0010_0000 | 0x0001_0000
_OVERLAPPED: Final = struct.Struct("<4Q")  # two fields of the system, an offset, an event
_DWORD: Final = struct.Struct("<I")

_FILE_NOT_FOUND: Final = 2
_ACCESS_DENIED: Final = 5
_BROKEN_PIPE: Final = 109
_PIPE_BUSY: Final = 231
_NO_DATA: Final = 232
_NOT_CONNECTED: Final = 233
_PIPE_CONNECTED: Final = 535
_IO_PENDING: Final = 997
_ENDS: Final = frozenset({_BROKEN_PIPE, _NO_DATA, _NOT_CONNECTED})
_WAIT_OBJECT: Final = 0
_INFINITE: Final = 0xFFFF_FFFF
_CHUNK_BYTES: Final = 64 << 10


class PipeConnection:
    """One end of a pipe. One thread reads and closes, one writes; any thread may cancel."""

    def __init__(self, library: Library, handle: int) -> None:
        self._library, self._handle = library, handle
        self._guard = threading.Lock()
        self._reading, self._writing, self._stop = (_event(library) for _ in range(3))

    def receive(self, size: int, wait_ms: int | None) -> bytes:
        """Return some bytes; b"" when the other end has closed. `wait_ms` None: until `cancel`.

        Raises:
            TimeoutError: nothing arrived in time.
            OSError: it was cancelled, or the pipe failed.
        """
        with memory(self._library, bytes(size)) as at:
            moved = self._move("ReadFile", at, size, wait_ms, self._reading)
            return self._library.load(at, moved) if moved else b""

    def send(self, data: bytes, wait_ms: int) -> None:
        """Write all of it. The deadline restarts whenever the other end has read.

        Raises:
            OSError: the other end does not read, or is gone.
        """
        for start in range(0, len(data), _CHUNK_BYTES):
            chunk = data[start : start + _CHUNK_BYTES]
            while chunk:
                with memory(self._library, chunk) as at:
                    moved = self._move("WriteFile", at, len(chunk), wait_ms, self._writing)
                if not moved:
                    raise ConnectionResetError("the peer closed")
                chunk = chunk[moved:]

    def client(self) -> str:
        """Return the client's user. Call it only after something was read.

        Raises:
            WindowsError: the system call failed.
        """
        return client_of_pipe(self._library, self._handle)

    def server(self) -> ServerProcess:
        """Return the process that serves a client's connection; the caller closes it.

        Raises:
            WindowsError: the system call failed.
        """
        return ServerProcess(self._library, server_number(self._library, self._handle))

    def is_gone(self) -> bool:
        """Return whether the other end has closed; does not wait."""
        return not self._library.call("PeekNamedPipe", self._handle, 0, 0, 0, 0, 0).value

    def cancel(self) -> None:
        """End all waits on this connection, now and later."""
        with self._guard:
            if self._handle:
                self._library.call("SetEvent", self._stop)

    def close(self) -> None:
        """Close this end. Sent data can still be read. May be called again."""
        with self._guard:
            handle, self._handle = self._handle, 0
            if handle:
                for one in (handle, self._reading, self._writing, self._stop):
                    self._library.call("CloseHandle", one)

    def _move(self, function: str, at: int, size: int, wait_ms: int | None, event: int) -> int:
        """Read or write once; return 0 at the end of the pipe."""
        library = self._library
        with memory(library, _OVERLAPPED.pack(0, 0, 0, event)) as call:
            library.call("ResetEvent", event)
            begun = library.call(function, self._handle, at, size, 0, call)
            if not begun.value and begun.error != _IO_PENDING:
                return _end(function, begun.error)
            is_there = _wait(library, (event, self._stop), wait_ms) == _WAIT_OBJECT
            if not is_there:
                library.call("CancelIoEx", self._handle, call)
            moved, error = _result(library, self._handle, call)
            if not error:
                return moved
            if not is_there:
                raise TimeoutError("the peer is silent")
            return _end(function, error)


class PipeListener:
    """A pipe's name and its clients. There is always one instance more than clients.

    So the name never becomes free while the listener is open, and no other process can take it.
    """

    def __init__(self, library: Library, name: str, sddl: str, first: int) -> None:
        self._library, self._name, self._sddl = library, name, sddl
        self._lock = threading.Lock()
        self._spare = [first]
        self._stop = _event(library)
        self._is_closed = False

    @classmethod
    def open(cls, library: Library, name: str, sddl: str, owner: str) -> PipeListener:
        """Create the pipe as the first instance, or join a pipe that `owner` (this user) has.

        A daemon that drains still holds its connections' instances, and with them the name. All
        instances have the descriptor of the first.

        Raises:
            CallerError: another user has a pipe of this name (reason `pipe-taken`).
            WindowsError: it cannot be made.
        """
        first = _create_first(library, name, sddl)
        try:
            is_ours = owner_of_pipe(library, first) == owner
        except WindowsError:
            is_ours = False
        if not is_ours:
            library.call("CloseHandle", first)
            raise _taken(name)
        return cls(library, name, sddl, first)

    def accept(self) -> PipeConnection | None:
        """Return the next client; None after `close`.

        Raises:
            WindowsError: no instance can be created; the existing ones stay.
        """
        while True:
            with self._lock:
                if self._is_closed:
                    return None
                handle = self._spare.pop() if self._spare else 0
            handle = handle or _create(self._library, self._name, self._sddl, is_first=False)
            is_connected = False
            try:
                is_connected = self._connect(handle)
            finally:
                if not is_connected:
                    self._library.call("CloseHandle", handle)
            if is_connected:
                self._keep_one()
                return PipeConnection(self._library, handle)

    def close(self) -> None:
        """Accept no further clients. May be called again."""
        with self._lock:
            self._is_closed = True
            spare, self._spare = self._spare, []
        self._library.call("SetEvent", self._stop)
        for handle in spare:
            self._library.call("CloseHandle", handle)

    def _keep_one(self) -> None:
        with self._lock:
            if self._spare or self._is_closed:
                return
            # If there are too many handles, this client is still served.
            with contextlib.suppress(WindowsError):
                self._spare.append(_create(self._library, self._name, self._sddl, is_first=False))

    def _connect(self, handle: int) -> bool:
        """Wait for a client; return False for one that left, or after `close`."""
        library = self._library
        event = _event(library)
        try:
            with memory(library, _OVERLAPPED.pack(0, 0, 0, event)) as call:
                begun = library.call("ConnectNamedPipe", handle, call)
                if begun.error == _PIPE_CONNECTED:
                    return True
                if begun.error != _IO_PENDING:
                    return bool(begun.value)
                if _wait(library, (event, self._stop), None) != _WAIT_OBJECT:
                    library.call("CancelIoEx", handle, call)
                return not _result(library, handle, call)[1]
        finally:
            library.call("CloseHandle", event)


def dial_pipe(library: Library, name: str, owner: str, wait_ms: int) -> PipeConnection:
    """Connect to a pipe whose creator and server are `owner`.

    Raises:
        NotFoundError: there is no such pipe (reason `no-daemon`).
        CallerError: it belongs to another user (reason `foreign-daemon`).
        InfrastructureError: all its instances are busy (reason `daemon-busy`), or it cannot be
            opened.
    """
    with memory(library, text(name)) as at:
        while True:
            answer = library.call(
                "CreateFileW", at, _READ_WRITE, 0, 0, _OPEN_EXISTING, _CLIENT_FLAGS, 0
            )
            if answer.value != INVALID_HANDLE:
                break
            if answer.error == _FILE_NOT_FOUND:
                raise NotFoundError("no daemon is running", reason="no-daemon")
            if answer.error != _PIPE_BUSY:
                raise WindowsError("CreateFileW", answer.error)
            # It waits only once: another client may be first, and then the pipe is busy.
            if not wait_ms or not library.call("WaitNamedPipeW", at, wait_ms).value:
                raise InfrastructureError(
                    "the daemon is busy, or ends after the compiles under way",
                    reason="daemon-busy",
                )
            wait_ms = 0
    try:
        is_ours = owner == owner_of_pipe(library, answer.value)
        is_ours = is_ours and owner == server_of_pipe(library, answer.value)
    except WindowsError:
        is_ours = False
    if is_ours:
        return PipeConnection(library, answer.value)
    library.call("CloseHandle", answer.value)
    raise CallerError(f"{name} was made by another user", reason="foreign-daemon")


def _create(library: Library, name: str, sddl: str, *, is_first: bool) -> int:
    """Create one instance. Neither the descriptor nor the handle is inherited."""
    with security_attributes(library, sddl) as security, memory(library, text(name)) as at:
        answer = library.call(
            "CreateNamedPipeW", at, _OPEN_MODE | (_FIRST_INSTANCE if is_first else 0),
            _REJECT_REMOTE, _UNLIMITED, _QUEUE_BYTES, _QUEUE_BYTES, 0, security,
        )  # fmt: skip
    if answer.value == INVALID_HANDLE:
        raise WindowsError("CreateNamedPipeW", answer.error)
    return answer.value


def _create_first(library: Library, name: str, sddl: str) -> int:
    """Create the first instance, or a further one of an existing pipe that allows it."""
    try:
        return _create(library, name, sddl, is_first=True)
    except WindowsError as error:
        if error.code not in {_ACCESS_DENIED, _PIPE_BUSY}:
            raise
    try:
        return _create(library, name, sddl, is_first=False)
    except WindowsError as error:
        raise _taken(name) from error


def _taken(name: str) -> CallerError:
    return CallerError(
        f"another user's program has taken the name {name}; end it, or sign in again",
        reason="pipe-taken",
    )


def _event(library: Library) -> int:
    return checked(library, "CreateEventW", 0, 1, 0, 0)  # reset by hand, not set, no name


def _wait(library: Library, handles: tuple[int, ...], wait_ms: int | None) -> int:
    wait = _INFINITE if wait_ms is None else min(max(wait_ms, 0), _INFINITE - 1)
    with memory(library, struct.pack(f"<{len(handles)}Q", *handles)) as at:
        return library.call("WaitForMultipleObjects", len(handles), at, 0, wait).value


def _result(library: Library, handle: int, call: int) -> tuple[int, int]:
    """Wait until the call ends, cancelled or not; return the bytes it moved, and its error or 0."""
    with memory(library, bytes(_DWORD.size)) as at:
        done = library.call("GetOverlappedResult", handle, call, at, 1)
        moved = int(_DWORD.unpack(library.load(at, _DWORD.size))[0])
    return moved, 0 if done.value else done.error


def _end(function: str, error: int) -> int:
    """Return 0 for the end of a pipe being read.

    Raises:
        OSError: anything else.
    """
    if function == "ReadFile" and error in _ENDS:
        return 0
    raise ConnectionResetError(f"{function} failed with Windows error {error}")
