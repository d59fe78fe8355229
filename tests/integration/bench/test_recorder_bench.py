"""The bench of the flight recorder runs as documented; no test asserts a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[3] / "bench"


@pytest.mark.timeout(120)
def test_hits_are_measured_with_a_recorder_and_with_one_that_drops(tmp_path: Path) -> None:
    """The bench itself checks that all are hits, and that one daemon recorded them, one none."""
    out = tmp_path / "recorder.json"
    small = ["--rounds", "2", "--compiles", "5", "--headers", "3"]
    done = subprocess.run(
        [sys.executable, BENCH / "recorder.py", *small, "--out", out],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        check=False, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(out.read_text())
    assert figures["compiles"] == 5
    for kind in ("cpu", "wall"):
        assert figures[kind]["milliseconds_on"] > 0
        assert figures[kind]["ratio_median"] > 0
