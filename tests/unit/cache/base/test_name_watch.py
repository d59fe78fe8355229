"""A watch reports names that come and go, and no others."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from hpcc.cache.base.name_watch import NameWatch, _quiet

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="has no - inotify")
NAME = b".clang-tidy"


@pytest.mark.parametrize("is_moved", [False, True])
def test_a_name_that_was_there_for_a_moment_is_seen(tmp_path: Path, is_moved: bool) -> None:
    here, other = tmp_path / "here", tmp_path / "other"
    here.mkdir()
    other.mkdir()
    watch = NameWatch([os.fsencode(here), os.fsencode(other), b"/no/such"])
    (other / "a.o").touch()
    if is_moved:
        (tmp_path / "x").touch()
        (tmp_path / "x").rename(here / ".clang-tidy")
    else:
        (here / ".clang-tidy").touch()
    (here / ".clang-tidy").unlink()
    assert watch.quiet(frozenset({NAME})) == {os.fsencode(other)}
    watch.close()
    watch.close()
    assert watch.quiet(frozenset({NAME})) == frozenset()


def test_a_directory_that_was_moved_away_is_not_vouched_for(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    watch = NameWatch([os.fsencode(here)])
    here.rename(tmp_path / "there")
    assert watch.quiet(frozenset({NAME})) == frozenset()
    watch.close()


def test_lost_events_vouch_for_nothing() -> None:
    overflow = (-1).to_bytes(4, sys.byteorder, signed=True) + (0x4000).to_bytes(4, sys.byteorder)
    assert _quiet(overflow + bytes(8), frozenset({NAME}), {1: [b"/a"]}) == frozenset()
    assert _quiet(b"", frozenset({NAME}), {1: [b"/a"]}) == {b"/a"}
