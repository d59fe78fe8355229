"""Which directories a content key leaves out, and how paths below them are marked."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hpcc.cache.base.files import FileMemo
from hpcc.cache.content.places import BUILD_MARK, CWD_MARK, ROOT_MARK, Places, find_places


@pytest.mark.parametrize(
    ("places", "path", "marked"),
    [
        (Places(b"/p/b", b"/p"), b"/p/b/x.h", CWD_MARK + b"/x.h"),
        (Places(b"/p/b", b"/p"), b"/p/b", CWD_MARK),
        (Places(b"/p/b", b"/p"), b"/p/src/x.h", ROOT_MARK + b"/src/x.h"),
        (Places(b"/p/b", b"/p"), b"/p/b2/x.h", ROOT_MARK + b"/b2/x.h"),
        (Places(b"/p/b", b"/p"), b"/p2/x.h", b"/p2/x.h"),
        (Places(b"/p", b"/p/sub"), b"/p/sub/x.h", ROOT_MARK + b"/x.h"),
        (Places(b"/p", b""), b"/p/../q/x.h", CWD_MARK + b"/../q/x.h"),
        (Places(b"/p", b""), b"//p/x.h", b"//p/x.h"),
        (Places(b"/p/b/s", b"/p", b"/p/b"), b"/p/b/s/x.h", CWD_MARK + b"/x.h"),
        (Places(b"/p/b/s", b"/p", b"/p/b"), b"/p/b/x.h", BUILD_MARK + b"/x.h"),
        (Places(b"/p/b/s", b"/p", b"/p/b"), b"/p/b/s2/x.h", BUILD_MARK + b"/s2/x.h"),
        (Places(b"/p/b/s", b"/p", b"/p/b"), b"/p/b2/x.h", ROOT_MARK + b"/b2/x.h"),
        (Places(b"/p/b/s", b"/p/b/dep", b"/p/b"), b"/p/b/dep/x.h", ROOT_MARK + b"/x.h"),
    ],
)
def test_the_longest_place_is_marked_and_spelled_again(
    places: Places, path: bytes, marked: bytes
) -> None:
    assert places.mark(path) == marked
    assert places.spell(marked) == path


def _found(cwd: Path, source: Path, marker_root: bytes = b"") -> Places | None:
    memo = FileMemo(time.time_ns)
    return find_places(memo, os.fsencode(cwd), os.fsencode(source), marker_root)


def test_version_control_above_the_source_is_the_root(tmp_path: Path) -> None:
    (tmp_path / "p/.git").mkdir(parents=True)
    (tmp_path / "p/src").mkdir()
    found = _found(tmp_path / "b", tmp_path / "p/src/a.c")
    assert found == Places(os.fsencode(tmp_path / "b"), os.fsencode(tmp_path / "p"))


def test_the_marker_comes_first(tmp_path: Path) -> None:
    (tmp_path / "p/.git").mkdir(parents=True)
    root = os.fsencode(tmp_path)
    found = _found(tmp_path / "p/b", tmp_path / "p/a.c", root)
    assert found == Places(os.fsencode(tmp_path / "p/b"), root)


@pytest.mark.parametrize("home", ["p", "p/src", "elsewhere"])
def test_cmakes_cache_names_the_root_if_it_is_above_the_source(tmp_path: Path, home: str) -> None:
    (tmp_path / "b").mkdir()
    text = f"x:INTERNAL=/y\nCMAKE_HOME_DIRECTORY:INTERNAL={tmp_path / home}\n"
    (tmp_path / "b/CMakeCache.txt").write_text(text)
    found = _found(tmp_path / "b/sub", tmp_path / "p/src/a.c")
    assert found is not None
    expected = tmp_path if home == "elsewhere" else tmp_path / home
    assert found.root == os.fsencode(expected)
    assert found.build == os.fsencode(tmp_path / "b")
    assert found.inside_build == b"/sub"


@pytest.mark.parametrize(("build", "source"), [("b/sub", "p/a.c"), ("b", "b/a.c")])
def test_a_build_directory_that_is_another_place_is_left_out(
    tmp_path: Path, build: str, source: str
) -> None:
    for name in ("b/sub", "p", build):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    (tmp_path / build / "CMakeCache.txt").write_text(
        f"CMAKE_HOME_DIRECTORY:INTERNAL={(tmp_path / source).parent}\n"
    )
    found = _found(tmp_path / "b/sub", tmp_path / source)
    assert found == Places(
        os.fsencode(tmp_path / "b/sub"), os.fsencode((tmp_path / source).parent), b""
    )
    assert found.inside_build == b""


def test_without_a_sign_it_is_the_directory_above_both(tmp_path: Path) -> None:
    found = _found(tmp_path / "p/b", tmp_path / "p/src/a.c")
    assert found == Places(os.fsencode(tmp_path / "p/b"), os.fsencode(tmp_path / "p"))


def test_a_root_that_is_the_working_directory_is_left_out(tmp_path: Path) -> None:
    found = _found(tmp_path, tmp_path / "a.c")
    assert found == Places(os.fsencode(tmp_path), b"")


def test_the_root_directory_is_no_place() -> None:
    assert _found(Path("/"), Path("/a.c")) is None
