"""A run in which a test left no report fails, in one process and in several."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# The hook stands for a worker that ends early: the runner does not hear of the second test.
_CONFTEST = """
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item):
    return True if item.name == "test_lost" else None
"""
_TESTS = "def test_first(): pass\ndef test_lost(): pass\ndef test_last(): pass\n"


def _run(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "hpcc_testkit.suite.pytest_all_ran", "-q"]
    return subprocess.run(
        [*command, "-p", "no:cacheprovider", *options, str(directory)],
        cwd=directory, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("options", [(), ("-n", "1")])
def test_a_test_without_a_report_fails_the_run(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "test_three.py").write_text(_TESTS)
    whole = _run(tmp_path, *options)
    assert (whole.returncode, "left no report" in whole.stdout) == (0, False)
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    lost = _run(tmp_path, *options)
    assert lost.returncode == 1
    assert "1 tests left no report" in lost.stdout
    assert "test_three.py::test_lost" in lost.stdout


def test_a_run_that_was_to_stop_early_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "test_three.py").write_text(_TESTS.replace("pass", "assert False", 1))
    stopped = _run(tmp_path, "-x")
    assert stopped.returncode == 1
    assert "left no report" not in stopped.stdout
    assert _run(tmp_path, "--collect-only").returncode == 0
