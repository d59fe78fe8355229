"""Names in a list of nvcc, which writes a slash for a backslash, and headers that no list has."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hpcc.cache.base.files import FileMemo
from hpcc.cache.results.files_read import _Places, _with_backslashes


def test_what_a_listed_path_may_stand_for() -> None:
    found = list(_with_backslashes(b"/d/", [b"/d/a/b/c.h", b"/d/a.h", b"/e/x/y"]))
    assert found == [b"/d/a\\b", b"/d/a\\b\\c.h"]


def test_a_header_counts_in_each_directory_that_has_it(tmp_path: Path) -> None:
    for name in ("one/a.h", "one/crt/b.h", "two/a.h", "two/crt", "file"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "one/directory.h").mkdir()
    (tmp_path / "two/link.h").symlink_to("a.h")
    one, two, *others = (os.fsencode(tmp_path / n) for n in ("one", "two", "file", "missing"))
    places = _Places(FileMemo(time.time_ns))
    every = (one, two, *others)
    assert places.files(every, b"a.h") == [one + b"/a.h", two + b"/a.h"]
    assert places.files(every, b"crt/b.h") == [one + b"/crt/b.h"]
    assert places.files(every, b"../two/link.h") == [
        one + b"/../two/link.h",
        two + b"/../two/link.h",
    ]
    assert places.files(every, b"./a.h") == [one + b"/./a.h", two + b"/./a.h"]
    for absent in (b"directory.h", b"b.h", b"", b"a.h/x", b"a\0.h", two + b"/a.h"):
        assert places.files(every, absent) == (
            [one + absent] if os.path.isfile(one + absent) else []
        )


def test_a_directory_without_a_name_is_not_asked_for_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []
    monkeypatch.setattr(os.path, "isfile", lambda path: bool(asked.append(path)))
    places = _Places(FileMemo(time.time_ns))
    for name in (b"a.h", b"crt/a.h", b"crt/b.h"):
        assert places.files((os.fsencode(tmp_path),), name) == []
    assert asked == []
