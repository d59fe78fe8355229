"""Two clones of a CMake project, each built by its owner through the launcher and a daemon."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.cache.results.records_read import read_records
from hpcc_testkit.cache.launcher import build_launcher, counters, launcher_environment, stop_daemon

from .conftest import FILES

_CMAKE = """\
cmake_minimum_required(VERSION 3.16)
project(shared C CXX)
add_compile_options(-Wall)
include_directories(inc)
add_library(tool STATIC src/tool.cc src/more.cc)
add_executable(main src/main.c)
target_link_libraries(main tool stdc++)
"""


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_launcher(tmp_path_factory.mktemp("launcher"))


@pytest.fixture
def env(tmp_path: Path, launcher: Path) -> Iterator[dict[str, str]]:
    env = launcher_environment(tmp_path / "h")
    env["PATH"] = f"{launcher.parent}:{env['PATH']}"
    yield env
    stop_daemon(env)


def _clone(root: Path) -> Path:
    for name, text in {**FILES, "CMakeLists.txt": _CMAKE, ".hpcc": 'name = "shared"\n'}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "src/more.cc").write_text('#include "util.h"\nint more() { return header(2); }\n')
    return root


def _build(root: Path, env: dict[str, str], *options: str, launcher: str = "hpcc") -> str:
    words = [f"-DCMAKE_{lang}_COMPILER_LAUNCHER={launcher}" for lang in ("C", "CXX") if launcher]
    shutil.rmtree(root / "build", ignore_errors=True)
    said = ""
    for argv in (
        ["cmake", "-B", "build", "-DCMAKE_BUILD_TYPE=RelWithDebInfo", *words, *options],
        ["cmake", "--build", "build"],
    ):
        done = subprocess.run(
            argv, cwd=root, env=env, capture_output=True, text=True, check=False, timeout=100
        )
        assert done.returncode == 0, done.stdout + done.stderr
        said = done.stderr
    return said


def _made(root: Path, ending: str) -> dict[str, bytes]:
    build = root / "build/CMakeFiles"
    return {str(p.relative_to(build)): p.read_bytes() for p in sorted(build.rglob(f"*{ending}"))}


def test_the_second_clone_of_a_project_is_built_from_hits(
    env: dict[str, str], tmp_path: Path
) -> None:
    one, two = _clone(tmp_path / "one"), _clone(tmp_path / "a/long/way/to/two")
    time.sleep(0.1)
    _build(one, env)
    before = counters(env)
    said = _build(two, env)
    after = counters(env)
    assert after["hit.shared"] - before.get("hit.shared", 0) >= 3
    objects = _made(two, ".o")
    assert objects == _made(one, ".o")
    assert not any(os.fsencode(tmp_path) in data for data in objects.values())
    depfiles = _made(two, ".o.d")
    # As the compiler writes them here, and with the warnings it gives here.
    maps = f"-fmacro-prefix-map={two}/=./ -fdebug-prefix-map={two}/=/proc/self/cwd/"
    flags = [f"-DCMAKE_{lang}_FLAGS={maps}" for lang in ("C", "CXX")]
    assert _build(two, env, *flags, launcher="") == said
    assert str(two) in said
    assert _made(two, ".o") == objects
    assert _made(two, ".o.d") == depfiles


def test_explain_names_this_clones_files(env: dict[str, str], tmp_path: Path) -> None:
    one, two = _clone(tmp_path / "one"), _clone(tmp_path / "two")
    time.sleep(0.1)
    for root in (one, two):
        argv = ["hpcc", "gcc", "-Iinc", "-c", "src/main.c", "-o", "main.o"]
        subprocess.run(argv, cwd=root, env=env, check=True, capture_output=True)
    counters(env)
    records = read_records(os.path.join(env["HPCC_DIR"], "cache"))
    assert [r.outcome for r in records] == ["miss.local", "hit.local"]
    for record, root in zip(records, (one, two), strict=True):
        assert str(root / "inc/conf.h") in record.files
        assert not any("\0" in name for name in record.files)
    said = subprocess.run(
        ["hpcc", "explain", "src/main.c"], cwd=two, env=env, check=True, capture_output=True
    ).stdout
    assert b"a hit" in said
    said = subprocess.run(
        ["hpcc", "inspect", "main.o"], cwd=two, env=env, check=True, capture_output=True
    ).stdout
    assert b"object" in said


def test_a_failing_compile_under_a_marker_fails_as_without_us(
    env: dict[str, str], tmp_path: Path
) -> None:
    root = _clone(tmp_path / "one")
    (root / "src/bad.c").write_text("#warning first\nint f(void) { return missing; }\n")
    time.sleep(0.1)
    argv = ["gcc", "-Iinc", "-c", f"{root}/src/bad.c"]
    for words in (argv, [*argv, "-MMD"], [*argv, "-fdiagnostics-color=always"]):
        bare = subprocess.run(words, cwd=root, env=env, check=False, capture_output=True)
        ours = subprocess.run(["hpcc", *words], cwd=root, env=env, check=False, capture_output=True)
        assert (ours.returncode, ours.stdout, ours.stderr) == (1, bare.stdout, bare.stderr)
    assert counters(env)["miss.failed"] == 3
    argv = ["gcc", "-Iinc", "-Wall", "-MMD", "-c", f"{root}/src/main.c"]
    bare = subprocess.run(argv, cwd=root, env=env, check=True, capture_output=True)
    for _ in range(2):
        ours = subprocess.run(["hpcc", *argv], cwd=root, env=env, check=True, capture_output=True)
        assert (ours.stdout, ours.stderr) == (bare.stdout, bare.stderr)
    assert b"unused" in bare.stderr
