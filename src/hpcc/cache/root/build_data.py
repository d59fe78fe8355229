"""What a build system says about a project's root: CMake's cache, or `compile_commands.json`.

The files may come with a clone, so they are hostile: bounded, no link, owned by the user or by
root. What they say only chooses among directories that the caller found acceptable.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import stat
import time
from typing import Final

from hpcc.cache.base.files import RACY_WINDOW_NS
from hpcc.cache.base.levels import is_trusted
from hpcc.cache.key.marker import READ_FLAGS
from hpcc.core.memo import BoundedMemo

CMAKE_CACHE: Final = b"CMakeCache.txt"
COMMANDS: Final = b"compile_commands.json"
NAMES: Final = (CMAKE_CACHE, COMMANDS)
MAX_BYTES: Final = 32 << 20
_MAX_COMMANDS: Final = 100_000
_MAX_REMEMBERED: Final = 256
_HOME: Final = re.compile(rb"^CMAKE_HOME_DIRECTORY:INTERNAL=(/[^\r\n\0]*)\r?$", re.MULTILINE)
_PLACE: Final = re.compile(rb"^CMAKE_CACHEFILE_DIR:INTERNAL=(/[^\r\n\0]*)\r?$", re.MULTILINE)
# Sources that a distribution installs, such as those of GoogleTest.
_INSTALLED: Final = b"/usr/"

# Read again when a stat differs. A stat that may not prove the content yet is never remembered.
_known: BoundedMemo[tuple[object, ...], bytes] = BoundedMemo(_MAX_REMEMBERED)


def named_root(path: bytes) -> bytes:
    """Return the directory that a file of build data names, links resolved; b"" without one."""
    try:
        fd = os.open(path, READ_FLAGS)
    except (OSError, ValueError):
        return b""
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or not is_trusted(status):
            return b""
        state = (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns,
                 status.st_ctime_ns)  # fmt: skip
        known = _known.get(state)
        if known is not None:
            return known
        with open(fd, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError:
        return b""
    finally:
        os.close(fd)
    found = _read(path, data)
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > RACY_WINDOW_NS:
        _known[state] = found
    return found


def _read(path: bytes, data: bytes) -> bytes:
    if len(data) > MAX_BYTES:
        return b""
    directory, _, name = path.rpartition(b"/")
    try:
        found = (
            cmake_home(data, directory) if name == CMAKE_CACHE else commands_root(data, directory)
        )
        return os.path.realpath(found) if found else b""
    except (OSError, ValueError, RecursionError):
        return b""


def cmake_home(data: bytes, directory: bytes) -> bytes:
    """Return the source directory that CMake's cache names; b"" for one of another directory."""
    place = _PLACE.search(data)
    return named_home(data) if place and os.path.realpath(place[1]) == directory else b""


def named_home(data: bytes) -> bytes:
    """Return the source directory that a CMake cache names, whichever directory it was made for."""
    home = _HOME.search(data)
    return b"" if home is None else posixpath.normpath(home[1])


def commands_root(data: bytes, directory: bytes) -> bytes:
    """Return the nearest directory above the database and all sources in it; b"" without one.

    Raises:
        ValueError: it is not JSON.
    """
    table = json.loads(data)
    if not isinstance(table, list) or len(table) > _MAX_COMMANDS:
        return b""
    homes = {directory}
    for entry in table:
        match entry:
            case {"directory": str(cwd), "file": str(name)} if cwd.startswith("/"):
                path = posixpath.normpath(posixpath.join(os.fsencode(cwd), os.fsencode(name)))
                if not path.startswith(_INSTALLED):
                    homes.add(path.rpartition(b"/")[0])
            case _:
                return b""
    return posixpath.commonpath(homes) if len(table) else b""
