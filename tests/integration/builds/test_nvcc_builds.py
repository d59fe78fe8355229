"""A CUDA project as CMake and Ninja build it: the second build has only hits."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from hpcc_testkit.cache.launcher import build_launcher, counters, launcher_environment, stop_daemon
from hpcc_testkit.suite.nvcc import toolkit

UNITS = 20
LISTS = """cmake_minimum_required(VERSION 3.28)
project(p LANGUAGES CXX CUDA)
set(CMAKE_CUDA_STANDARD 17)
file(GLOB units src/*.cu)
add_library(units STATIC ${units})
target_include_directories(units PRIVATE inc)
target_compile_definitions(units PRIVATE NAME="p" SIZE=3)
target_compile_options(units PRIVATE -Wall --expt-relaxed-constexpr -Xcompiler=-fno-strict-aliasing)
set_target_properties(units PROPERTIES CUDA_SEPARABLE_COMPILATION ON POSITION_INDEPENDENT_CODE ON)
add_executable(program main.cu)
target_link_libraries(program units)
"""


def _fill(root: Path, units: int) -> None:
    (root / "src").mkdir(parents=True)
    (root / "inc").mkdir()
    (root / "CMakeLists.txt").write_text(LISTS)
    (root / "inc/both.h").write_text("#pragma once\n#define N 2\n")
    for at in range(units):
        (root / f"src/u{at}.cu").write_text(
            f'#include "both.h"\n__device__ int d{at}(int x) {{ return x * N + SIZE; }}\n'
            f"__global__ void k{at}(int *p) {{ p[threadIdx.x] = d{at}(*p); }}\n"
            f"void r{at}(int *p) {{ k{at}<<<1, 32>>>(p); }}\n"
        )
    calls = "".join(f"r{at}(p); " for at in range(units))
    declared = "".join(f"void r{at}(int *); " for at in range(units))
    (root / "main.cu").write_text(
        f"{declared}\nint main(int c, char **) {{ int *p = 0; if (c > 1) {{ {calls} }} return 0; }}\n"
    )
    time.sleep(0.1)


@pytest.mark.parametrize("generator", ["Ninja", "Unix Makefiles"])
@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_the_second_build_hits(tmp_path: Path, generator: str) -> None:
    launcher = build_launcher(tmp_path / "launcher")
    env = launcher_environment(tmp_path / "h")
    env["PATH"] = f"{launcher.parent}:{env['PATH']}"
    env["CUDAARCHS"] = "80-real"
    root, build = tmp_path / "work", tmp_path / "work/build"
    _fill(root, UNITS)

    def run(*argv: str | Path) -> bytes:
        done = subprocess.run(
            argv, cwd=root, env=env, capture_output=True, check=False, timeout=600
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
        return done.stdout + done.stderr

    def built() -> dict[str, bytes]:
        run("cmake", "-G", generator, "-B", build, f"-DCMAKE_CUDA_COMPILER={toolkit() / 'bin/nvcc'}",
            "-DCMAKE_CUDA_COMPILER_LAUNCHER=hpcc")  # fmt: skip
        run("cmake", "--build", build, "-j2")
        run(build / "program")
        return {str(p.relative_to(build)): p.read_bytes() for p in build.rglob("*.cu.o")}

    def outcome() -> tuple[int, int, list[str]]:
        found = counters(env)
        other = [name for name in found if name.startswith(("uncacheable.", "missed.failed"))]
        return found.get("hit.local", 0), found.get("miss.local", 0), other

    try:
        first = built()
        assert len(first) == UNITS + 1
        assert outcome() == (0, UNITS + 1, [])
        run("rm", "-rf", build)
        assert built() == first
        assert outcome() == (UNITS + 1, UNITS + 1, [])
    finally:
        stop_daemon(env)
