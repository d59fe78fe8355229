"""Projects with C++20 modules, `import std` or a precompiled header, by CMake and Ninja from clean.

The second build has only hits, and all objects are those of a build without hpcc.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcc_testkit.cache.cxx_projects import plant_modules, plant_precompiled, plant_std
from hpcc_testkit.cache.launcher import build_launcher, counters, launcher_environment, stop_daemon
from hpcc_testkit.suite.newest_clang import newest


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
@pytest.mark.timeout(900)  # three builds of sixty sources
@pytest.mark.parametrize(
    ("compiler", "plant"),
    [
        ("g++-14", plant_modules),
        ("clang++-19", plant_modules),
        newest("clang++-22", plant_modules),
        ("g++-14", plant_precompiled),
        ("clang++-19", plant_precompiled),
        newest("clang++-22", plant_precompiled),
        ("clang++-19", plant_std),
        newest("clang++-22", plant_std),
    ],
)
def test_a_second_build_from_clean_is_all_hits(
    compiler: str, plant: Callable[[Path], int], env: dict[str, str], tmp_path: Path
) -> None:
    if plant is plant_std:
        env["CXXFLAGS"] = "-stdlib=libc++"
    tree = tmp_path / "project/src"
    units = plant(tree)
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
