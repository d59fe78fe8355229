"""Checks that only the system and administrators may change what a service runs.

A service that runs as LocalSystem gives its rights to everyone who may replace its program, put a
library or module beside it, or rename a directory above it. So each list on the way is read.
Sources: Win32 "File Access Rights Constants", "File Security and Access Rights". What is deeper in
a directory than the paths that a caller names is not checked. Not yet run on Windows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hpcc.core import CallerError, WindowsPath, parse_windows_path
from hpcc.windows.files import open_to_check
from hpcc.windows.library import Library, WindowsError
from hpcc.windows.security import allowed_on_file, owner_of_file

# DELETE, WRITE_DAC, WRITE_OWNER, FILE_DELETE_CHILD, GENERIC_ALL.
_REPLACES: Final = 0x0001_0000 | 0x0004_0000 | 0x0008_0000 | 0x40 | 0x1000_0000
# FILE_WRITE_DATA or FILE_ADD_FILE, FILE_APPEND_DATA or FILE_ADD_SUBDIRECTORY, GENERIC_WRITE.
_CHANGES: Final = _REPLACES | 0x2 | 0x4 | 0x4000_0000
# LocalSystem, Administrators, the owner (who is one of the others), TrustedInstaller.
_TRUSTED: Final = frozenset(
    {
        *("S-1-5-18", "S-1-5-32-544", "S-1-3-0"),
        "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464",
    }
)


def check_programs(library: Library, paths: Iterable[str]) -> None:
    """Check that nobody else may change these files and directories, or replace one above them.

    Raises:
        CallerError: somebody may (reason `service-writable`), or a path is missing.
    """
    named = [parse_windows_path(path) for path in paths]
    above = {
        WindowsPath(path.drive, path.components[:n])
        for path in named
        for n in range(len(path.components))
    }
    for path in dict.fromkeys(named):
        _check(library, path, _CHANGES)
    for path in sorted(above - {*named}, key=str):
        _check(library, path, _REPLACES)


def _check(library: Library, path: WindowsPath, rights: int) -> None:
    try:
        handle = open_to_check(library, str(path))
    except WindowsError as error:
        raise CallerError(
            f"{path} cannot be checked: {error}", reason="service-writable"
        ) from error
    try:
        allowed = allowed_on_file(library, handle, rights)
        owner = owner_of_file(library, handle)
    except WindowsError as error:
        raise CallerError(
            f"{path} cannot be checked: {error}", reason="service-writable"
        ) from error
    finally:
        library.call("CloseHandle", handle)
    others = {"everyone"} if allowed is None else {*allowed, owner} - _TRUSTED
    if others:
        raise CallerError(
            f"{path} can be changed by {', '.join(sorted(others))}, who would get the service's "
            "rights: install CPython and hpcc for all users below C:\\Program Files, as "
            "administrator",
            reason="service-writable",
        )
