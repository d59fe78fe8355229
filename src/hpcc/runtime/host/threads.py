"""Blocking work in threads that are never let go of; on every operating system."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress


async def in_thread[T](work: Callable[[], T], stop: Callable[[], None] | None = None) -> T:
    """Run blocking work in a thread; a cancel calls `stop` and waits for it to end.

    `asyncio.to_thread` lets go of a thread that then still writes into a directory which the
    cancelled caller is about to remove, or still is in a call of the system's.
    """
    running = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if stop is not None:
            stop()
        while not running.done():
            # A second cancel must not let go of it either.
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        if not running.cancelled():
            running.exception()
        raise
