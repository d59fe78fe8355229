"""`make bench-corpus ARGS=--farm`: which compiles travel, on a farm of this machine."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))

from corpus.farming import FarmHpcc, FarmProcess
from corpus.recording import Command, command_of
from corpus.replaying import Replayer
from corpus.tools import BARE, Tool
from corpus.travel import Travel, measure_travel, put_under_control, without_line_breaks

LAUNCHER = Path(sys.executable).parent / "hpcc"


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[FarmProcess]:
    process = FarmProcess(tmp_path / "farm")
    yield process
    process.close()


def _commands(root: Path) -> list[Command]:
    (root / "build").mkdir(parents=True)
    (root / "src").mkdir()
    (root / "src/a.h").write_text("#define A 1\n")
    (root / "src/a.c").write_text('#include "a.h"\n#include <assert.h>\n'
                                  "int f(int x) { assert(x); return A; }\n")  # fmt: skip
    (root / "src/b.c").write_text(f'#include "{root}/src/a.h"\nint b = A;\n')
    old = time.time() - 3600
    for path in root.rglob("*"):
        os.utime(path, (old, old))
    found = []
    for name in ("a", "b"):
        argv = ("gcc", "-g", f"-I{root}/src", "-MD", "-MF", f"{name}.o.d", "-c",
                f"{root}/src/{name}.c", "-o", f"{name}.o")  # fmt: skip
        command = command_of(str(root / "build"), argv)
        assert command is not None
        found.append(command)
    return found


@pytest.mark.timeout(300)
def test_a_compile_travels_with_the_bytes_of_a_compile_here(
    tmp_path: Path, farm: FarmProcess
) -> None:
    root = tmp_path / "tree"
    commands = _commands(root)
    put_under_control(root)
    replayer = Replayer(tmp_path / "work", float("inf"), normal=without_line_breaks)
    hpcc = FarmHpcc(LAUNCHER, tmp_path / "hpcc", farm.client)
    travel = Travel("two sources")
    try:
        hpcc.start()
        hpcc.warm_up(tmp_path)
        measure_travel(replayer, Tool(BARE, (), {}), hpcc, commands, travel)
    finally:
        hpcc.stop()
    assert (travel.commands, travel.travelled, travel.differing) == (2, 1, [])
    (why,) = travel.stayed
    assert why.startswith("exit-code")  # the guest has the header at another path
