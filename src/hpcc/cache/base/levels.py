"""The directories above a file or a working directory in which a project's root may be looked for.

Another user may own a directory above. The way up therefore ends at a file-system boundary, at the
home directory and before a directory that everybody may write.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final

_MAX_LEVELS: Final = 64


def levels_above(start: bytes, home: bytes) -> Iterator[bytes]:
    """Yield the directories from `start` upward that may be looked into, `start` first.

    `start` is absolute, normal and without links. Never raises: an unreadable directory is the end.
    """
    try:
        device = os.stat(start).st_dev
        directory = start
        for _ in range(_MAX_LEVELS):
            status = os.stat(directory)
            if status.st_dev != device or status.st_mode & stat.S_IWOTH:
                return
            yield directory
            if directory in {home, b"/"}:
                return
            directory = directory.rpartition(b"/")[0] or b"/"
    except (OSError, ValueError):
        return


def is_trusted(status: os.stat_result) -> bool:
    """Tell whether an entry belongs to the user or to root, and not everybody may write it."""
    return status.st_uid in {0, os.geteuid()} and not status.st_mode & stat.S_IWOTH
