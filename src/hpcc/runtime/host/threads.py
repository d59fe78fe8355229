"""Blocking work in threads that are always waited for; on every operating system."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress


async def in_thread[T](work: Callable[[], T], stop: Callable[[], None] | None = None) -> T:
    """Run blocking work in a thread; a cancel calls `stop` and waits for the work to end.

    `asyncio.to_thread` abandons the thread on a cancel. The thread could then still write to a
    directory that the cancelled caller is about to remove, or still be in a system call.
    """
    running = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if stop is not None:
            stop()
        while not running.done():
            # A second cancel must not abandon the thread either.
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        if not running.cancelled():
            running.exception()
        raise
