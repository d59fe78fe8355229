"""Builds one launcher of this tree for all scenarios."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcc_testkit.cache.launcher import build_launcher


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # On a busy machine a daemon may get no processor for seconds. A launcher that gives up compiles
    # without it, for the next ten seconds too, and the scenarios ask what the cache answers.
    patience = tuple(f"-D{n}_MS=120000" for n in ("START", "FIRST_FRAME", "NEXT_FRAME"))
    return build_launcher(tmp_path_factory.mktemp("launcher"), *patience)
