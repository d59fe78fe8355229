from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.runtime.windows.layers.layer import AGENT_STUB_SOURCE
from hpcc_testkit.windows.wine import Wine, cross_build


@pytest.fixture(scope="session")
def wine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wine]:
    """Yield one prefix for all tests, because its first start takes seconds."""
    machine = Wine(tmp_path_factory.mktemp("wine"))
    yield machine
    machine.close()


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the cross-built hpcc-agent.exe."""
    return cross_build(
        AGENT_STUB_SOURCE, tmp_path_factory.mktemp("stub") / "hpcc-agent.exe", "-lshell32"
    )
