"""Random edits and damage, bounded in time; `make soak` runs the same without a bound."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from hpcc_testkit.cache.launcher import ROOT
from hpcc_testkit.cache.soak import soak

_OPERATIONS = 260  # half a minute on an idle machine of two cores
_SECONDS = 240


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a real project: Lua if the network may be used, else the launcher's sources."""
    if os.environ.get("HPCC_TEST_DEBIAN") != "1":
        return ROOT / "launcher"
    directory = tmp_path_factory.mktemp("lua")
    fetch = [ROOT / "tools/fetch_source.sh", "lua5.4", directory]
    subprocess.run(fetch, check=True, capture_output=True, timeout=300)
    with tarfile.open(next(directory.glob("lua5.4_*.orig.tar.*"))) as archive:
        archive.extractall(directory, filter="data")
    return next(directory.glob("*/src"))


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_random_edits_never_give_another_result(
    launcher: Path, tmp_path: Path, sources: Path
) -> None:
    tally = soak(
        launcher,
        tmp_path,
        seed=20261124,
        operations=_OPERATIONS,
        seconds=_SECONDS,
        sources=sources,
    )
    counted = tally.counted
    assert tally.operations > 50
    # A cache that answered nothing would differ in nothing.
    assert tally.must_hits > 0
    assert counted["hit.local"] > 5
    assert counted["missed.new-command"] > 5
    assert counted["hit.shared"] > 0
    assert counted["missed.inputs-changed"] > 0
