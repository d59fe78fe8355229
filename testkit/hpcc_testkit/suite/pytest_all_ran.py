"""A pytest plugin: a run in which a collected test left no report is a failed run.

The problem: a worker of a parallel run that loses its controller ends early, and the tests that it
had left are in no list. Such a run could end with "passed".

The rule: each test that was collected, and not deselected, has a report. What was asked to stop
early (`-x`, Ctrl-C) or failed already is not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pytest

_SHOWN: Final = 20


def pytest_configure(config: pytest.Config) -> None:
    """Register the check, except in a worker, whose reports the controller gets."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_AllRan())


class _AllRan:
    def __init__(self) -> None:
        self._expected: set[str] = set()
        self._seen: set[str] = set()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:  # noqa: ANN401 - xdist has no types
        self._expected.update(ids)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if not session.config.option.collectonly:
            self._expected.update(item.nodeid for item in session.items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seen.add(report.nodeid)

    @pytest.hookimpl(tryfirst=True)  # before the terminal's summary
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        missing = sorted(self._expected - self._seen)
        if not missing or session.exitstatus != pytest.ExitCode.OK or session.shouldstop:
            return
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
        reporter.section(f"{len(missing)} tests left no report")
        for name in missing[:_SHOWN]:
            reporter.write_line(name)
