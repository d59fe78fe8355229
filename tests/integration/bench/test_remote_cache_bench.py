"""The bench of the remote cache runs, and counts what goes to and from the bucket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcc_testkit.services.s3_servers import seaweedfs_missing_or_none

BENCH = Path(__file__).resolve().parents[3] / "bench"
pytestmark = pytest.mark.timeout(300)


@pytest.mark.nightly
def test_a_second_machine_asks_once_for_each_file(tmp_path: Path) -> None:
    if missing := seaweedfs_missing_or_none():
        pytest.skip(missing)
    if os.geteuid():
        pytest.skip("needs root for a network namespace")
    report = tmp_path / "report.json"
    done = subprocess.run(
        [
            sys.executable, BENCH / "remote_cache.py", "--files", "3", "--rounds", "1",
            "--latency", "2", "--json", report,
        ],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),
        },
        check=False, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    tools = {row["build"]: row["tools"] for row in json.loads(report.read_text())["rows"]}
    assert tools.keys() == {"fill", "second", "warm", "auto", "pull", "pack"}
    fill, second = tools["fill"], tools["second"]
    assert fill["hpcc"]["requests"] == 4 * 3  # a miss; then a read, an entry and an outline
    assert second["hpcc"]["requests"] == 3
    if "sccache" in second:
        assert second["sccache"]["requests"] >= 3
    assert second["bare"]["requests"] == 0
    assert tools["pack"]["hpcc"]["requests"] == tools["warm"]["hpcc"]["requests"] == 0
    assert tools["pull"]["hpcc"]["requests"] > 0
    assert "| 2.0 ms | second | requests | 3.00 |" in done.stdout
