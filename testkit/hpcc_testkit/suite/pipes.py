"""Ends the pipes of a process that a test started and that is gone."""

from __future__ import annotations

import asyncio


async def gone(process: asyncio.subprocess.Process) -> int:
    """Wait for the end of a process and drop its pipes; return its exit code.

    A child that it left may hold the other end of its standard output. Then the reading end would
    be collected as garbage during a later test, which fails for it.
    """
    code = await process.wait()
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - no public way to drop the pipes of a process that is gone
    return code
