"""Locks between processes, on files that stay, so that a crash releases them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from hpcc.files import lock_now, open_file
from hpcc.ports import Clock

_POLL_SECONDS: Final = 0.1


def try_lock(path: Path, *, exclusive: bool) -> int | None:
    """Lock now or not at all. Returns the descriptor that holds the lock; closing it ends it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = open_file(path, os.O_RDWR | os.O_CREAT)
    try:
        lock_now(fd, exclusive=exclusive)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


@asynccontextmanager
async def exclusive_lock(path: Path, clock: Clock) -> AsyncIterator[None]:
    """Wait for the lock without blocking the loop; a cancel while waiting takes nothing."""
    while (fd := try_lock(path, exclusive=True)) is None:
        await clock.sleep(_POLL_SECONDS)
    try:
        # Let a cancel in before the work starts.
        await asyncio.sleep(0)
        yield
    finally:
        os.close(fd)
