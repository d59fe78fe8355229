"""Whether a file system tells two changes of a file apart that come in one tick of the clock."""

from __future__ import annotations

import os
import time
from typing import Final

_CHANGES: Final = 6
_MODES: Final = (0o700, 0o500)
# CLOCK_REALTIME_COARSE of linux/time.h.
_COARSE: Final = 5


def tells_changes_apart(directory: str) -> bool:
    """Return whether each change after a `stat` gives a ctime that no earlier one had.

    Linux does so since 6.13 (Documentation/filesystems/multigrain-ts.rst), in the file systems that
    take part. Without that, changes within less than a tick have two ctimes at most.

    Raises:
        OSError: the directory cannot be written.
    """
    path = f"{directory}/.ticks"
    os.mkdir(path, _MODES[0])
    try:
        tick_ns = time.clock_getres(_COARSE) * 1e9
        begun, seen = time.monotonic_ns(), set()
        for number in range(_CHANGES):
            os.chmod(path, _MODES[number % len(_MODES)])
            seen.add(os.stat(path).st_ctime_ns)
        took_ns = time.monotonic_ns() - begun
    finally:
        os.rmdir(path)
    return len(seen) == _CHANGES and took_ns < tick_ns
