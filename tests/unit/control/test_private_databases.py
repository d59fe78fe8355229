"""SQLite creates files that others can read unless the file exists first with a private mode."""

from __future__ import annotations

from pathlib import Path

from hpcc.control.embedded import EmbeddedControlStore
from hpcc.ports import SystemClock
from hpcc_testkit.farm.audit_rows import opened, row


def modes(directory: Path) -> dict[str, str]:
    return {file.name: oct(file.stat().st_mode & 0o777) for file in directory.iterdir()}


async def test_who_is_logged_in_and_who_works_is_its_owners_to_read(tmp_path: Path) -> None:
    with EmbeddedControlStore(tmp_path / "s.sqlite", SystemClock()) as store:
        await store.put("space", "key", b"value")
        assert set(modes(tmp_path).values()) == {"0o600"}
        assert "s.sqlite-wal" in modes(tmp_path)


async def test_the_files_of_a_trail_are_its_owners_to_read(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        await log.append(row())
        await log.seal()
    assert set(modes(tmp_path).values()) == {"0o600"}
    assert any(name.endswith(".idx") for name in modes(tmp_path))
