"""Unknown names beside the driver must be absent and stay absent."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.inputs.closure_types import ClosureRequest
from hpcc.cache.inputs.lookup import Lookup


def in_a_while() -> int:
    """Return a time, in nanoseconds, at which all present files count as old."""
    return time.time_ns() + 10**11


def lookup_in(directory: Path) -> Lookup:
    request = ClosureRequest(
        cwd=os.fsencode(directory),
        source=b"a.c",
        files=(),
        search=(),
        forced=(),
        started_ns=time.time_ns(),
        allow_date=False,
    )
    return Lookup(FileMemo(in_a_while), request, {})


def test_an_absent_name_beside_the_driver_is_watched(tmp_path: Path) -> None:
    lookup = lookup_in(tmp_path)
    lookup.add_absent((os.fsencode(tmp_path / "clang.cfg"), os.fsencode(tmp_path / "specs")))
    (absence,) = lookup.absences()
    assert absence.directory == os.fsencode(tmp_path)
    assert {b"clang.cfg", b"specs"} <= absence.files
    assert absence.holds(FileMemo(in_a_while))
    (tmp_path / "specs").touch()
    assert not absence.holds(FileMemo(in_a_while))


def test_names_in_a_directory_that_is_not_there_are_watched_by_it(tmp_path: Path) -> None:
    lookup = lookup_in(tmp_path)
    lookup.add_absent((os.fsencode(tmp_path / "late/deep/specs"),))
    (absence,) = lookup.absences()
    assert (absence.directory, b"late" in absence.directories) == (os.fsencode(tmp_path), True)


@pytest.mark.parametrize("thing", ["file", "directory", "dangling"])
def test_a_name_beside_the_driver_that_is_there_is_not_guessed_at(
    tmp_path: Path, thing: str
) -> None:
    path = tmp_path / "specs"
    match thing:
        case "file":
            path.touch()
        case "directory":
            path.mkdir()
        case _:
            path.symlink_to("nowhere")
    lookup = lookup_in(tmp_path)
    with pytest.raises(UncacheableError) as caught:
        lookup.add_absent((os.fsencode(tmp_path / "clang.cfg"), os.fsencode(path)))
    assert caught.value.reason == "config-file"
