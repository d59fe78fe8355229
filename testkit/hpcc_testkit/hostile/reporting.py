"""A hostile process that answers each line of its stdin with its counters."""

from __future__ import annotations

import asyncio
import json


class Reporting:
    """Such a process while it runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def report(self) -> dict[str, int]:
        """Return its counters now."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        line = await asyncio.wait_for(self._process.stdout.readline(), 120)
        return dict(json.loads(line))
