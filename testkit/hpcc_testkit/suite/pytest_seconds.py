"""A pytest plugin: a table of seconds per directory ends each run of more than 50 tests.

The controller of a parallel run sees all reports, so only the controller prints. Worker-seconds are
the sums of set-up, call and teardown over all workers; two workers spend two of them each second.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

import pytest

from hpcc_testkit.suite.pytest_selection import REPORTS

TABLE: Final = f"{REPORTS}/seconds.tsv"
_MIN_TESTS: Final = 50
_PHASES: Final = ("setup", "call", "teardown")
_SECONDS: Final = pytest.StashKey["Seconds"]()
_HEADER: Final = ("directory", "tests", "seconds", *_PHASES)


@dataclass(slots=True)
class Seconds:
    """Sums by directory and phase."""

    tests: Counter[str] = field(default_factory=Counter)
    spent: dict[tuple[str, str], float] = field(default_factory=dict)

    def add(self, node_id: str, phase: str, seconds: float) -> None:
        """Count one report. Each test has one set-up, so set-ups are counted as tests."""
        directory = str(PurePosixPath(node_id.partition("::")[0]).parent)
        self.tests[directory] += phase == "setup"
        key = directory, phase
        self.spent[key] = self.spent.get(key, 0.0) + seconds

    def rows(self) -> list[tuple[str, int, float, float, float, float]]:
        """Return directory, tests, all seconds and those of each phase; the costliest first."""
        found = []
        for directory, tests in self.tests.items():
            setup, call, teardown = (self.spent.get((directory, p), 0.0) for p in _PHASES)
            found.append((directory, tests, setup + call + teardown, setup, call, teardown))
        return sorted(found, key=lambda row: -row[2])


def pytest_configure(config: pytest.Config) -> None:
    """Register the counter, except in a worker, whose reports the controller gets."""
    if not hasattr(config, "workerinput"):
        config.stash[_SECONDS] = Seconds()
        config.pluginmanager.register(_Reports(config.stash[_SECONDS]))


class _Reports:
    def __init__(self, seconds: Seconds) -> None:
        self._seconds = seconds

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds.add(report.nodeid, report.when, report.duration)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the table and write it to a file, to be compared with other runs."""
    seconds = config.stash.get(_SECONDS, None)
    if seconds is None or seconds.tests.total() <= _MIN_TESTS:
        return
    rows = seconds.rows()
    terminalreporter.section("worker-seconds per directory")
    width = max(len(row[0]) for row in rows)
    columns = " ".join(f"{name:>8}" for name in _HEADER[1:])
    terminalreporter.write_line(f"{_HEADER[0]:{width}} {columns}")
    for directory, tests, *times in [*rows, ("all", *total(rows))]:
        numbers = " ".join(f"{number:8.1f}" for number in times)
        terminalreporter.write_line(f"{directory:{width}} {tests:8} {numbers}")
    if not os.environ.get("HPCC_NESTED"):  # its file system is a layer in memory
        write(config.rootpath / TABLE, rows)
        reports = [TABLE, config.option.xmlpath] if config.option.xmlpath else [TABLE]
        terminalreporter.write_line(f"kept in {' and '.join(reports)}")


def total(rows: list[tuple[str, int, float, float, float, float]]) -> tuple[float, ...]:
    """Return the sums of the columns after the first."""
    return tuple(sum(column) for column in list(zip(*rows, strict=True))[1:])


def write(file: Path, rows: list[tuple[str, int, float, float, float, float]]) -> None:
    """Write the table as tab-separated text."""
    file.parent.mkdir(exist_ok=True)
    lines = ["\t".join(_HEADER)]
    for directory, tests, *times in rows:
        lines.append("\t".join([directory, str(tests), *(f"{t:.2f}" for t in times)]))
    file.write_text("\n".join(lines) + "\n")
