"""Locks between processes, on files that stay. A crash releases them."""

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
    """Lock without waiting; return a descriptor, or None if another process has the lock.

    Closing the descriptor releases the lock.
    """
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
    """Hold the lock while the block runs. Waiting does not block the loop and can be cancelled."""
    while (fd := try_lock(path, exclusive=True)) is None:
        await clock.sleep(_POLL_SECONDS)
    try:
        # A pending cancel takes effect here, before the work starts.
        await asyncio.sleep(0)
        yield
    finally:
        os.close(fd)
