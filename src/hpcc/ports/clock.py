"""Time as a dependency that is passed in, so that tests control it."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """The two clocks of a machine and a way to wait."""

    def now(self) -> float:
        """Return seconds since the epoch, UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never decrease, for deadlines and durations."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait without blocking the loop."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> float:
        return time.time()  # noqa: TID251 - this class is where the ban ends

    def monotonic(self) -> float:
        return time.monotonic()  # noqa: TID251 - this class is where the ban ends

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
