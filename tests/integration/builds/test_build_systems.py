"""Tiny real projects, built twice from clean: the second build has only hits and equal objects."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcc_testkit.cache.launcher import build_launcher, counters, launcher_environment, stop_daemon

SOURCES = {
    "hello.h": "int twice(int);\n",
    "main.c": '#include <stdio.h>\n#include "hello.h"\nint main(void) { return twice(0); }\n',
    "twice.c": '#include "hello.h"\nint twice(int n) { return 2 * n; }\n',
    "Makefile": "OBJS = main.o twice.o\nhello: $(OBJS)\n\t$(CC) -o $@ $(OBJS)\n"
    "%.o: %.c hello.h\n\t$(CC) -O2 -MD -c -o $@ $<\n",
    "CMakeLists.txt": "cmake_minimum_required(VERSION 3.16)\nproject(hello C)\n"
    "add_executable(hello main.c twice.c)\n",
    "meson.build": "project('hello', 'c')\nexecutable('hello', 'main.c', 'twice.c')\n",
    "build.ninja": "rule cc\n  command = $cc -O2 -MD -MF $out.d -c -o $out $in\n  depfile = $out.d\n"
    "  deps = gcc\ncc = gcc\ninclude cc.ninja\nbuild main.o: cc main.c\nbuild twice.o: cc twice.c\n",
    "configure.ac": "AC_INIT([hello], [1])\nAC_CONFIG_SRCDIR([main.c])\n"
    "AM_INIT_AUTOMAKE([foreign])\nAC_PROG_CC\nAC_CONFIG_FILES([Makefile])\nAC_OUTPUT\n",
    "Makefile.am": "bin_PROGRAMS = hello\nhello_SOURCES = main.c twice.c hello.h\n",
}
# CMake asks such sources for modules, and GCC 14 gets flags for them.
CXX20 = (
    "cmake_minimum_required(VERSION 3.28)\nproject(hello CXX)\nset(CMAKE_CXX_STANDARD 20)\n"
    "set_source_files_properties(main.c twice.c PROPERTIES LANGUAGE CXX)\n"
    "add_executable(hello main.c twice.c)\n"
)


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_launcher(tmp_path_factory.mktemp("launcher"))


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make one tree per build system, so old that no file counts as changing."""
    root = tmp_path_factory.mktemp("projects")
    wanted = {
        "make": ["Makefile"],
        "cmake": ["CMakeLists.txt"],
        "cmake-ninja": ["CMakeLists.txt"],
        "cmake-cxx20": [],
        "meson": ["meson.build"],
        "ninja": ["build.ninja"],
        "autotools": ["configure.ac", "Makefile.am"],
    }
    for name, files in wanted.items():
        (root / name).mkdir()
        for file in ["hello.h", "main.c", "twice.c", *files]:
            (root / name / file).write_text(SOURCES[file])
    (root / "cmake-cxx20/CMakeLists.txt").write_text(CXX20)
    time.sleep(2.1)
    return root


class Builder:
    def __init__(self, env: dict[str, str], tree: Path, bin_directory: Path) -> None:
        self.tree = tree
        self.env = {**env, "PATH": f"{bin_directory}:{env['PATH']}"}

    def run(self, *argv: str, cwd: Path | None = None, **env: str) -> None:
        done = subprocess.run(
            argv, cwd=cwd or self.tree, env={**self.env, **env}, capture_output=True, check=False,
            timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")

    @property
    def clean(self) -> Path:
        build = self.tree / "build"
        shutil.rmtree(build, ignore_errors=True)
        build.mkdir()
        return build

    def objects(self, build: Path) -> dict[str, bytes]:
        return {
            str(p.relative_to(build)): p.read_bytes()
            for p in build.rglob("*.o")
            if "CMakeScratch" not in p.parts
        }


def _make(builder: Builder) -> Path:
    build = builder.clean
    for file in ("Makefile", "hello.h", "main.c", "twice.c"):
        (build / file).symlink_to(builder.tree / file)
    builder.run("make", "CC=hpcc gcc", cwd=build)
    return build


def _cmake(builder: Builder) -> Path:
    build = builder.clean
    builder.run("cmake", "-B", "build", "-DCMAKE_C_COMPILER_LAUNCHER=hpcc")
    builder.run("cmake", "--build", "build", "-j2")
    return build


def _cmake_ninja(builder: Builder) -> Path:
    build = builder.clean
    builder.run("cmake", "-G", "Ninja", "-B", "build", "-DCMAKE_C_COMPILER_LAUNCHER=hpcc")
    builder.run("cmake", "--build", "build")
    return build


def _cmake_cxx20(builder: Builder) -> Path:
    build = builder.clean
    compiler = ("-DCMAKE_CXX_COMPILER=g++-14", "-DCMAKE_CXX_COMPILER_LAUNCHER=hpcc")
    builder.run("cmake", "-G", "Ninja", "-B", "build", *compiler)
    assert "-fmodules-ts" in (build / "CMakeFiles/rules.ninja").read_text()
    builder.run("cmake", "--build", "build")
    return build


def _meson(builder: Builder) -> Path:
    build = builder.clean
    builder.run("meson", "setup", "build", CC="hpcc gcc")
    builder.run("ninja", "-C", "build")
    return build


def _ninja(builder: Builder) -> Path:
    build = builder.clean
    for file in ("hello.h", "main.c", "twice.c", "build.ninja"):
        (build / file).symlink_to(builder.tree / file)
    (build / "cc.ninja").write_text("cc = hpcc gcc\n")
    builder.run("ninja", cwd=build)
    return build


def _autotools(builder: Builder) -> Path:
    build = builder.clean
    if not (builder.tree / "configure").exists():
        builder.run("autoreconf", "-i")
    builder.run("../configure", cwd=build, CC="hpcc gcc")
    builder.run("make", cwd=build)
    return build


@pytest.mark.parametrize(
    ("name", "tool", "build"),
    [
        ("make", "make", _make),
        ("cmake", "cmake", _cmake),
        ("cmake-ninja", "cmake", _cmake_ninja),
        ("cmake-cxx20", "cmake", _cmake_cxx20),
        ("meson", "meson", _meson),
        ("ninja", "ninja", _ninja),
        ("autotools", "automake", _autotools),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_second_build_from_clean_is_all_hits_with_the_same_objects(
    name: str,
    tool: str,
    build: Callable[[Builder], Path],
    launcher: Path,
    projects: Path,
    tmp_path: Path,
    stopped: list[dict[str, str]],
) -> None:
    assert shutil.which(tool), f"tools/bootstrap.sh packages test installs {tool}"
    env = launcher_environment(tmp_path / "h")
    stopped.append(env)
    builder = Builder(env, projects / name, launcher.parent)
    first = builder.objects(build(builder))
    assert len(first) == 2
    before = counters(env)
    assert before["miss.local"] >= 2
    second = builder.objects(build(builder))
    after = counters(env)
    assert second == first
    assert after["hit.local"] - before.get("hit.local", 0) >= 2
    # Configure tests write their sources anew each time: those are too fresh to be kept.
    missed = after["miss.local"] - before["miss.local"]
    if name in {"make", "ninja"}:
        assert missed == 0
    assert _explained(builder, second) == {"hit.local"}


def _explained(builder: Builder, objects: dict[str, bytes]) -> set[str]:
    from hpcc.cache.results.records_read import read_records

    records = read_records(os.path.join(builder.env["HPCC_DIR"], "cache"))
    last = {record.output: record.outcome for record in records}
    return {last[str((builder.tree / "build" / name).resolve())] for name in objects}


@pytest.fixture
def stopped() -> Iterator[list[dict[str, str]]]:
    environments: list[dict[str, str]] = []
    yield environments
    for env in environments:
        stop_daemon(env)
