"""clang-tidy as CMake and run-clang-tidy start it: the second run has only hits."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc_testkit.cache.launcher import build_launcher, counters, launcher_environment, stop_daemon

TIDY, RUN = "clang-tidy-19", "run-clang-tidy-19"
pytestmark = pytest.mark.skipif(
    shutil.which(TIDY) is None, reason=f"tools/bootstrap.sh packages test installs {TIDY}"
)
FILES = {
    "one.cc": '#include "sub/both.h"\nint *one() { return 0; }\n',
    "two.cc": '#include "sub/both.h"\nint *two() { return both() ? 0 : nullptr; }\n',
    "sub/both.h": "#pragma once\ninline int *both() { return 0; }\n",
    ".clang-tidy": "Checks: '-*,modernize-use-nullptr'\nHeaderFilterRegex: '.*'\n",
    "CMakeLists.txt": "cmake_minimum_required(VERSION 3.28)\nproject(p CXX)\n"
    # CMake then asks for modules, and names a file of further flags in each command.
    "set(CMAKE_CXX_STANDARD 20)\nset(CMAKE_EXPORT_COMPILE_COMMANDS ON)\nadd_library(p OBJECT one.cc two.cc)\n",
}


class Project:
    def __init__(self, root: Path, env: dict[str, str]) -> None:
        self.root, self.env = root, env

    def run(self, *argv: str) -> bytes:
        done = subprocess.run(
            argv, cwd=self.root, env=self.env, capture_output=True, check=False, timeout=120
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
        return done.stdout

    def hits(self) -> tuple[int, int]:
        found = counters(self.env)
        return found.get("hit.local", 0), found.get("miss.local", 0)


def _findings(text: bytes) -> list[bytes]:
    """Return the lines that do not show Ninja's progress, whose order varies."""
    return sorted(line for line in text.splitlines() if not line.startswith(b"["))


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    launcher = build_launcher(tmp_path / "launcher")
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / TIDY).symlink_to(launcher)
    env = launcher_environment(tmp_path / "h")
    places = (masks, launcher.parent, Path(shutil.which(TIDY) or "").parent, env["PATH"])
    env["PATH"] = ":".join(map(str, places))
    root = tmp_path / "work"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    time.sleep(0.1)
    yield Project(root, env)
    stop_daemon(env)


def test_cmake_and_run_clang_tidy_hit_the_second_time(project: Project) -> None:
    tidy = f"-DCMAKE_CXX_CLANG_TIDY=hpcc;{TIDY}"
    compiler = ("-DCMAKE_CXX_COMPILER=clang++-19", "-DCMAKE_CXX_COMPILER_LAUNCHER=hpcc")
    project.run("cmake", "-G", "Ninja", "-B", "build", tidy, *compiler)
    first = project.run("cmake", "--build", "build")
    assert first.count(b"[modernize-use-nullptr]") == 4
    assert project.hits() == (0, 4)
    project.run("cmake", "--build", "build", "--target", "clean")
    again = project.run("cmake", "--build", "build")
    assert _findings(again) == _findings(first)
    assert project.hits() == (4, 4)
    by_database = (RUN, "-p", "build", "-quiet", "-j2", "-clang-tidy-binary", TIDY)
    found = [project.run(*by_database).count(b"[modernize-use-nullptr]") for _ in range(2)]
    assert found == [4, 4]
    assert project.hits() == (6, 6)
    # The header's own configuration counts for no check here, and might for others.
    (project.root / "sub/.clang-tidy").write_text("Checks: '-*'\n")
    project.run(*by_database)
    assert project.hits() == (6, 8)
    assert not [p for p in project.root.rglob("*.d") if "CMakeFiles" not in p.parts]
