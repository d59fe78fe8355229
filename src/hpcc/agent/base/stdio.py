"""Forwards what a program writes, within its limits."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from hpcc.agent.base.ending import OnStdio, StreamName
from hpcc.wire.exec_frames import MAX_STDIO_PIECES

_READ_BYTES: Final = 64 << 10
# After the first hundred pieces small ones are delayed: at most 100 a second from both streams.
_SLOW_BELOW_PIECES: Final = MAX_STDIO_PIECES - 100
_SMALL_BYTES: Final = 4096
_GATHER_SECONDS: Final = 0.02


class StdioFullError(Exception):
    """The program wrote more than its limit."""


class ProgramStream(Protocol):
    """One of a program's streams, as `asyncio.StreamReader` is."""

    async def read(self, n: int, /) -> bytes:
        """Return at most `n` bytes; b"" at the end."""
        ...


class StdioPump:
    """Both streams of one program, which share the limit of `max_bytes`."""

    def __init__(self, max_bytes: int, on_stdio: OnStdio) -> None:
        self._bytes_left, self._on_stdio = max_bytes, on_stdio
        self._pieces_left = MAX_STDIO_PIECES

    async def pump(self, name: StreamName, stream: ProgramStream) -> None:
        """Forward a stream until its end.

        Raises:
            StdioFullError: the program wrote more than its limit.
        """
        while data := await stream.read(_READ_BYTES):
            self._bytes_left -= len(data)
            self._pieces_left -= 1
            if self._bytes_left < 0 or self._pieces_left < 0:
                raise StdioFullError
            await self._on_stdio(name, data)
            if self._pieces_left < _SLOW_BELOW_PIECES and len(data) < _SMALL_BYTES:
                # Otherwise a program that writes single bytes costs the host a message each.
                await asyncio.sleep(_GATHER_SECONDS)


async def drain(*pipes: asyncio.StreamReader | None) -> None:
    """Read pipes to their ends: asyncio reports a process as ended only after its pipes."""
    for pipe in pipes:
        while pipe is not None and await pipe.read(_READ_BYTES):
            pass
