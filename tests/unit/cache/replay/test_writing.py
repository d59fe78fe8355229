"""Compiles that write one file know of each other; others do not."""

from __future__ import annotations

import os
from pathlib import Path

from hpcc.cache.replay.writing import Writing


def test_two_compiles_of_one_output_are_not_alone(tmp_path: Path) -> None:
    writing = Writing()
    (tmp_path / "link").symlink_to(tmp_path)
    here = os.fsencode(tmp_path)
    one, two = writing.begin([here + b"/x.o", here + b"/x.d"]), writing.begin([here + b"/y.o"])
    three = writing.begin([here + b"/link/x.d"])
    assert (one.is_alone, two.is_alone, three.is_alone) == (False, True, False)
    one.end()
    three.end()
    three.end()
    assert writing.begin([here + b"/x.o"]).is_alone


def test_a_hit_disturbs_who_writes_the_same_file(tmp_path: Path) -> None:
    writing = Writing()
    here = os.fsencode(tmp_path)
    one = writing.begin([here + b"/x.o"])
    writing.disturb([here + b"/sub/x.o", here + b"/y.o"])
    assert one.is_alone
    writing.disturb([here + b"/./x.o"])
    assert not one.is_alone


def test_devices_have_many_writers() -> None:
    writing = Writing()
    assert all(writing.begin([b"/dev/null"]).is_alone for _ in range(2))
