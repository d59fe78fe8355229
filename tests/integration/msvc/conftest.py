"""clang-cl on Linux: the real program, called by that name, bare and through the cache."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.cache.cache import open_cache
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc_testkit.cache.cl_bench import ClBench


@pytest.fixture(scope="session")
def shared_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base, "hpcc-tests")


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with clang-cl, because clang's mode depends on its name."""
    clang = shutil.which("clang-19") or shutil.which("clang")
    assert clang is not None, "no clang on this machine"
    directory = tmp_path_factory.mktemp("programs")
    (directory / "clang-cl").symlink_to(Path(clang).resolve())
    return directory


@pytest.fixture
def bench(tmp_path: Path, programs: Path) -> Iterator[ClBench]:
    cache = open_cache(Paths.from_env({"HPCC_DIR": str(tmp_path / "hpcc")}), Settings(), None)
    cwd = tmp_path / "work"
    cwd.mkdir()
    yield ClBench(cwd, cache, programs)
    cache.close()
