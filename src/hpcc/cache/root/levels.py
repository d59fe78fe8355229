"""The directories above a file or a working directory in which a root may be looked for.

Another user may own a directory above. The way up therefore ends at a file-system boundary, at the
home directory and before a directory that everybody may write, as the search for a marker does.
"""

from __future__ import annotations

import os
import stat
from typing import Final

_MAX_LEVELS: Final = 64
# Directories of the system, and those that hold the directories of many projects or users.
_SYSTEM: Final = frozenset(
    b"/ /bin /boot /dev /etc /home /lib /lib32 /lib64 /media /mnt /opt /proc /root /run /sbin /srv"
    b" /sys /tmp /usr /usr/bin /usr/include /usr/lib /usr/libexec /usr/local /usr/local/bin"
    b" /usr/local/include /usr/local/lib /usr/local/share /usr/local/src /usr/sbin /usr/share"
    b" /usr/src /var /var/cache /var/lib /var/opt /var/tmp".split()
)
_BELOW: Final = tuple(
    b"/boot/ /dev/ /etc/ /lib/ /lib64/ /proc/ /sys/ /usr/include/ /usr/lib/ /usr/local/include/"
    b" /usr/share/".split()
)


def levels_above(start: bytes, home: bytes) -> tuple[bytes, ...]:
    """Return the directories from `start` upward that may be looked into, `start` first.

    `start` is absolute, normal and without links. Never raises.
    """
    found: list[bytes] = []
    try:
        device = os.stat(start).st_dev
        directory = start
        for _ in range(_MAX_LEVELS):
            status = os.stat(directory)
            if status.st_dev != device or status.st_mode & stat.S_IWOTH:
                break
            found.append(directory)
            if directory in {home, b"/"}:
                break
            directory = directory.rpartition(b"/")[0] or b"/"
    except (OSError, ValueError):
        return tuple(found)
    return tuple(found)


def may_be_root(directory: bytes, home: bytes) -> bool:
    """Tell whether a directory may be a root that no marker names.

    The home directory, a directory of the system and the root of a mount may not.
    """
    if directory == home or directory in _SYSTEM or directory.startswith(_BELOW):
        return False
    try:
        return not os.path.ismount(directory)
    except (OSError, ValueError):
        return False


def is_trusted(status: os.stat_result) -> bool:
    """Tell whether an entry belongs to the user or to root, and not everybody may write it."""
    return status.st_uid in {0, os.geteuid()} and not status.st_mode & stat.S_IWOTH
