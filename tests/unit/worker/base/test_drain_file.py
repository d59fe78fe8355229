"""The files of `hpcc worker drain`: what is read, what counts, and whose rights write them."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpcc.config.private_file import write_private_file
from hpcc.core import CallerError
from hpcc.worker.base.drain_file import (
    REQUEST_NAME,
    DrainFiles,
    DrainReport,
    DrainRequest,
    become_owner,
    report_or_none,
    write_request,
)

REPORT: dict[str, Any] = {
    "obeyed": "r1", "state": "draining", "running": 1, "queued": 0, "ends_at": 0.0,
    "by": "", "reason": "",
}  # fmt: skip


def test_a_request_that_cannot_be_removed_at_the_start_is_not_obeyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that is read-only: the machine has rebooted, and takes compiles."""
    old = DrainRequest(request="old", is_wanted=True, seconds=60.0, by="", reason="")
    write_request(tmp_path, old)
    files = DrainFiles(tmp_path)
    files.write(DrainReport(**REPORT), 1)

    def refuse(path: Path, **_: bool) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(OSError, match="Read-only"):
            files.clear()
    assert files.request_or_none() is None
    (tmp_path / REQUEST_NAME).unlink()
    write_request(tmp_path, replace(old, request="new"))
    assert files.request_or_none() is not None


def test_a_report_does_not_replace_a_later_one(tmp_path: Path) -> None:
    """A thread that writes goes on when the process ends, and the last report overtakes it."""
    files = DrainFiles(tmp_path)
    files.write(DrainReport(**REPORT | {"state": "drained"}), 2)
    files.write(DrainReport(**REPORT), 1)
    found = report_or_none(tmp_path)
    assert found is not None
    assert found.state == "drained"


def test_a_request_for_an_earlier_process_does_not_count(tmp_path: Path) -> None:
    old = DrainRequest(request="old", is_wanted=True, seconds=60.0, by="", reason="")
    write_request(tmp_path, old)
    files = DrainFiles(tmp_path)
    files.clear()
    assert files.request_or_none() is None


def test_a_request_is_read_strictly_and_once(tmp_path: Path) -> None:
    files, path = DrainFiles(tmp_path), tmp_path / REQUEST_NAME
    assert files.request_or_none() is None
    good = json.dumps(
        {"request": "x", "is_wanted": True, "seconds": 1.0, "by": "", "reason": ""}
    ).encode()
    for rubbish in (b"", b"\0", b"[]", b'{"request": 1}', good[:-1], good.replace(b"1.0", b"NaN")):
        write_private_file(path, rubbish)
        with pytest.raises(CallerError):
            files.request_or_none()
        assert files.request_or_none() is None, "until it changes"
    write_private_file(path, good)
    assert files.request_or_none() is not None
    assert files.request_or_none() is None
    path.chmod(0o644)
    with pytest.raises(CallerError, match="others can read"):
        files.request_or_none()


def test_root_writes_nothing_where_the_workers_user_can_put_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up: list[object] = []
    owner = SimpleNamespace(st_uid=77, st_gid=78)
    link = tmp_path / "link"
    link.symlink_to("/")
    with monkeypatch.context() as patch:
        for name in ("setgroups", "setgid", "setuid"):
            patch.setattr(os, name, given_up.append)
        patch.setattr(os, "fstat", lambda _: owner)
        patch.setattr(os, "geteuid", lambda: 1000)
        for path in (tmp_path, link):
            become_owner(path)
        with pytest.raises(CallerError, match="is not a directory"):
            become_owner(tmp_path / "none")
        assert given_up == [], "not root"
        patch.setattr(os, "geteuid", lambda: 0)
        become_owner(tmp_path)
        assert given_up == [[], 78, 77]
        with pytest.raises(CallerError, match="symbolic link: name the directory itself"):
            become_owner(link)
        for path, why in ((tmp_path / "none", "No such file"), (Path(__file__), "Not a directory")):
            with pytest.raises(CallerError, match=why):
                become_owner(path)
        owner.st_uid = 0
        become_owner(tmp_path)
        assert len(given_up) == 3, "a worker of root"
