"""Opens and locks files as POSIX does: renamed while open, no links followed, private to the owner.

Sources: Win32 CreateFileW, LockFileEx, GetSecurityInfo and ACCESS_ALLOWED_ACE.
"""

from __future__ import annotations

import struct
from contextlib import nullcontext
from typing import Final

from hpcc.windows.files import INFORMATION, OPEN_REPARSE_POINT, REPARSE_POINT, SHARE_ALL
from hpcc.windows.library import INVALID_HANDLE, Library, WindowsError, checked, memory, text
from hpcc.windows.security import allowed_on_file, owner_of_file, security_attributes
from hpcc.windows.users import own_sid

CREATE_NEW: Final = 1
OPEN_EXISTING: Final = 3
OPEN_ALWAYS: Final = 4
_GENERIC_READ: Final = 0x8000_0000
_GENERIC_WRITE: Final = 0x4000_0000
# SECURITY_ANONYMOUS: if the name is a pipe, its server cannot impersonate this process.
_ANONYMOUS: Final = 0x0010_0000
_DISK: Final = 1
_NOT_SUPPORTED: Final = 50
_LOCK_NOW: Final = 1
_LOCK_EXCLUSIVE: Final = 2
_LOCK_VIOLATION: Final = 33
# OVERLAPPED. Locks one byte beyond any file's end, so that the lock blocks no reader.
_PLACE: Final = struct.pack("<QQIIQ", 0, 0, 0, 0x4000_0000, 0)
# LocalSystem and Administrators can read everything anyway.
_SYSTEM: Final = frozenset({"S-1-5-18", "S-1-5-32-544"})


class LinkRefusedError(WindowsError):
    """The name is a link, and links are not followed."""

    def __init__(self) -> None:
        super().__init__("CreateFileW", 0)


def open_handle(
    library: Library, path: str, *, reads: bool, writes: bool, how: int, is_private: bool
) -> int:
    """Return a file's handle. Others may read, write, rename and remove it; it is not inherited.

    `is_private`: if it is created here, only its user, the system and administrators may open it.

    Raises:
        LinkRefusedError: it is a link or another reparse point.
        WindowsError: it cannot be opened, or is a pipe or a device, which is never read.
    """
    access = _GENERIC_READ * reads | _GENERIC_WRITE * writes
    makes = is_private and how != OPEN_EXISTING
    security = security_attributes(library, _own_sddl(library)) if makes else nullcontext(0)
    with security as attributes, memory(library, text(path)) as name:
        flags = OPEN_REPARSE_POINT | _ANONYMOUS
        answer = library.call("CreateFileW", name, access, SHARE_ALL, attributes, how, flags, 0)
    if answer.value == INVALID_HANDLE:
        raise WindowsError("CreateFileW", answer.error)
    try:
        _check_file(library, answer.value)
    except BaseException:
        library.call("CloseHandle", answer.value)
        raise
    return answer.value


def open_shared_handle(library: Library, path: str) -> int:
    """Return a handle to read a file, also behind a link. Others may write, rename and remove it.

    Raises:
        WindowsError: it cannot be opened, or is a pipe or a device, which is never read.
    """
    with memory(library, text(path)) as name:
        answer = library.call(
            "CreateFileW", name, _GENERIC_READ, SHARE_ALL, 0, OPEN_EXISTING, _ANONYMOUS, 0
        )
    if answer.value == INVALID_HANDLE:
        raise WindowsError("CreateFileW", answer.error)
    if library.call("GetFileType", answer.value).value != _DISK:
        library.call("CloseHandle", answer.value)
        raise WindowsError("CreateFileW", _NOT_SUPPORTED)
    return answer.value


def lock_handle(library: Library, handle: int, *, exclusive: bool) -> bool:
    """Lock an open file without waiting; return whether it is locked. Closing it ends the lock.

    Raises:
        WindowsError: the lock call failed.
    """
    flags = _LOCK_NOW | _LOCK_EXCLUSIVE * exclusive
    with memory(library, _PLACE) as place:
        answer = library.call("LockFileEx", handle, flags, 0, 1, 0, place)
    if answer.value:
        return True
    if answer.error == _LOCK_VIOLATION:
        return False
    raise WindowsError("LockFileEx", answer.error)


def is_own_file(library: Library, handle: int) -> bool:
    """Return whether an open file's owner is this user, the system or its administrators.

    Raises:
        WindowsError: the system call failed.
    """
    return owner_of_file(library, handle) in _SYSTEM | {own_sid(library)}


def is_private_file(library: Library, handle: int) -> bool:
    """Return whether only this user, the system and administrators may open a file.

    Raises:
        WindowsError: the system call failed.
    """
    allowed = allowed_on_file(library, handle)
    return allowed is not None and allowed <= _SYSTEM | {own_sid(library)}


def _own_sddl(library: Library) -> str:
    return f"D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;{own_sid(library)})"


def _check_file(library: Library, handle: int) -> None:
    if library.call("GetFileType", handle).value != _DISK:
        raise WindowsError("CreateFileW", _NOT_SUPPORTED)
    with memory(library, bytes(INFORMATION.size)) as at:
        checked(library, "GetFileInformationByHandle", handle, at)
        (attributes, *_) = INFORMATION.unpack(library.load(at, INFORMATION.size))
    if attributes & REPARSE_POINT:
        raise LinkRefusedError
