"""A file of the user's choice is replaced whole, or one line says why not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.cli.base.chosen_file import chosen_file
from hpcc.cli.builds import builds
from hpcc.cli.cache.client_metrics import write_for_others
from hpcc.core import CallerError


def _plain(path: Path) -> None:
    with chosen_file(path) as file:
        file.write(b"new")


WAYS: list[Callable[[Path], None]] = [
    _plain,
    lambda path: write_for_others(path, "new"),
    lambda path: builds._write(str(path), b"new"),
]
ODD, CANNOT = "is not a plain file", "cannot write"


@pytest.mark.parametrize("write", WAYS)
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/", ODD), ("", ODD), (".", ODD), ("..", ODD), ("dir", ODD), ("link", ODD), ("pipe", ODD),
        ("dangling", ODD), ("none/x", CANNOT), ("file/x", CANNOT), ("x" * 300, CANNOT),
        ("x" * 240, CANNOT),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_said_in_one_line_and_left_as_it_was(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Path], None],
    name: str,
    why: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dir").mkdir()
    Path("file").write_text("mine")
    Path("link").symlink_to("file")
    Path("dangling").symlink_to("none")
    os.mkfifo("pipe")
    before = sorted(os.listdir())
    with pytest.raises(CallerError, match=why) as refused:
        write(Path(name))
    assert "\n" not in str(refused.value)
    assert refused.value.reason == "output"
    assert sorted(os.listdir()) == before
    assert Path("file").read_text() == "mine"


def test_a_directory_that_may_not_be_searched_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(CallerError, match=r"cannot write .*: Permission denied"):
        _plain(tmp_path / "file")


def test_who_fails_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    with pytest.raises(ValueError, match="closed"), chosen_file(file) as opened:
        opened.close()
    assert file.read_bytes() == b"old"
    _plain(file)
    assert file.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]
