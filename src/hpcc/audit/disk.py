"""Watches the disk of a trail, so that no compile begins whose row would find no room.

The limit of the trail's size does not help where others fill the disk. What is left then is for the
rows of compiles that run.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc.ports import Clock

_log: Final = logging.getLogger(__name__)
_LEAST_BYTES: Final = 64 << 20
_LOOK_SECONDS: Final = 1.0


class DiskTrail(Protocol):
    """A trail: whether its disk is full, and its limits."""

    is_disk_full: bool

    @property
    def limits(self) -> SpoolLimits:
        """Return the limits of the trail."""
        ...


def least_free(limits: SpoolLimits) -> int:
    """Return how many bytes of the disk must be free before a compile begins."""
    return min(_LEAST_BYTES, limits.max_bytes // 16)


def free_bytes(directory: Path) -> int:
    """Return how many bytes of a directory's disk are free for this user. It may block."""
    return shutil.disk_usage(directory).free


@asynccontextmanager
async def watched_disk(trail: DiskTrail, directory: Path, clock: Clock) -> AsyncGenerator[None]:
    """Keep `is_disk_full` of a trail current within the block."""
    watch = asyncio.Task(_watch(trail, directory, clock), name="disk of the audit trail")
    try:
        yield
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch


async def _watch(trail: DiskTrail, directory: Path, clock: Clock) -> None:
    while True:
        # In a thread: a disk may hang. A write that failed has set it meanwhile.
        with suppress(OSError):
            free = await asyncio.to_thread(free_bytes, directory)
            is_full = free < least_free(trail.limits)
            if is_full and not trail.is_disk_full:
                _log.warning("the disk of the audit trail is full: %d bytes are free", free)
            trail.is_disk_full = is_full
        await clock.sleep(_LOOK_SECONDS)
