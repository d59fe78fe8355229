"""A pytest plugin: writes every report as a line on an inherited descriptor."""

from __future__ import annotations

import json
import os
from typing import Final

import pytest

DESCRIPTOR_VARIABLE: Final = "HPCC_NESTED_REPORTS"
MARK: Final = "@report "


class Reporter:
    """Holds pytest's configuration, which serializes reports."""

    def __init__(self, config: pytest.Config, fd: int) -> None:
        self._config, self._fd = config, fd

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        line = f"\n{MARK}{json.dumps(data)}\n".encode()
        while line:
            line = line[os.write(self._fd, line) :]


def pytest_configure(config: pytest.Config) -> None:
    """Register the reporter."""
    config.pluginmanager.register(Reporter(config, int(os.environ[DESCRIPTOR_VARIABLE])))
