"""The parts of the farm's benches that need no farm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcc.core import Digest, ExecRequest, InputFile

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))

from _farm_process import CoreUse
from _farm_rows import Figure
from _farm_scale import Run, idle
from _farm_sleeper import stub
from _measure import BenchError
from _peers import Programs


@pytest.mark.parametrize(
    ("value", "is_least", "verdict"),
    [(0.95, True, "≥ 0.9 | holds"), (0.8, True, "≥ 0.9 | **misses**"), (0.8, False, "≤ 0.9 | holds")],
)  # fmt: skip
def test_a_goal_is_the_most_or_the_least(value: float, is_least: bool, verdict: str) -> None:
    assert verdict in Figure("x", value, "", 0.9, is_least=is_least).line()


def test_the_use_of_a_core_is_that_of_its_own_line_and_has_no_interrupts() -> None:
    second = os.sysconf("SC_CLK_TCK")
    ticks = [n * second for n in (5, 1, 2, 90, 7, 30, 40, 3, 4, 0)]
    stat = "cpu " + "9 " * 10 + "\ncpu1 " + " ".join(map(str, ticks)) + "\ncpu10 " + "8 " * 10
    assert CoreUse.of("1", stat) == CoreUse(programs=8.0, stolen=3.0)
    with pytest.raises(BenchError, match="no core 2"):
        CoreUse.of("2", stat)


def test_a_slot_is_idle_between_two_runs_and_not_before_the_build() -> None:
    runs = [Run(1, 0.0, 1.0), Run(1, 7.5, 8.0), Run(1, 5.0, 6.0), Run(1, 8.25, 9.0)]
    assert idle(runs) == [1.5, 0.25]


def test_the_program_that_sleeps_makes_object_and_dependency_file(tmp_path: Path) -> None:
    request = ExecRequest(
        exec_id="1", argv=("gcc", "-MD", "-c", "a b.c", "-o", "out/a.o"), env=(), cwd="sub",
        inputs=(InputFile("sub/a b.c", Digest.of(b"int a;\n")),),
        outputs=("sub/out/a.o", "sub/out/a.d"),
    )  # fmt: skip
    (tmp_path / "out").mkdir()
    (tmp_path / "a b.c").write_text("int a;\n")
    subprocess.run(["/bin/sh", "-c", stub(request, 0.0)], cwd=tmp_path, check=True)
    assert (tmp_path / "out/a.o").read_text() == "int a;\n"
    assert (tmp_path / "out/a.d").read_text() == "a.o: a b.c\n"


def test_a_missing_peer_is_named_with_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(
        BenchError, match="not-there is not installed: apt-get install distcc icecc"
    ):
        Programs(tmp_path).path("not-there")
