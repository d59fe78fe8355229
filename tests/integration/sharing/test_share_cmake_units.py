"""Two clones that CMake and Ninja build, with precompiled headers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc_testkit.cache.launcher import build_launcher, counters, launcher_environment, stop_daemon

LISTS = """\
cmake_minimum_required(VERSION 3.25)
project(units CXX)
set(CMAKE_CXX_STANDARD 17)
add_compile_options("$<$<CXX_COMPILER_ID:Clang>:SHELL:-Xclang -fno-pch-timestamp>")
add_library(units STATIC src/a.cpp src/b.cpp src/c.cpp)
target_precompile_headers(units PRIVATE <cstddef> src/all.h)
"""
FILES = {
    ".hpcc": "",
    "CMakeLists.txt": LISTS,
    "src/all.h": "#pragma once\n#include <cassert>\ninline int all(int x) { assert(x); return x; }\n",
    **{f"src/{n}.cpp": f"int {n}(int x) {{ return all(x) + sizeof(__FILE__); }}\n" for n in "abc"},
}


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_launcher(tmp_path_factory.mktemp("launcher"))


@pytest.fixture
def env(tmp_path: Path, launcher: Path) -> Iterator[dict[str, str]]:
    env = launcher_environment(tmp_path / "h")
    env["PATH"] = f"{launcher.parent}:{env['PATH']}"
    yield env
    stop_daemon(env)


def build(root: Path, env: dict[str, str], compiler: str, *options: str) -> dict[str, bytes]:
    """Build a clone from nothing, one compile after the other; return objects and depfiles."""
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    shutil.rmtree(root / "build", ignore_errors=True)
    configure = ["cmake", "-B", "build", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"]
    for argv in (
        [*configure, f"-DCMAKE_CXX_COMPILER={compiler}", *options],
        ["ninja", "-C", "build", "-j1"],
    ):
        done = subprocess.run(
            argv, cwd=root, env=env, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
    made = sorted((root / "build").rglob("*.cpp.o"))
    return {str(path.relative_to(root)): path.read_bytes() for path in made}


@pytest.mark.parametrize("compiler", ["g++-14", "clang++-19"])
def test_users_of_a_precompiled_header(compiler: str, env: dict[str, str], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "a/long/way/to/two"
    through = "-DCMAKE_CXX_COMPILER_LAUNCHER=hpcc"
    first = build(one, env, compiler, through)
    assert len(first) == 3
    second = build(two, env, compiler, through)
    counted = counters(env)
    assert second == first, sorted(counted.items())
    assert (counted["hit.shared"], counted["missed.unproved"], counted["private.pch"]) == (2, 1, 2)
    for root in (one, two):
        assert build(root, env, compiler, through) == first
    again = counters(env)
    assert again["hit.local"] - counted["hit.local"] == 8
    assert again["miss.local"] == counted["miss.local"]
    maps = f"-fmacro-prefix-map={two}/=./ -fdebug-prefix-map={two}/=/proc/self/cwd/"
    assert build(two, env, compiler, f"-DCMAKE_CXX_FLAGS={maps}") == first
