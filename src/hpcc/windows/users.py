"""The users of this process, and of a pipe's server and client, as SIDs in text.

Sources: Win32 "Access Tokens", "Impersonation" and ImpersonateNamedPipeClient. A client is known
only after something from it was read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from hpcc.windows.library import (
    CURRENT_PROCESS,
    CURRENT_THREAD,
    Library,
    checked,
    load_pointer,
    memory,
)
from hpcc.windows.security import sid_text

_TOKEN_QUERY: Final = 8
_TOKEN_USER: Final = 1
_TOKEN_ELEVATION: Final = 20
# TOKEN_ELEVATION_TYPE: Default, Full, Limited, from 1 on.
_TOKEN_ELEVATION_TYPE: Final = 18
_ELEVATION_FULL: Final = 2
_QUERY_LIMITED: Final = 0x1000
# A SID has at most 68 bytes, and the structure before it 16.
_USER_BYTES: Final = 256


def own_sid(library: Library) -> str:
    """Return the SID of the user that this process runs as.

    Raises:
        WindowsError: the system call failed.
    """
    return _user_of_process(library, CURRENT_PROCESS)


def is_elevated(library: Library) -> bool:
    """Return whether this process has its user's full rights.

    Raises:
        WindowsError: the system call failed.
    """
    return any(_told_of_us(library, _TOKEN_ELEVATION))


def is_raised(library: Library) -> bool:
    """Return whether UAC raised this process, so that its user's other processes have fewer rights.

    False where all processes of an administrator have full rights.

    Raises:
        WindowsError: the system call failed.
    """
    return _told_of_us(library, _TOKEN_ELEVATION_TYPE)[0] == _ELEVATION_FULL


def _told_of_us(library: Library, kind: int) -> bytes:
    with _out(library) as at:
        checked(library, "OpenProcessToken", CURRENT_PROCESS, _TOKEN_QUERY, at)
        token = load_pointer(library, at)
    try:
        return _token_information(library, token, kind, 4)
    finally:
        library.call("CloseHandle", token)


def server_of_pipe(library: Library, pipe: int) -> str:
    """Return the user of the process that serves a pipe. `pipe` is the client's end.

    Raises:
        WindowsError: the system call failed.
    """
    process = checked(library, "OpenProcess", _QUERY_LIMITED, 0, server_number(library, pipe))
    try:
        return _user_of_process(library, process)
    finally:
        library.call("CloseHandle", process)


def server_number(library: Library, pipe: int) -> int:
    """Return the process number of the server of a pipe. `pipe` is the client's end.

    Raises:
        WindowsError: the system call failed.
    """
    with _out(library) as at:
        checked(library, "GetNamedPipeServerProcessId", pipe, at)
        return load_pointer(library, at) & 0xFFFF_FFFF


def client_of_pipe(library: Library, pipe: int) -> str:
    """Return the user of a pipe's client, after something from it was read.

    Reads the client's token and not its process, whose number may have been reused.

    Raises:
        WindowsError: the system call failed.
    """
    checked(library, "ImpersonateNamedPipeClient", pipe)
    try:
        with _out(library) as at:
            # With this process's own rights: the client's rights do not matter.
            checked(library, "OpenThreadToken", CURRENT_THREAD, _TOKEN_QUERY, 1, at)
            token = load_pointer(library, at)
    finally:
        if not library.call("RevertToSelf").value:
            os.abort()  # "your application ... should shut down the process", says Microsoft
    return _user_of_token(library, token)


def _user_of_process(library: Library, process: int) -> str:
    with _out(library) as at:
        checked(library, "OpenProcessToken", process, _TOKEN_QUERY, at)
        token = load_pointer(library, at)
    return _user_of_token(library, token)


def _user_of_token(library: Library, token: int) -> str:
    """Return the token's user, and close the token."""
    try:
        with memory(library, bytes(_USER_BYTES)) as at:
            _fill(library, token, _TOKEN_USER, at, _USER_BYTES)
            return sid_text(library, load_pointer(library, at))
    finally:
        library.call("CloseHandle", token)


def _token_information(library: Library, token: int, kind: int, size: int) -> bytes:
    with memory(library, bytes(size)) as at:
        _fill(library, token, kind, at, size)
        return library.load(at, size)


def _fill(library: Library, token: int, kind: int, at: int, size: int) -> None:
    with _out(library) as needed:
        checked(library, "GetTokenInformation", token, kind, at, size, needed)


@contextmanager
def _out(library: Library) -> Iterator[int]:
    """Yield the address of room for one pointer that a call fills in."""
    with memory(library, bytes(8)) as address:
        yield address
