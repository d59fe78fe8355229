"""The agent drive's key changes with each file that the drive is made of."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from hpcc.runtime.assets import drive


@pytest.fixture
def init(tmp_path: Path) -> Path:
    init = tmp_path / "init"
    init.write_bytes(b"init")
    return init


@pytest.mark.parametrize(
    "name",
    [
        "bin/python3",
        "bin/hpcc-init",
        f"lib/python3.{sys.version_info.minor}/asyncio/tasks.py",
        "lib/hpcc-ld.so",
        "lib/libc.so.6",
        "site/grpclib/server.py",
        "site/hpcc/wire/__init__.py",
    ],
)
async def test_a_file_with_another_content_gives_another_key(
    name: str, init: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = await drive._files(init)
    changed = tmp_path / "changed"
    shutil.copy(files[name], changed)

    async def with_changed(_: Path) -> dict[str, Path]:
        return {**files, name: changed}

    monkeypatch.setattr(drive, "_files", with_changed)
    before = await drive.drive_key(init)
    with changed.open("ab") as file:
        file.write(b"upgraded")
    assert await drive.drive_key(init) != before


async def test_the_key_stays_while_the_files_stay(init: Path) -> None:
    assert await drive.drive_key(init) == await drive.drive_key(init)


async def test_another_tool_gives_another_key(
    init: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await drive.drive_key(init)
    tool = tmp_path / "strip"
    tool.write_text("#!/bin/sh\necho another strip\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert await drive.drive_key(init) != before
