"""Files are whole or absent, at whatever step a write fails."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hpcc.files.whole import Sync, whole_file, write_whole

_STEPS = {
    Sync.NONE: ["open", "write", "rename"],
    Sync.CONTENT: ["open", "write", "sync", "rename"],
    Sync.NAME: ["open", "write", "sync", "rename", "directory-sync"],
}


@pytest.mark.parametrize("sync", Sync)
def test_the_steps_on_the_disk_have_one_order(tmp_path: Path, sync: Sync) -> None:
    steps: list[str] = []
    with whole_file(tmp_path / "a", sync=sync, fault=steps.append) as file:
        file.write(b"new")
    assert steps == _STEPS[sync]
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.parametrize("broken", _STEPS[Sync.NAME])
def test_an_error_at_any_step_leaves_a_whole_file_and_nothing_aside(
    tmp_path: Path, broken: str
) -> None:
    def fault(step: str) -> None:
        if step == broken:
            raise OSError(5, "broken")

    path = tmp_path / "a"
    path.write_bytes(b"old")
    with (
        pytest.raises(OSError, match="broken"),
        whole_file(path, sync=Sync.NAME, fault=fault) as file,
    ):
        file.write(b"new")
    assert path.read_bytes() == (b"new" if broken == "directory-sync" else b"old")
    assert os.listdir(tmp_path) == ["a"]


def test_an_error_of_the_block_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), whole_file(path, sync=Sync.NONE) as file:  # noqa: PT012 - the interrupt comes in the block
        file.write(b"new")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_nobody_else_can_read_the_file_from_its_first_byte(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a", sync=Sync.NONE) as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
    write_whole(tmp_path / "b", b"", sync=Sync.NONE, mode=0o640)
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o640


def test_a_missing_directory_is_made_only_on_request(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a"
    with pytest.raises(FileNotFoundError):
        write_whole(path, b"new", sync=Sync.NONE)
    write_whole(path, b"new", sync=Sync.NONE, makes_parent=True)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_leftover_at_a_fixed_name_aside_is_replaced(tmp_path: Path) -> None:
    aside = tmp_path / "a.new"
    aside.write_bytes(b"a longer leftover of a crash")
    write_whole(tmp_path / "a", b"new", sync=Sync.NONE, aside=aside)
    assert (tmp_path / "a").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("before", [None, b"old"])
def test_an_existing_file_is_kept_on_request(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "a"
    if before is not None:
        path.write_bytes(before)
    with whole_file(path, sync=Sync.CONTENT, keeps_existing=True) as file:
        file.write(b"new")
    assert path.read_bytes() == (before or b"new")
    assert os.listdir(tmp_path) == ["a"]
