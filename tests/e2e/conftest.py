"""One machine for the end-to-end tests. The toolchain image and a guest snapshot are made once.

Everything else is made per test.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc_testkit.farm.booted import base_root, missing_or_none
from hpcc_testkit.farm.machine import POLL_SECONDS, Machine


@pytest.fixture(scope="session")
def shared_cache() -> Path:
    """Return the cache of images and guest assets. Content names them, so runs share it."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    directory = Path(base, "hpcc-tests")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def toolchain(shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the pinned reference of an image with the distribution's gcc and g++."""
    machine = Machine(tmp_path_factory.mktemp("image"), shared_cache)
    done = machine.hpcc("image", "build-debian", "--if-missing", "gcc", "g++", timeout=900)
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="session")
def machines_base(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    """Return the root, with hpcc's packages, that booted machines are overlays on."""
    if missing := missing_or_none():
        pytest.skip(missing)
    return base_root(shared_cache, tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def snapshots(
    shared_cache: Path, toolchain: str, tmp_path_factory: pytest.TempPathFactory
) -> Path | None:
    """Return the snapshot directory of all tests' workers. It has a snapshot, so they boot nothing.

    Tests of booting and of taking snapshots override this fixture with None.
    """
    directory = tmp_path_factory.mktemp("snapshots")
    machine = Machine(tmp_path_factory.mktemp("first"), shared_cache, directory)
    try:
        machine.hpcc("up", "--image", toolchain)
        (machine.root / "first.c").write_text("int first;\n")
        machine.run(["hpcc", "gcc", "-c", "first.c"])
        wait_for_snapshot(directory)
    finally:
        machine.close()
    return directory


def wait_for_snapshot(directory: Path, seconds: float = 420) -> None:
    deadline = time.monotonic() + seconds
    while not list(directory.glob("*/snapshot.json")):
        assert time.monotonic() < deadline, f"no snapshot within {seconds} s"
        time.sleep(POLL_SECONDS)


@pytest.fixture
def machine(
    tmp_path: Path, shared_cache: Path, toolchain: str, snapshots: Path | None
) -> Iterator[Machine]:
    """Yield hpcc with private state. At the end it is down and must have left nothing."""
    machine = Machine(tmp_path, shared_cache, snapshots)
    try:
        yield machine
    finally:
        machine.close()
    assert machine.leftovers() == []
