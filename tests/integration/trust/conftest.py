"""Builds one launcher of this tree for all scenarios."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcc_testkit.cache.launcher import build_launcher


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_launcher(tmp_path_factory.mktemp("launcher"))
