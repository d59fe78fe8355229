"""Compiles that write one file know of each other; others do not."""

from __future__ import annotations

import os
from pathlib import Path

from hpcc.cache.replay.writing import Marks, Writing


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


def test_hits_of_forked_processes_are_seen(tmp_path: Path) -> None:
    writing, marks = Writing(), Marks()
    writing.watch(marks)
    path = os.fsencode(tmp_path) + b"/x.o"
    marks.disturb([path])  # before the compile
    one = writing.begin([path])
    _in_a_fork(marks, [os.fsencode(tmp_path) + b"/y.o", os.fsencode(tmp_path) + b"/sub/x.o"])
    assert one.is_alone
    _in_a_fork(marks, [os.fsencode(tmp_path) + b"/./x.o"])
    assert not one.is_alone
    one.end()
    before = marks.written(path)
    _in_a_fork(marks, [path])
    assert marks.written(path) == before, "no compile is under way: nothing is resolved or noted"
    two, three = writing.begin([path]), writing.begin([path + b".d"])
    assert two.is_alone
    three.end()
    _in_a_fork(marks, [path])
    assert not two.is_alone


def _in_a_fork(marks: Marks, paths: list[bytes]) -> None:
    pid = os.fork()
    if not pid:
        try:
            marks.disturb(paths)
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0) == (pid, 0)


def test_what_is_one_file_is_for_its_caller_to_tell() -> None:
    writing = Writing(lambda path: path.replace(b"link", b"w").lower())
    one, two = writing.begin([b"c:/w/x.obj"]), writing.begin([b"c:/w/y.obj"])
    assert one.is_alone
    assert not writing.begin([b"c:/link/x.obj"]).is_alone
    assert not one.is_alone
    writing.disturb([b"c:/link/y.obj"])
    assert not two.is_alone
