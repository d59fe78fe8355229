"""The first user prepares the assets that guests boot from: once, and completely or not at all."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import astuple
from pathlib import Path

import pytest

from hpcc.runtime.assets.assets import GuestAssets, prepare_assets
from hpcc.runtime.host.tools import ToolError

pytestmark = [pytest.mark.vm, pytest.mark.nightly, pytest.mark.timeout(300)]


def names(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.iterdir())


def with_kernel(assets: GuestAssets, directory: Path) -> Path:
    """Reuse the kernel's directory, which saves the download."""
    shutil.copytree(assets.kernel.parent, directory / assets.kernel.parent.name)
    return directory


async def test_two_at_once_prepare_once_and_alike(assets: GuestAssets, tmp_path: Path) -> None:
    directory = with_kernel(assets, tmp_path / "a")
    lines: list[str] = []
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(prepare_assets(directory, lines.append)) for _ in range(2)]
    assert tasks[0].result() == tasks[1].result()
    assert lines.count("building the agent drive") == 1
    assert not [n for n in names(directory) if n.startswith(".new-")]


async def test_another_preparation_gives_the_same_bytes(
    assets: GuestAssets, tmp_path: Path
) -> None:
    other = await prepare_assets(with_kernel(assets, tmp_path / "b"), print)
    digests = [v for v in astuple(assets) if isinstance(v, str)]
    assert [v for v in astuple(other) if isinstance(v, str)] == digests


async def test_a_cancel_leaves_nothing_half_made(assets: GuestAssets, tmp_path: Path) -> None:
    directory = with_kernel(assets, tmp_path / "c")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await prepare_assets(directory, print)
    assert not [n for n in names(directory) if n.startswith(("agent-", ".new-"))]


async def test_a_missing_tool_is_named_with_its_package(
    assets: GuestAssets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = with_kernel(assets, tmp_path / "d")
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda t: None if t == "mkfs.erofs" else which(t))
    with pytest.raises(ToolError, match="apt-get install erofs-utils"):
        await prepare_assets(directory, print)
