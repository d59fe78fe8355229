"""Names in a list of nvcc, which writes a slash for a backslash."""

from __future__ import annotations

from hpcc.cache.results.files_read import _with_backslashes


def test_what_a_listed_path_may_stand_for() -> None:
    found = list(_with_backslashes(b"/d/", [b"/d/a/b/c.h", b"/d/a.h", b"/e/x/y"]))
    assert found == [b"/d/a\\b", b"/d/a\\b\\c.h"]
