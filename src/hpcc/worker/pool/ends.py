"""Waits for the end of a guest."""

from __future__ import annotations

import asyncio
from typing import Any


async def first_end(lost: asyncio.Future[str], *events: asyncio.Event) -> str | None:
    """Wait until a guest is lost or an event is set; return why it is lost, else None.

    It does not cancel `lost`, from which the compiles in the guest learn how it ended. Otherwise
    a compile in a guest that the pool ends would count as cancelled itself.
    """
    others = [asyncio.Task(event.wait()) for event in events]
    try:
        watched: set[asyncio.Future[Any]] = {lost, *others}
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        return lost.result() if lost.done() else None
    finally:
        for task in others:
            task.cancel()
        await asyncio.wait(others)
