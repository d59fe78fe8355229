"""Finds the project's root on Windows: the nearest directory upward with a `.hpcc`.

Not yet run there.

As in `key.marker`, a marker is hostile until checked, and another user may own a directory above.
A marker is accepted if it is not a link and belongs to this user, the system or administrators. The
search ends at the profile, and before a drive's root, in which every user may create directories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol

from hpcc.cache.key.marker import MARKER, MAX_MARKER_BYTES, Marker, MarkerError, parse_marker
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
    found = windows_marker(disk, look, cwd, home=home, owner=owner)
    return _resolved(disk, cwd) if found is None else found[0]


def windows_marker(
    disk: Disk, look: Callable[[str], Look | None], cwd: bytes, *, home: str, owner: str
) -> tuple[WindowsPath, Marker] | None:
    """Return the directory with the marker that counts, and the marker; see `windows_root`.

    Raises:
        WindowsPathError: the working directory cannot be read, or is not on a drive.
    """
    for directory in marker_places(_resolved(disk, cwd), home):
        place = marker_of(directory)
        found = look(place)
        if found is not None and not found.is_link and found.owner in {owner, *_SYSTEM_OWNERS}:
            # The nearest one decides: after an invalid one the search does not go further up.
            marker = Marker(b"") if found.is_directory else _read(disk, place)
            return None if marker is None else (directory, marker)
    return None


def marker_places(directory: WindowsPath, home: str) -> Iterator[WindowsPath]:
    """Yield the directories in which a marker counts, from a resolved working directory upward."""
    end = windows_key(home)
    for _ in range(_MAX_LEVELS):
        if not directory.components:
            return
        yield directory
        if windows_key(str(directory)) == end:
            return
        directory = WindowsPath(directory.drive, directory.components[:-1])


def marker_of(directory: WindowsPath) -> str:
    """Return where a directory's marker would be."""
    return f"{directory}\\{MARKER.decode()}"


def _resolved(disk: Disk, cwd: bytes) -> WindowsPath:
    try:
        return parse_windows_path(disk.real(cwd.decode()))
    except (OSError, ValueError) as error:
        raise WindowsPathError("the working directory cannot be read") from error


def _read(disk: Disk, place: str) -> Marker | None:
    data = disk.read(place, MAX_MARKER_BYTES)
    try:
        return None if data is None else parse_marker(b"", data)
    except MarkerError:
        return None
