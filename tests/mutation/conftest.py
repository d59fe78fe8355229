"""Makes one copy of the source for all cases of a test process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc_testkit.suite.mutants import Mutants

ROOT = Path(__file__).resolve().parents[2]
# A test that notices by its own hang guard needs that guard's seconds, and the load of a machine.
_SECONDS = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each row more time than the test that it runs may take."""
    for item in items:
        is_row = Path(__file__).parent in item.path.parents
        if is_row and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_SECONDS))


@pytest.fixture(scope="session")
def mutants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mutants]:
    """Copy the source; assert that Python imports the copy there, including its library."""
    copied = Mutants(ROOT, tmp_path_factory.mktemp("mutants"))
    names = "hpcc.__file__, u.find_spec(n.LIBRARY).origin"
    text = f"import hpcc, hpcc.cache.replay.native as n, importlib.util as u; print({names}, sep='\\n')"
    code, said = copied.run([sys.executable, "-c", text], 60)
    assert code == 0, said
    assert all(Path(line).is_relative_to(copied.source) for line in said.split())
    yield copied
    copied.close()
