"""What counts of the directories below which Clang looks for installations."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcc.cache.base.trees import look_at_tree


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("usr/lib/gcc/x86_64-linux-gnu/12/crtbegin.o", True),
        ("usr/lib/gcc/x86_64-linux-gnu/12/32/crtbegin.o", True),
        ("lib64/gcc-cross/arm-linux-gnueabihf/13/x", True),
        ("usr/include/c++/v1/vector", True),
        ("usr/include/x86_64-linux-gnu/c++/12/bits", True),
        ("x-y-z/include/c++/12/vector", True),
        ("p-q-r/include/c++/12/vector", False),
        ("usr/include/stdio.h", False),
        ("usr/lib/libc.so", False),
        ("usr/lib/python3/x.py", False),
    ],
)
def test_a_tree_counts_what_clang_looks_for(tmp_path: Path, name: str, counts: bool) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/include").mkdir()
    (tmp_path / "lib/gcc/x-y-z").mkdir(parents=True)
    root = os.fsencode(tmp_path)
    before = look_at_tree(root)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert (look_at_tree(root).digest != before.digest) is counts


def test_a_tree_lists_where_more_may_appear(tmp_path: Path) -> None:
    (tmp_path / "lib/gcc/x-y-z/12").mkdir(parents=True)
    root = os.fsencode(tmp_path)
    tree = look_at_tree(root)
    assert {root + b"/lib/gcc", root + b"/lib/gcc/x-y-z/12"} <= {*tree.existing}
    assert {root + b"/usr", root + b"/lib64", root + b"/lib/gcc-cross"} <= {*tree.missing}
    assert not any(map(os.path.lexists, tree.missing))
    assert look_at_tree(root + b"/nowhere").missing
