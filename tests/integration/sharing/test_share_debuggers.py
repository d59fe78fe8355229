"""A debugger finds the local clone's sources for an object that another clone compiled."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from hpcc.cli.cache.checkout import gdb_lines, lldb_line

from .conftest import Clone

_C = ("gcc-14", "clang-19")
_DEBUGGERS = tuple(filter(shutil.which, ("gdb", "lldb-19")))
_PLACES = {
    "root": (".", "."),
    "root-abs": (".", ""),
    "build": ("build", ".."),
    "build-abs": ("build", ""),
}


def _debug(program: Path, cwd: Path, lines: list[str], debugger: str) -> str:
    if debugger == "gdb":
        words = [w for line in [*lines, "list header", "list main"] for w in ("-ex", line)]
        argv = ["gdb", "-nx", "-batch", *words, str(program)]
    else:
        asked = [*lines, "source list -n header", "source list -n main"]
        words = [w for line in asked for w in ("-o", line)]
        argv = [debugger, "-x", "-b", *words, str(program)]
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout


@pytest.mark.parametrize("debugger", _DEBUGGERS)
@pytest.mark.parametrize("place", _PLACES)
@pytest.mark.parametrize("compiler", _C)
def test_sources_are_found(
    compiler: str, place: str, debugger: str, first: Clone, second: Clone
) -> None:
    cwd, spelled = _PLACES[place]
    for clone in (first, second):
        at = spelled or str(clone.root)
        argv = (compiler, "-g", "-O0", f"-I{at}/inc", "-c", f"{at}/src/main.c", "-o", "main.o")
        answer = clone.compile(argv, cwd).answer
    assert answer == "done"
    subprocess.run([compiler, "main.o", "-o", "main"], cwd=second.root / cwd, check=True)
    shutil.rmtree(first.root)
    program = second.root / cwd / "main"
    root = str(second.root)
    lines = gdb_lines(root) if debugger == "gdb" else [lldb_line(root)]
    for where, how in ((second.root, []), (Path("/"), lines)):
        shown = _debug(program, where, how, debugger)
        assert "also_unused" in shown, (where, shown)
        assert "it does" in shown, (where, shown)
