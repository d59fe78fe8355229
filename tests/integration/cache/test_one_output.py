"""Two compiles write one output: neither object is stored, for nobody knows whose it is."""

from __future__ import annotations

from typing import Any

import pytest

from hpcc.cache.cache import Cache
from hpcc_testkit.cache.compiles import FakeLauncher, counted, run_bare

_A = ("gcc", "-c", "a.c", "-o", "x.o")


@pytest.mark.parametrize("kind", ["miss", "hit", "another directory"])
def test_an_object_that_two_compiles_wrote_is_stored_for_neither(
    launcher: FakeLauncher, cache: Cache, project: Any, kind: str
) -> None:
    cwd = launcher.cwd
    project.write("a.c", "int a = 1;\n")
    project.write("b.c", "int b = 2;\n")
    (cwd / "sub").mkdir()
    project.settle()
    other = FakeLauncher(handler=launcher.handler, cwd=launcher.cwd)
    argv = ("gcc", "-c", "b.c", "-o", "x.o")
    if kind == "another directory":
        other.cwd = cwd / "sub"
        argv = ("gcc", "-c", "../b.c", "-o", "../x.o")
    if kind == "hit":
        assert [other.compile(*argv).answer for _ in range(2)] == ["run", "done"]
    run_bare(("gcc", "-c", "a.c", "-o", "bare.o"), cwd=cwd)
    bare = (cwd / "bare.o").read_bytes()
    seen = []
    launcher.after_run = lambda _run: seen.append(other.compile(*argv).answer)
    launcher.compile(*_A)
    assert seen == ["done" if kind == "hit" else "run"]
    refused = counted(cache, "uncacheable.modified-during-compile")
    assert refused == ((1,) if kind == "hit" else (2,))
    launcher.after_run = lambda _run: None
    project.settle()
    assert [launcher.compile(*_A).answer for _ in range(2)] == ["run", "done"]
    assert (cwd / "x.o").read_bytes() == bare
    assert [other.compile(*argv).answer for _ in range(2)][1] == "done"
