"""cppcheck as CMake starts it: the second run has only hits."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from hpcc_testkit.cache.launcher import build_launcher, counters, launcher_environment, stop_daemon

pytestmark = pytest.mark.skipif(
    shutil.which("cppcheck") is None, reason="tools/bootstrap.sh packages test installs cppcheck"
)
FILES = {
    "one.cc": '#include <vector>\n#include "sub/both.h"\nint one() { int a[2] = {}; return a[N]; }\n',
    "two.cc": '#include "sub/both.h"\nint two() { return N; }\n',
    "sub/both.h": "#pragma once\n#define N 2\n",
    "CMakeLists.txt": "cmake_minimum_required(VERSION 3.28)\nproject(p CXX)\n"
    "add_library(p OBJECT one.cc two.cc)\n"
    "target_include_directories(p PRIVATE . missing)\ntarget_compile_definitions(p PRIVATE X=1)\n",
}


def test_cmake_hits_the_second_time(tmp_path: Path) -> None:
    launcher = build_launcher(tmp_path / "launcher")
    env = launcher_environment(tmp_path / "h")
    env["PATH"] = f"{launcher.parent}:{env['PATH']}"
    root = tmp_path / "work"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    time.sleep(0.1)

    def run(*argv: str) -> bytes:
        done = subprocess.run(
            argv, cwd=root, env=env, capture_output=True, check=False, timeout=120
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
        return done.stdout

    def hits() -> tuple[int, int]:
        found = counters(env)
        return found.get("hit.local", 0), found.get("miss.local", 0)

    try:
        cppcheck = "-DCMAKE_CXX_CPPCHECK=hpcc;cppcheck;--enable=warning;--inline-suppr"
        run("cmake", "-G", "Ninja", "-B", "build", cppcheck)
        first = run("cmake", "--build", "build")
        assert first.count(b"[arrayIndexOutOfBounds]") == 1
        assert hits() == (0, 2)
        run("cmake", "--build", "build", "--target", "clean")
        assert run("cmake", "--build", "build").count(b"[arrayIndexOutOfBounds]") == 1
        assert hits() == (2, 2)
        # A header that both sources read.
        (root / "sub/both.h").write_text("#pragma once\n#define N 1\n")
        time.sleep(0.1)
        assert b"arrayIndexOutOfBounds" not in run("cmake", "--build", "build")
        assert hits() == (2, 4)
    finally:
        stop_daemon(env)
