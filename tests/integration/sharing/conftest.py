from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache, open_cache
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc_testkit.cache.compiles import Compiled, FakeLauncher, run_bare
from hpcc_testkit.suite.system_digests import shared_digests

__all__ = ["shared_digests"]  # a fixture of each test here

_LONG_AGO = 3600

FILES = {
    "src/main.c": """\
#include <assert.h>
#include <stdio.h>
#include "util.h"
#include <conf.h>
const char *file(void) { return __FILE__; }
const char *base(void) { return __BASE_FILE__; }
const char *built_in(void) { return __builtin_FILE(); }
void copy(char *to) { __builtin_strcpy(to, __FILE__); }
static int never_called(int a) { return a; }
int main(int argc, char **argv)
{
    int unused;
    assert(argc == CONF && "it does");
    printf("%s %s\\n", header_file(), argv[0]);
    return header(argc);
}
""",
    "src/util.h": """\
#ifndef UTIL_H
#define UTIL_H
#include <assert.h>
#include "deep/inner.h"
static inline int header(int n) { assert(n); int also_unused; return n + INNER; }
static inline const char *header_file(void) { return __FILE__; }
#endif
""",
    "src/deep/inner.h": "#pragma once\n#define INNER 5\n",
    "inc/conf.h": "#define CONF 7\n",
    "inc/forced.h": "#define FORCED 3\n",
    "src/tool.cc": """\
#include <cassert>
#include <string>
#include <vector>
#include "util.h"
#include <conf.h>
namespace { struct Local { Local(); std::string s; } local; Local::Local() { assert(!s.empty()); } }
template <class T> T twice(T t) { int unused; return t + t; }
std::string f(std::vector<int> v) { assert(!v.empty()); v.push_back(CONF); return header_file(); }
const char *file() { return __FILE__; }
const char *built_in() { return __builtin_FILE(); }
int g() { try { return twice(header(3)); } catch (...) { throw; } }
""",
}


@dataclass(slots=True)
class Clone:
    """One checkout with a marker, and a launcher that compiles in it."""

    root: Path
    handler: Cache
    env: dict[str, str] = field(default_factory=dict)
    sources: set[str] = field(default_factory=set)

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.root / name
        self.sources.add(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def age(self) -> None:
        """Make all files older than any compile."""
        old = time.time() - _LONG_AGO
        for path in self.root.rglob("*"):
            if not path.is_symlink():
                os.utime(path, (old, old))
        time.sleep(0.08)

    def compile(self, argv: Sequence[str], cwd: str = ".") -> Compiled:
        launcher = FakeLauncher(handler=self.handler, cwd=self.root / cwd, env=self.env)
        return launcher.compile(*argv)

    def maps(self, cwd: str = ".") -> list[str]:
        """The flags as a user would write them, not as the product computes them."""
        maps = [f"-fmacro-prefix-map={self.root}/=./"]
        maps.append(f"-fdebug-prefix-map={self.root}/=/proc/self/cwd/")
        return [*maps, f"-fdebug-prefix-map={self.root}=/proc/self/cwd"] if cwd == "." else maps

    def bare(self, argv: Sequence[str], cwd: str = ".") -> tuple[int, bytes, bytes]:
        return run_bare(argv, cwd=self.root / cwd, env=self.env)

    def outputs(self) -> dict[str, bytes]:
        found = {}
        for path in sorted(self.root.rglob("*")):
            if path.is_file() and str(path.relative_to(self.root)) not in self.sources:
                found[str(path.relative_to(self.root))] = path.read_bytes()
        return found

    def wipe(self) -> None:
        for name in self.outputs():
            (self.root / name).unlink()


@pytest.fixture
def make_cache(tmp_path: Path) -> Iterator[Callable[[], Cache]]:
    paths = Paths.from_env({"HPCC_DIR": str(tmp_path / "hpcc")})
    opened: list[Cache] = []

    def make() -> Cache:
        cache = open_cache(paths, Settings(), None)
        opened.append(cache)
        return cache

    yield make
    for cache in opened:
        cache.close()


@pytest.fixture
def cache(make_cache: Callable[[], Cache]) -> Cache:
    return make_cache()


@pytest.fixture
def make_clone(cache: Cache, tmp_path: Path) -> Callable[..., Clone]:
    def make(
        name: str, *, marker: str | bytes | None = "", files: Mapping[str, str] | None = None
    ) -> Clone:
        clone = Clone(tmp_path / name, cache)
        for path, text in (files or FILES).items():
            clone.write(path, text)
        (clone.root / "build").mkdir(exist_ok=True)
        if marker is not None:
            clone.write(".hpcc", marker)
        clone.age()
        return clone

    return make


@pytest.fixture
def first(make_clone: Callable[..., Clone]) -> Clone:
    return make_clone("a/project")


@pytest.fixture
def second(make_clone: Callable[..., Clone]) -> Clone:
    """A clone at another depth whose path is longer, so that depfiles break their lines elsewhere."""
    return make_clone("somewhere/else/that is deep/second_checkout-of.it")
