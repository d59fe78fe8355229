"""One machine for the end-to-end tests: a toolchain image made once, everything else per test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc_testkit.farm.machine import Machine


@pytest.fixture(scope="session")
def shared_cache() -> Path:
    """Images and guest assets, kept between runs: they are named by content."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    directory = Path(base, "hpcc-tests")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def toolchain(shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The pinned reference of an image with gcc and g++, of the distribution's packages."""
    machine = Machine(tmp_path_factory.mktemp("image"), shared_cache)
    done = machine.hpcc("image", "build-debian", "--if-missing", "gcc", "g++", timeout=900)
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture
def machine(tmp_path: Path, shared_cache: Path, toolchain: str) -> Iterator[Machine]:
    """hpcc with a state of its own; down, and checked to have left nothing, at the end."""
    machine = Machine(tmp_path, shared_cache)
    try:
        yield machine
    finally:
        machine.close()
    assert machine.leftovers() == []
