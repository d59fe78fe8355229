from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcc.cache.base.api import RemoteClient
from hpcc.cache.cache import Cache, open_cache
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc_testkit.cache.compiles import FakeLauncher, log_counters
from hpcc_testkit.suite.system_digests import shared_digests

__all__ = ["shared_digests"]  # a fixture of each test here

_LONG_AGO = 3600


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_env({"HPCC_DIR": str(tmp_path / "hpcc")})


@pytest.fixture
def make_cache(paths: Paths) -> Iterator[Callable[..., Cache]]:
    opened: list[Cache] = []

    def make(remote: RemoteClient | None = None, settings: Settings | None = None) -> Cache:
        cache = open_cache(paths, settings or Settings(), remote)
        opened.append(cache)
        return cache

    yield make
    for cache in opened:
        log_counters(cache)
        cache.close()


class Project:
    """A small source tree whose files are so old that their stats may be remembered."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def settle(self) -> None:
        """Wait until the written files count as older than the next compile."""
        time.sleep(0.08)

    def fill(self) -> None:
        self.write(
            "src/main.c",
            '#include <stdio.h>\n#include <string.h>\n#include "util.h"\n#include <conf.h>\n'
            "int main(void) { int unused; return (int)strlen(NAME) + CONF; }\n",
        )
        self.write(
            "src/util.h", '#ifndef UTIL_H\n#define UTIL_H\n#include "deep/inner.h"\n#endif\n'
        )
        self.write("src/deep/inner.h", '#define NAME "inner"\n')
        self.write("inc/conf.h", "#define CONF 7\n")
        self.write(
            "src/tool.cc",
            '#include <string>\n#include "util.h"\nstd::string f() { return NAME; }\n',
        )
        self.write("src/low.S", '#include "low.h"\n.globl low\nlow: .long LOW\n')
        self.write("src/low.h", "#define LOW 5\n")
        (self.directory / "early").mkdir()
        (self.directory / "build").mkdir()
        old = time.time() - _LONG_AGO
        for path in self.directory.rglob("*"):
            os.utime(path, (old, old))
        self.settle()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path / "work dir")
    project.fill()
    return project


@pytest.fixture
def cache(make_cache: Callable[..., Cache]) -> Cache:
    return make_cache()


@pytest.fixture
def launcher(cache: Cache, project: Project) -> FakeLauncher:
    return FakeLauncher(handler=cache, cwd=project.directory)
