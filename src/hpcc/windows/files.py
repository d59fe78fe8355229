"""A lock that ends with its process; directories: ids, and one that only the system writes."""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from typing import Final

from hpcc.core import CallerError
from hpcc.windows.library import (
    INVALID_HANDLE,
    Library,
    WindowsError,
    load_text,
    memory,
    text,
)
from hpcc.windows.security import owner_of_file, security_attributes

_GENERIC_READ: Final = 0x8000_0000
_GENERIC_WRITE: Final = 0x4000_0000
SHARE_ALL: Final = 7
_OPEN_EXISTING: Final = 3
_OPEN_ALWAYS: Final = 4
_BACKUP_SEMANTICS: Final = 0x0200_0000
OPEN_REPARSE_POINT: Final = 0x0020_0000
_READ_CONTROL: Final = 0x0002_0000
_DELETE: Final = 0x0001_0000
_DELETE_ON_CLOSE: Final = 0x0400_0000
_FILE_NOT_FOUND: Final = 2
_PATH_NOT_FOUND: Final = 3
_SHARING_VIOLATION: Final = 32
_MAX_TAKEN_BYTES: Final = 1 << 20
_PAUSE_SECONDS: Final = 0.002
_ALREADY_EXISTS: Final = 183
_DIRECTORY: Final = 0x10
_MAX_PATH_UNITS: Final = 32_768
REPARSE_POINT: Final = 0x400
# LocalSystem and Administrators have full access. Nobody else has any, and nothing is inherited.
_SYSTEM_ONLY: Final = "O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"
SYSTEM_OWNERS: Final = frozenset({"S-1-5-18", "S-1-5-32-544"})
# BY_HANDLE_FILE_INFORMATION: attributes, three times, serial, size, links, index high and low.
INFORMATION: Final = struct.Struct("<I3Q6I")


class WindowsLock:
    """A file that no other process can open while this one lives."""

    def __init__(self, library: Library, handle: int) -> None:
        self._library, self._handle = library, handle

    @classmethod
    def take(cls, library: Library, path: str) -> WindowsLock:
        """Return the lock without waiting.

        Raises:
            CallerError: another process has it (reason `already-running`).
            WindowsError: the file cannot be made.
        """
        with memory(library, text(path)) as name:
            # Not shared: the system closes it when this process ends in any way.
            answer = library.call(
                "CreateFileW", name, _GENERIC_READ | _GENERIC_WRITE, 0, 0, _OPEN_ALWAYS,
                OPEN_REPARSE_POINT, 0,
            )  # fmt: skip
        if answer.value == INVALID_HANDLE:
            if answer.error == _SHARING_VIOLATION:
                raise CallerError("another process holds the lock", reason="already-running")
            raise WindowsError("CreateFileW", answer.error)
        return cls(library, answer.value)

    def release(self) -> None:
        """Release the lock. May be called again."""
        handle, self._handle = self._handle, 0
        if handle:
            self._library.call("CloseHandle", handle)


def make_private_directory(library: Library, path: str, owner: str) -> None:
    """Create a directory that only this user and the system may use; one that exists stays.

    Raises:
        WindowsError: it cannot be made.
    """
    sddl = f"D:P(A;OICI;FA;;;{owner})(A;OICI;FA;;;SY)"
    with security_attributes(library, sddl) as security, memory(library, text(path)) as at:
        made = library.call("CreateDirectoryW", at, security)
    if not made.value and made.error != _ALREADY_EXISTS:
        raise WindowsError("CreateDirectoryW", made.error)


def take_file(library: Library, path: str, wait_seconds: float) -> bytes | None:
    """Read a file and remove it, while no other process has it open.

    Return b"" if it is missing, and None if it stays open elsewhere, cannot be read, or is too
    long: then it is as it was, except one that is too long.
    """
    tries = 1 + int(wait_seconds / _PAUSE_SECONDS)
    access, flags = _GENERIC_READ | _DELETE, OPEN_REPARSE_POINT | _DELETE_ON_CLOSE
    with memory(library, text(path)) as name:
        for left in reversed(range(tries)):
            # Not shared at all: it fails while anybody has the file open.
            answer = library.call("CreateFileW", name, access, 0, 0, _OPEN_EXISTING, flags, 0)
            if answer.value != INVALID_HANDLE:
                break
            if answer.error in {_FILE_NOT_FOUND, _PATH_NOT_FOUND}:
                return b""
            if answer.error != _SHARING_VIOLATION or not left:
                return None
            threading.Event().wait(_PAUSE_SECONDS)
    try:
        fields = _information(library, answer.value)
        size = fields[5] << 32 | fields[6]
        return None if size > _MAX_TAKEN_BYTES else _read(library, answer.value, size)
    except WindowsError:
        return None
    finally:
        library.call("CloseHandle", answer.value)


def _read(library: Library, handle: int, size: int) -> bytes:
    if not size:
        return b""
    with memory(library, bytes(size)) as at, memory(library, bytes(4)) as moved:
        told = library.call("ReadFile", handle, at, size, moved, 0)
        if not told.value:
            raise WindowsError("ReadFile", told.error)
        return library.load(at, int.from_bytes(library.load(moved, 4), "little"))


def prepare_system_directory(library: Library, path: str) -> None:
    """Create a directory that only the system and administrators can write to, or check one.

    In C:/ProgramData any user may have created this name before, with a link in it.

    Raises:
        CallerError: it belongs to another user, or is a link (reason `directory-owner`).
        WindowsError: it cannot be made.
    """
    with security_attributes(library, _SYSTEM_ONLY) as security, memory(library, text(path)) as at:
        made = library.call("CreateDirectoryW", at, security)
    if made.value:
        return
    if made.error != _ALREADY_EXISTS:
        raise WindowsError("CreateDirectoryW", made.error)
    flags = _BACKUP_SEMANTICS | OPEN_REPARSE_POINT
    handle = _open(library, path, _READ_CONTROL, flags)
    try:
        is_link = _information(library, handle)[0] & REPARSE_POINT
        is_system = owner_of_file(library, handle) in SYSTEM_OWNERS
    finally:
        library.call("CloseHandle", handle)
    if is_link or not is_system:
        raise CallerError(
            f"{path} is not the system's own directory; remove it, or name another one",
            reason="directory-owner",
        )


@dataclass(frozen=True, slots=True)
class FileLook:
    """One directory entry; links are not followed. `owner` is a SID."""

    is_directory: bool
    is_link: bool
    owner: str


def look_at(library: Library, path: str) -> FileLook | None:
    """Return a file's or directory's entry; None if it is absent or unreadable."""
    try:
        handle = _open(library, path, _READ_CONTROL, _BACKUP_SEMANTICS | OPEN_REPARSE_POINT)
    except WindowsError:
        return None
    try:
        attributes = _information(library, handle)[0]
        return FileLook(
            is_directory=bool(attributes & _DIRECTORY),
            is_link=bool(attributes & REPARSE_POINT),
            owner=owner_of_file(library, handle),
        )
    except WindowsError:
        return None
    finally:
        library.call("CloseHandle", handle)


def open_to_check(library: Library, path: str) -> int:
    """Return a handle of a file or directory for its list and owner; links are followed.

    Raises:
        WindowsError: it cannot be opened.
    """
    return _open(library, path, _READ_CONTROL, _BACKUP_SEMANTICS)


def long_path(library: Library, path: str) -> str:
    """Return a path with its 8.3 names replaced by long ones; unchanged if it does not exist."""
    with memory(library, text(path)) as name, memory(library, bytes(2 * _MAX_PATH_UNITS)) as at:
        units = library.call("GetLongPathNameW", name, at, _MAX_PATH_UNITS).value
        return load_text(library, at) if 0 < units < _MAX_PATH_UNITS else path


def directory_id(library: Library, path: str) -> tuple[int, int]:
    """Return volume and file number of a directory, as launcher/hpcc_win.c computes them.

    Raises:
        WindowsError: it cannot be opened.
    """
    handle = _open(library, path, 0, _BACKUP_SEMANTICS)
    try:
        fields = _information(library, handle)
    finally:
        library.call("CloseHandle", handle)
    # 0 attributes, 1-3 times, 4 serial, 5-6 size, 7 links, 8-9 index
    return fields[4], fields[8] << 32 | fields[9]


def _open(library: Library, path: str, access: int, flags: int) -> int:
    with memory(library, text(path)) as name:
        answer = library.call("CreateFileW", name, access, SHARE_ALL, 0, _OPEN_EXISTING, flags, 0)
    if answer.value == INVALID_HANDLE:
        raise WindowsError("CreateFileW", answer.error)
    return answer.value


def _information(library: Library, handle: int) -> tuple[int, ...]:
    with memory(library, bytes(INFORMATION.size)) as at:
        told = library.call("GetFileInformationByHandle", handle, at)
        if not told.value:
            raise WindowsError("GetFileInformationByHandle", told.error)
        return INFORMATION.unpack(library.load(at, INFORMATION.size))
