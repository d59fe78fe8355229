"""The bench's ext4 file system leaves no mount and no loop device, however its block ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))

import _places
from _measure import SkipRow


def left_behind(scratch: Path) -> list[str]:
    loops = subprocess.run(
        ["losetup", "--noheadings", "--list", "--output=BACK-FILE"],
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    mounts = Path("/proc/mounts").read_text().split()
    return [word for word in [*loops, *mounts] if word.startswith(f"{scratch}/")]


def fail_inside(scratch: Path) -> None:
    with _places.ext4(scratch) as place:
        (place / "file").write_text("x")
        assert _places.file_system(place) == "ext4"
        assert len(left_behind(scratch)) == 2  # the mount and its image: it is looked for well
        raise ZeroDivisionError


def test_an_error_inside_frees_mount_and_loop_device(tmp_path: Path) -> None:
    try:
        with pytest.raises(ZeroDivisionError):
            fail_inside(tmp_path)
    except SkipRow as reason:
        pytest.skip(f"may not mount here: {reason}")
    assert left_behind(tmp_path) == []
    assert not (tmp_path / "ext4.img").exists()


def test_a_mount_that_fails_is_a_reason_and_leaves_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("mkfs.ext4", "umount", "losetup"):
        (tools / name).write_text("#!/bin/sh\nexit 0\n")
    (tools / "mount").write_text("#!/bin/sh\necho no loop device >&2\nexit 32\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setattr(_places.os, "geteuid", lambda: 0)
    with pytest.raises(SkipRow, match="no loop device"), _places.ext4(tmp_path):
        pytest.fail("there is no ext4")
    assert not (tmp_path / "ext4.img").exists()


def test_without_root_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_places.os, "geteuid", lambda: 1000)
    with pytest.raises(SkipRow, match="needs root"), _places.ext4(tmp_path):
        pytest.fail("there is no ext4")
