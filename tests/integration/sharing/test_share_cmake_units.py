"""Two clones that CMake and Ninja build, with precompiled headers or named modules."""

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
HEADERS = {
    ".hpcc": "",
    "CMakeLists.txt": LISTS,
    "src/all.h": "#pragma once\n#include <cassert>\ninline int all(int x) { assert(x); return x; }\n",
    **{f"src/{n}.cpp": f"int {n}(int x) {{ return all(x) + sizeof(__FILE__); }}\n" for n in "abc"},
}
MODULES = {
    ".hpcc": "",
    "CMakeLists.txt": """\
cmake_minimum_required(VERSION 3.28)
project(units CXX)
set(CMAKE_CXX_STANDARD 20)
add_library(units STATIC src/a.cpp src/b.cpp)
target_sources(units PUBLIC FILE_SET CXX_MODULES FILES src/base.cppm src/mid.cppm)
""",
    "src/base.cppm": "export module base;\n"
    "export inline int base(int x) { return x + sizeof(__FILE__); }\n",
    "src/mid.cppm": "export module mid;\nexport import base;\nexport int mid(int x);\n",
    "src/a.cpp": "module mid;\nint mid(int x) { return base(x); }\n",
    "src/b.cpp": "import mid;\nint b() { return mid(base(1)); }\n",
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


def build(
    root: Path, files: dict[str, str], env: dict[str, str], compiler: str, *options: str
) -> dict[str, bytes]:
    """Build a clone from nothing, one compile after the other; return the objects of units."""
    for name, text in files.items():
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
@pytest.mark.parametrize("kind", ["pch", "modules"])
def test_what_reads_a_binary_input(
    kind: str, compiler: str, env: dict[str, str], tmp_path: Path
) -> None:
    files = HEADERS if kind == "pch" else MODULES
    one, two = tmp_path / "one", tmp_path / "a/long/way/to/two"
    through = "-DCMAKE_CXX_COMPILER_LAUNCHER=hpcc"
    first = build(one, files, env, compiler, through)
    second = build(two, files, env, compiler, through)
    counted = counters(env)
    assert second == first, sorted(counted.items())
    made, users = (1, 3) if kind == "pch" else (2, 2)
    assert len(first) == users
    assert (counted["hit.shared"], counted["missed.unproved"]) == (users - 1, 1)
    assert counted[f"private.{kind}"] == 2 * made
    for root in (one, two):
        assert build(root, files, env, compiler, through) == first
    again = counters(env)
    assert again["hit.local"] - counted["hit.local"] == 2 * (made + users)
    assert again["miss.local"] == counted["miss.local"]
    maps = f"-fmacro-prefix-map={two}/=./ -fdebug-prefix-map={two}/=/proc/self/cwd/"
    assert build(two, files, env, compiler, f"-DCMAKE_CXX_FLAGS={maps}") == first
