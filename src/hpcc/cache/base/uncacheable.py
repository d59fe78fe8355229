"""The error for a result that must not be stored, and the file checks that lead to it."""

from __future__ import annotations

import os
from typing import Final

from hpcc.core.reasons.uncacheable import UncacheableReason

# File systems stamp with a clock that lags by up to a tick (10 ms at HZ=100).
_TICK_NS: Final = 50_000_000
_SECOND_NS: Final = 1_000_000_000


class UncacheableError(Exception):
    """The compile succeeded, but its result must not be stored; `reason` is counted."""

    def __init__(self, reason: UncacheableReason) -> None:
        super().__init__(reason)
        self.reason = reason


def absolute(cwd: bytes, path: bytes) -> bytes:
    """Join without resolving `..`, because that is wrong behind a symbolic link."""
    full = path if path.startswith(b"/") else cwd.rstrip(b"/") + b"/" + path
    while b"//" in full or b"/./" in full:
        full = full.replace(b"//", b"/").replace(b"/./", b"/")
    return full


def is_fresh(status: os.stat_result, started_ns: int) -> bool:
    """Tell whether a file may have changed since `started_ns` (epoch nanoseconds)."""
    newest = max(status.st_mtime_ns, status.st_ctime_ns)
    # Both stamps in whole seconds: the file system stores no finer ones.
    is_coarse = status.st_mtime_ns % _SECOND_NS == 0 and status.st_ctime_ns % _SECOND_NS == 0
    return newest >= started_ns - (2 * _SECOND_NS if is_coarse else _TICK_NS)
