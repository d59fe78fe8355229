"""Finds the project's root on Windows: the nearest directory upward with a `.hpcc`.

Not yet run there.

As in `key.marker`, a marker is hostile until checked, and another user may own a directory above.
A marker is accepted if it is not a link and belongs to this user, the system or administrators. The
search ends at the profile, and before a drive's root, in which every user may create directories.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from hpcc.cache.key.marker import MARKER, MAX_MARKER_BYTES, MarkerError, parse_marker
from hpcc.core import WindowsPath, WindowsPathError, parse_windows_path, windows_key

_MAX_LEVELS: Final = 64
# LocalSystem and Administrators.
_SYSTEM_OWNERS: Final = frozenset({"S-1-5-18", "S-1-5-32-544"})


class Look(Protocol):
    """The facts about a file that the search needs; see `hpcc.windows.FileLook`."""

    @property
    def is_directory(self) -> bool: ...
    @property
    def is_link(self) -> bool: ...
    @property
    def owner(self) -> str: ...


class Disk(Protocol):
    """The file access that the search needs; see `cl_host.LocalMachine`."""

    def real(self, path: str) -> str: ...
    def read(self, path: str, limit: int) -> bytes | None: ...


def windows_root(
    disk: Disk, look: Callable[[str], Look | None], cwd: bytes, *, home: str, owner: str
) -> WindowsPath:
    """Return the root that a marker names, else the working directory, links resolved.

    `look` describes one entry, None if it is missing; `home` is the profile's directory, "" if
    there is none; `owner` is this user's SID.

    Raises:
        WindowsPathError: the working directory cannot be read, or is not on a drive.
    """
    try:
        here = parse_windows_path(disk.real(cwd.decode()))
    except (OSError, ValueError) as error:
        raise WindowsPathError("the working directory cannot be read") from error
    end = windows_key(home)
    directory = here
    for _ in range(_MAX_LEVELS):
        if not directory.components:
            break
        place = f"{directory}\\{MARKER.decode()}"
        found = look(place)
        if found is not None and not found.is_link and found.owner in {owner, *_SYSTEM_OWNERS}:
            # The nearest one decides: after an invalid one the search does not go further up.
            return directory if found.is_directory or _is_good(disk, place) else here
        if windows_key(str(directory)) == end:
            break
        directory = WindowsPath(directory.drive, directory.components[:-1])
    return here


def _is_good(disk: Disk, place: str) -> bool:
    data = disk.read(place, MAX_MARKER_BYTES)
    try:
        return data is not None and bool(parse_marker(b"", data))
    except MarkerError:
        return False
