"""`FileMemo.lacks`: names that a directory's stat proves to be absent."""

from __future__ import annotations

import os
import time
from pathlib import Path

from hpcc.cache.base.files import FileMemo


def _age(directory: Path, seconds: int) -> None:
    at = time.time() - seconds
    os.utime(directory, (at, at))


def _later() -> int:
    """Return a time at which what was changed a moment ago is long past."""
    return time.time_ns() + 60_000_000_000


def test_names_are_looked_up_once_for_each_state_of_their_directory(tmp_path: Path) -> None:
    memo, directory = FileMemo(_later), os.fsencode(tmp_path)
    paths = [directory + b"/gone", directory + b"/away"]
    proof = memo.lacks(directory, paths)
    assert proof is not None
    assert memo.lacks(directory, paths) == proof
    (tmp_path / "other").touch()
    _age(tmp_path, 30)  # each change has another stat
    assert memo.lacks(directory, paths) not in {None, proof}
    (tmp_path / "away").symlink_to("nowhere")
    _age(tmp_path, 20)
    assert memo.lacks(directory, paths) is None
    assert memo.lacks(directory, paths[:1]) is not None


def test_a_directory_that_changed_a_moment_ago_or_is_gone_proves_nothing(tmp_path: Path) -> None:
    young = FileMemo(time.time_ns)
    directory = os.fsencode(tmp_path)
    assert young.lacks(directory, [directory + b"/gone"]) is None
    assert FileMemo(_later).lacks(directory + b"/no", [directory + b"/no/gone"]) is None
