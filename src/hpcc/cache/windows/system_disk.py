"""`CacheDisk` on Windows. Run under Wine, not yet on Windows."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from typing import Final

from hpcc.cache.remote.windows_machine import LocalWindowsMachine, read_regular
from hpcc.cache.windows.disk import FileTimes
from hpcc.files import open_shared
from hpcc.windows.files import FileLook, WindowsLock, look_at, make_private_directory, take_file
from hpcc.windows.library import Library
from hpcc.windows.times import look_at_times
from hpcc.windows.users import own_sid

_READ_ONLY: Final = 0x1
_DIRECTORY: Final = 0x10
_DEVICE: Final = 0x40
_REPARSE_POINT: Final = 0x400
_ODD: Final = _READ_ONLY | _DIRECTORY | _DEVICE


class WindowsDisk(LocalWindowsMachine):
    """See `CacheDisk`."""

    def __init__(self, library: Library) -> None:
        self._library = library
        asked = ("GetACP", "GetOEMCP", "GetUserDefaultUILanguage")
        self.languages = b" ".join(b"%d" % library.call(name).value for name in asked)

    def read(self, path: str, limit: int) -> bytes | None:
        try:
            # Builds may rename and delete the file meanwhile: Python's own call forbids that.
            with os.fdopen(open_shared(path), "rb") as file:
                return read_regular(file, limit)
        except (OSError, ValueError):
            return None

    def times(self, path: str, *, is_at_rest: bool) -> FileTimes | None:
        try:
            known = look_at_times(self._library, path, refuses_writers=is_at_rest)
        except ValueError:  # a zero in the path
            return None
        if known is None:
            return None
        is_plain = not known.attributes & _ODD and not _is_link(path)
        return FileTimes(*known[:5], is_plain)

    def entries(self, directory: str) -> Mapping[str, bool] | None:
        try:
            with os.scandir(directory) as found:
                return {entry.name: entry.is_dir() for entry in found}
        except (OSError, ValueError):
            return None

    def is_directory(self, path: str) -> bool | None:
        try:
            return stat.S_ISDIR(os.stat(path).st_mode)
        except (OSError, ValueError):
            return None

    def look(self, path: str) -> FileLook | None:
        return look_at(self._library, path)


class WindowsHitFiles:
    """See `kept_hits.HitFiles`."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def make(self, directory: str) -> None:
        """See `HitFiles.make`."""
        make_private_directory(self._library, directory, own_sid(self._library))

    def take(self, path: str, wait_seconds: float) -> bytes | None:
        """See `HitFiles.take`."""
        return take_file(self._library, path, wait_seconds)

    def lock(self, path: str) -> Callable[[], None]:
        """See `HitFiles.lock`."""
        return WindowsLock.take(self._library, path).release


def _is_link(path: str) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return True
    return bool(getattr(status, "st_file_attributes", 0) & _REPARSE_POINT)
