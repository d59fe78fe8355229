"""Scratch files for compilers: lent to one compile at a time, empty or absent, removed in doubt."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcc.cache.results.scratch import _RESTING, ScratchPaths


@pytest.fixture
def scratch(tmp_path: Path) -> ScratchPaths:
    return ScratchPaths(os.fsencode(tmp_path))


def _rest(scratch: ScratchPaths) -> None:
    """Let what was given back rest: as many others are used and given back behind it."""
    others = [scratch.take() for _ in range(_RESTING)]
    for path in others:
        scratch.give_back(path, is_written=True)


def test_a_file_is_lent_to_one_at_a_time(scratch: ScratchPaths) -> None:
    paths = {scratch.take() for _ in range(5)}
    assert len(paths) == 5


def test_a_file_comes_back_empty_under_the_same_inode(scratch: ScratchPaths) -> None:
    path = Path(os.fsdecode(scratch.take()))
    path.write_text("main.o: main.c")
    inode = path.stat().st_ino
    scratch.give_back(os.fsencode(path), is_written=True)
    assert os.fsencode(path) != scratch.take(), "its bytes may be on the way to the disk"
    _rest(scratch)
    assert Path(os.fsdecode(scratch.take())) == path
    assert (path.stat().st_ino, path.read_bytes()) == (inode, b"")


def test_a_file_given_back_twice_is_lent_once(scratch: ScratchPaths) -> None:
    path = scratch.take()
    scratch.give_back(path, is_written=True)
    scratch.give_back(path, is_written=True)
    _rest(scratch)
    assert scratch.take() != scratch.take()
    scratch.give_back(path, is_written=False)
    scratch.give_back(path, is_written=True)  # its writer may be alive: never again
    assert scratch.take() != path


def test_a_file_whose_writer_may_be_alive_is_deleted_and_not_lent_again(
    scratch: ScratchPaths,
) -> None:
    path = scratch.take()
    Path(os.fsdecode(path)).write_text("half")
    scratch.give_back(path, is_written=False)
    assert not os.path.exists(path)
    assert scratch.take() != path


def test_a_file_that_was_never_written_is_no_fault(scratch: ScratchPaths) -> None:
    path = scratch.take()
    scratch.give_back(path, is_written=True)
    _rest(scratch)
    assert scratch.take() == path


def test_what_cannot_be_emptied_is_not_lent_again(scratch: ScratchPaths) -> None:
    path = scratch.take()
    os.mkdir(path)
    scratch.give_back(path, is_written=True)
    _rest(scratch)
    assert scratch.take() != path


def test_the_number_of_files_is_bounded(scratch: ScratchPaths) -> None:
    paths = set()
    for _ in range(100):
        path = scratch.take()
        paths.add(path)
        scratch.give_back(path, is_written=True)
        unused = scratch.take()
        paths.add(unused)
        scratch.put_back(unused)
    assert len(paths) <= _RESTING + 2
