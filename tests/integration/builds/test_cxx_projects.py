"""Projects with C++20 modules or a precompiled header, built by CMake and Ninja from clean.

The second build has only hits, and all objects are those of a build without hpcc.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc_testkit.cache.launcher import build_launcher, counters, launcher_environment, stop_daemon

MODULES = 30
USERS = 60
HEAD = "cmake_minimum_required(VERSION 3.28)\nproject(many CXX)\nset(CMAKE_CXX_STANDARD 20)\n"
NO_TIMES = 'add_compile_options("$<$<CXX_COMPILER_ID:Clang>:SHELL:-Xclang -fno-pch-timestamp>")\n'


def _modules(tree: Path) -> int:
    """Write modules of which each third has a partition and each imports the one before."""
    files = []
    for n in range(MODULES):
        part = n % 3 == 2
        imports = f"export import m{n - 1};\n" if n else ""
        imports += "export import :part;\n" if part else ""
        body = f"export inline int f{n}(int x) {{ return x + {n}{f' + f{n - 1}(x)' * bool(n)}; }}\n"
        fragment = f'module;\n#include "../include/config.h"\nexport module m{n};\n'
        _write(tree / f"m{n}.cppm", fragment + imports + body)
        files.append(f"m{n}.cppm")
        if part:
            _write(tree / f"p{n}.cppm", f"export module m{n}:part;\nexport using t{n} = int;\n")
            files.append(f"p{n}.cppm")
    _write(tree / "../include/config.h", "#pragma once\n#define CONFIG 1\n")
    _write(tree / "main.cpp", f"import m{MODULES - 1};\nint main() {{ return f0(CONFIGURED); }}\n")
    _write(
        tree / "CMakeLists.txt",
        HEAD + "add_library(mods)\n"
        f"target_sources(mods PUBLIC FILE_SET CXX_MODULES FILES {' '.join(files)})\n"
        "add_executable(main main.cpp)\ntarget_link_libraries(main mods)\n"
        "target_compile_definitions(main PRIVATE CONFIGURED=1)\n",
    )
    return len(files) + 1


def _precompiled(tree: Path) -> int:
    """Write two targets, the second of which takes the precompiled header of the first."""
    _write(tree / "all.h", '#pragma once\n#include <vector>\n#include "own.h"\n')
    _write(tree / "own.h", "#pragma once\ninline int own() { return 1; }\n")
    names = [f"u{n}.cpp" for n in range(USERS)]
    for n, name in enumerate(names):
        text = f"std::vector<int> v{n}() {{ return {{{n}, own()}}; }}\n"
        _write(tree / name, ('#include "own.h"\n' if n % 2 else "") + text)
    half = USERS // 2
    _write(
        tree / "CMakeLists.txt",
        HEAD + NO_TIMES + f"add_library(a {' '.join(names[:half])})\n"
        f"add_library(b {' '.join(names[half:])})\n"
        "target_precompile_headers(a PRIVATE all.h)\ntarget_precompile_headers(b REUSE_FROM a)\n",
    )
    return len(names) + 1


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_launcher(tmp_path_factory.mktemp("launcher"))


@pytest.fixture
def env(tmp_path: Path, launcher: Path) -> Iterator[dict[str, str]]:
    made = launcher_environment(tmp_path / "h")
    yield {**made, "PATH": f"{launcher.parent}:{made['PATH']}"}
    stop_daemon(made)


def build(tree: Path, compiler: str, env: dict[str, str], *more: str) -> dict[str, bytes]:
    """Configure and build from clean; return the objects."""
    directory = tree / "build"
    shutil.rmtree(directory, ignore_errors=True)
    configure = ("cmake", "-G", "Ninja", "-B", "build", f"-DCMAKE_CXX_COMPILER={compiler}", *more)
    for argv in (configure, ("cmake", "--build", "build", "-j2")):
        done = subprocess.run(
            argv, cwd=tree, env=env, capture_output=True, check=False, timeout=300
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
    return {str(p.relative_to(tree)): p.read_bytes() for p in directory.rglob("*.cpp*.o")}


@pytest.mark.nightly
@pytest.mark.parametrize("compiler", ["g++-14", "clang++-19"])
@pytest.mark.parametrize("plant", [_modules, _precompiled], ids=["modules", "pch"])
def test_a_second_build_from_clean_is_all_hits(
    plant: object, compiler: str, env: dict[str, str], tmp_path: Path
) -> None:
    tree = tmp_path / "project/src"
    units = plant(tree)  # type: ignore[operator]  # one of the functions above
    time.sleep(2.1)  # so old that no file counts as changing
    bare = build(tree, compiler, env)
    launched = "-DCMAKE_CXX_COMPILER_LAUNCHER=hpcc"
    assert build(tree, compiler, env, launched) == bare
    first = counters(env)
    assert build(tree, compiler, env, launched) == bare
    second = counters(env)
    hits = second["hit.local"] - first.get("hit.local", 0)
    # CMake's own checks are compiled as well.
    assert hits >= units
    assert second["miss.local"] == first["miss.local"], second
    refused = {name for name in second if name.startswith(("bypass.", "uncacheable."))}
    assert refused <= {"bypass.link", "bypass.info", "bypass.preprocess-only"}, second
