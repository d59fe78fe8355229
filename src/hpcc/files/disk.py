"""How much room a disk has, and whether an error comes from a full one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

# A database makes several files of some pages when it is opened.
_FULL_BYTES: Final = 1 << 20


def size_of_disk(directory: Path) -> tuple[int, int]:
    """Return how many bytes this user may still write there, and how many the disk has.

    Raises:
        OSError: the directory cannot be looked at.
    """
    if sys.platform == "win32":
        import shutil

        usage = shutil.disk_usage(directory)
        return usage.free, usage.total
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def full_disk(path: Path) -> str:
    """Return that the disk of a file is full, for a message; "" if it has room.

    SQLite calls a full disk an I/O error when it cannot make the file that it shares with readers.
    """
    try:
        free, _ = size_of_disk(path.parent)
    except OSError:
        return ""
    return f"its disk is full, {free >> 10} KiB are free" if free < _FULL_BYTES else ""
