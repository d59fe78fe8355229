"""CUDA through the launcher: a project as CMake builds it, and what reaches the daemon."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc_testkit.cache.cxx_projects import plant_cuda, without_process_ids
from hpcc_testkit.cache.launcher import build_launcher, counters, launcher_environment, stop_daemon
from hpcc_testkit.suite.nvcc import toolkit


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    launcher = build_launcher(tmp_path / "launcher")
    made = launcher_environment(tmp_path / "h")
    yield {**made, "PATH": f"{launcher.parent}:{made['PATH']}", "CUDAARCHS": "80-real"}
    stop_daemon(made)


def _run(argv: list[str | Path], cwd: Path, env: dict[str, str]) -> None:
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, check=False, timeout=600)
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")


def _outcome(env: dict[str, str]) -> tuple[int, int, list[str]]:
    found = counters(env)
    refused = [name for name in found if name.startswith(("uncacheable.", "bypass.nvcc-"))]
    return found.get("hit.local", 0), found.get("miss.local", 0), refused


def test_variables_of_nvcc_reach_the_daemon(env: dict[str, str], tmp_path: Path) -> None:
    tree = tmp_path / "src"
    tree.mkdir()
    (tree / "x.cu").write_text("__global__ void k(int *p) { *p = X; }\n")
    # The toolkit is behind a script, as distributions have it.
    script = tmp_path / "launcher/nvcc"
    script.write_text(f'#!/bin/sh\nexec {toolkit() / "bin/nvcc"} "$@"\n')
    script.chmod(0o755)
    time.sleep(0.1)
    argv: list[str | Path] = ["hpcc", "nvcc", "-arch=sm_80", "-ptx", "x.cu", "-o", "x.ptx"]
    for flags, outcome in (("-DX=1", (0, 1, [])), ("-DX=2", (0, 2, [])), ("-DX=1", (1, 2, []))):
        _run(argv, tree, {**env, "NVCC_APPEND_FLAGS": flags})
        assert _outcome(env) == outcome
        number = flags.removeprefix("-DX=").encode()
        assert b", " + number + b";" in (tree / "x.ptx").read_bytes()
    for name in ("CUDAFE_FLAGS", "NVVMCCWIZ", "INCLUDES", "EDG_BASE", "compiler-bindir"):
        before = counters(env).get("bypass.environment", 0)
        subprocess.run(argv, cwd=tree, env={**env, name: "/x"}, check=False, capture_output=True)
        assert counters(env).get("bypass.environment", 0) == before + 1, name


@pytest.mark.parametrize("generator", ["Ninja", "Unix Makefiles"])
@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_second_build_hits(env: dict[str, str], tmp_path: Path, generator: str) -> None:
    tree, build = tmp_path / "src", tmp_path / "src/build"
    units = plant_cuda(tree)
    time.sleep(0.1)

    def built(*launcher: str) -> dict[str, bytes]:
        _run(["rm", "-rf", build], tree, env)
        compiler = f"-DCMAKE_CUDA_COMPILER={toolkit() / 'bin/nvcc'}"
        _run(["cmake", "-G", generator, "-B", build, compiler, *launcher], tree, env)
        _run(["cmake", "--build", build, "-j2"], tree, env)
        _run([build / "program"], tree, env)
        found = {str(p.relative_to(build)): p.read_bytes() for p in build.rglob("*.cu.o")}
        assert len(found) == units
        return found

    bare = {name: without_process_ids(made) for name, made in built().items()}
    first = built("-DCMAKE_CUDA_COMPILER_LAUNCHER=hpcc")
    assert {name: without_process_ids(made) for name, made in first.items()} == bare
    assert _outcome(env) == (0, units, [])
    assert built("-DCMAKE_CUDA_COMPILER_LAUNCHER=hpcc") == first
    assert _outcome(env) == (units, units, [])
