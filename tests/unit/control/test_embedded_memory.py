"""Entries that the embedded store keeps in memory are never older than those on disk."""

from __future__ import annotations

from pathlib import Path

from hpcc.control.embedded import EmbeddedControlStore
from hpcc.ports import SystemClock


async def test_what_another_process_wrote_is_read(tmp_path: Path) -> None:
    file, clock = tmp_path / "store.sqlite", SystemClock()
    with EmbeddedControlStore(file, clock) as ours, EmbeddedControlStore(file, clock) as theirs:
        await ours.put("keys", "a", b"1")
        first = await ours.entries("keys")
        assert await ours.entries("keys") is first
        await theirs.put("keys", "b", b"2")
        assert [e.key for e in await ours.entries("keys")] == ["a", "b"]
        await theirs.delete("keys", "a")
        assert [e.key for e in await ours.entries("keys")] == ["b"]
        # The store sees its own writes too, and writes to other spaces cost nothing.
        second = await ours.entries("keys")
        await ours.put("other", "x", b"3")
        assert await ours.entries("keys") is second
