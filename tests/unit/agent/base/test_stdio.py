"""The agent merges small writes of a program, so that they do not cost the host too much."""

from __future__ import annotations

import asyncio

import pytest

from hpcc.agent.base import stdio
from hpcc.agent.base.stdio import StdioFullError, StdioPump


async def pieces_of(writes: int) -> list[int]:
    """Return the sizes of the pieces that arrive when each byte is written in a separate turn."""
    stream = asyncio.StreamReader()

    async def write() -> None:
        for _ in range(writes):
            stream.feed_data(b"x")
            await asyncio.sleep(0)
        stream.feed_eof()

    sizes: list[int] = []

    async def on_stdio(_: str, data: bytes) -> None:
        sizes.append(len(data))

    async with asyncio.TaskGroup() as group:
        group.create_task(StdioPump(1 << 20, on_stdio).pump("stdout", stream))
        group.create_task(write())
    assert sum(sizes) == writes
    return sizes


async def test_the_first_pieces_are_passed_on_as_they_come() -> None:
    assert len(await pieces_of(60)) > 30


async def test_many_small_pieces_are_gathered() -> None:
    assert len(await pieces_of(20_000)) < 200


async def test_too_many_pieces_are_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdio, "MAX_STDIO_PIECES", 10)
    monkeypatch.setattr(stdio, "_SLOW_BELOW_PIECES", 0)
    with pytest.raises(ExceptionGroup) as caught:
        await pieces_of(60)
    assert caught.group_contains(StdioFullError)
