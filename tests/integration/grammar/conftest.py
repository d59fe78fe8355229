"""A directory to compile in, bare and through the cache, and the compilers of this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache, open_cache
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc_testkit.cache.compiles import Compiled, FakeLauncher, run_bare
from hpcc_testkit.suite.system_digests import shared_digests

__all__ = ["shared_digests"]  # a fixture of each test here

_LONG_AGO = 3600


class Bench:
    """Compiles every step bare and through the cache and compares all files that they leave."""

    def __init__(self, cwd: Path, cache: Cache) -> None:
        self.cwd, self.cache = cwd, cache
        self.launcher = FakeLauncher(handler=cache, cwd=cwd)

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.cwd / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.age(path)
        return path

    def age(self, path: Path) -> None:
        """Make a file old, and wait so that its change time is older than the next compile."""
        old = time.time() - _LONG_AGO
        os.utime(path, (old, old))
        time.sleep(0.08)

    def compile(self, *argv: str, output: str = "out/x.o") -> tuple[Compiled, bytes]:
        """Return the answer and the object, after comparing both with a bare compile."""
        target = self.cwd / output
        target.unlink(missing_ok=True)
        bare = run_bare(argv, cwd=self.cwd)
        expected = target.read_bytes() if target.exists() else b""
        target.unlink(missing_ok=True)
        got = self.launcher.compile(*argv)
        found = target.read_bytes() if target.exists() else b""
        assert (got.exit_code, got.stdout, got.stderr) == bare
        assert found == expected
        return got, found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    cache = open_cache(Paths.from_env({"HPCC_DIR": str(tmp_path / "hpcc")}), Settings(), None)
    cwd = tmp_path / "work"
    (cwd / "out").mkdir(parents=True)
    yield Bench(cwd, cache)
    cache.close()
