"""Real sources, built twice from clean: in the second build every compile hits.

GoogleTest and a project with Boost, a cross build for Windows, and a part of a Linux kernel with
`tinyconfig`. Configure checks count, too: they compile the same texts in both builds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from hpcc.cache.results.records_read import CompileRecord, read_records
from hpcc_testkit.cache.launcher import build_launcher, launcher_environment, stop_daemon

pytestmark = pytest.mark.timeout(900)

_GTEST = Path("/usr/src/googletest/googletest")
_CMAKE = "cmake_minimum_required(VERSION 3.16)\nproject(real C CXX)\nset(CMAKE_CXX_STANDARD 17)\n"
_GTEST_CMAKE = (
    _CMAKE
    + f"""set(BUILD_GMOCK OFF)
set(INSTALL_GTEST OFF)
add_subdirectory({_GTEST} googletest)
set(samples {_GTEST}/samples)
add_executable(unit ${{samples}}/sample1.cc ${{samples}}/sample1_unittest.cc
  ${{samples}}/sample4.cc ${{samples}}/sample4_unittest.cc)
target_include_directories(unit PRIVATE ${{samples}})
target_link_libraries(unit gtest_main)
"""
)
_BOOST = {
    "CMakeLists.txt": _CMAKE + "add_executable(unit main.cc text.cc table.cc)\n",
    "text.cc": "#include <boost/algorithm/string.hpp>\n#include <boost/lexical_cast.hpp>\n"
    "int length(std::string s) { boost::trim(s); return boost::lexical_cast<int>(s); }\n",
    "table.cc": "#include <boost/multi_index_container.hpp>\n"
    "#include <boost/multi_index/ordered_index.hpp>\n#include <boost/multi_index/identity.hpp>\n"
    "namespace m = boost::multi_index;\nint first() { m::multi_index_container<int,\n"
    "m::indexed_by<m::ordered_unique<m::identity<int>>>> c; c.insert(3); return *c.begin(); }\n",
    "main.cc": "#include <boost/intrusive/slist.hpp>\n#include <boost/optional.hpp>\n"
    "#include <string>\nint length(std::string);\nint first();\n"
    'int main() { return boost::optional<int>(length(" 3 ")).value() - first(); }\n',
}
_WINDOWS = {
    "CMakeLists.txt": _GTEST_CMAKE + "add_executable(window window.c)\n",
    "window.c": "#include <windows.h>\n#include <stdio.h>\n"
    'int main(void) { printf("%lu", GetLastError()); return 0; }\n',
    "toolchain.cmake": "set(CMAKE_SYSTEM_NAME Windows)\n"
    "set(CMAKE_C_COMPILER x86_64-w64-mingw32-gcc)\n"
    "set(CMAKE_CXX_COMPILER x86_64-w64-mingw32-g++-posix)\n",
}
# Directories that hold C, assembler, generated headers and library code.
_KERNEL_TARGETS = ("init/", "lib/math/", "arch/x86/lib/")
_KERNEL_OUT = ("*.rst", "*.yaml", "*.dts", "*.dtsi", "*/tools/testing/*")
_KERNEL_OUT += ("*/drivers/*.[ch]", "*/sound/*.[ch]")


class Project:
    """A tree that is built with hpcc in front of its compilers."""

    def __init__(self, env: dict[str, str], tree: Path) -> None:
        self.env, self.tree = env, tree
        self._seen = 0

    def run(self, *argv: str | Path, **env: str) -> None:
        done = subprocess.run(
            argv, cwd=self.tree, env={**self.env, **env}, capture_output=True, check=False,
            timeout=500,
        )  # fmt: skip
        assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")[-4000:]

    def clean(self) -> Path:
        build = self.tree / "build"
        shutil.rmtree(build, ignore_errors=True)
        build.mkdir()
        return build

    def objects(self) -> dict[str, bytes]:
        build = self.tree / "build"
        found = build.rglob("*.o*")
        return {
            str(p.relative_to(build)): p.read_bytes()
            for p in found
            if p.suffix in {".o", ".obj"} and "CMakeScratch" not in p.parts
        }

    def records(self) -> list[CompileRecord]:
        """Return what hpcc did since the last call; stops the daemon, which writes all down."""
        stop_daemon(self.env)
        records = list(read_records(os.path.join(self.env["HPCC_DIR"], "cache")))
        new, self._seen = records[self._seen :], len(records)
        return new

    def cmake(self, *arguments: str) -> None:
        launchers = [f"-DCMAKE_{language}_COMPILER_LAUNCHER=hpcc" for language in ("C", "CXX")]
        self.clean()
        self.run("cmake", "-B", "build", *launchers, *arguments)
        self.run("cmake", "--build", "build", "-j2")


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_launcher(tmp_path_factory.mktemp("launcher"))


@pytest.fixture
def project(launcher: Path, tmp_path: Path) -> Iterator[Project]:
    env = launcher_environment(tmp_path / "h", LC_ALL="C")
    env["PATH"] = f"{launcher.parent}:{env['PATH']}"
    tree = tmp_path / "tree"
    tree.mkdir()
    yield Project(env, tree)
    stop_daemon(env)


def _write(project: Project, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (project.tree / name).write_text(text)


def _missed(records: Iterable[CompileRecord]) -> list[str]:
    """Return the compiles that ran a compiler; links and questions to a compiler do not count."""
    asked = {"information", "link", "preprocess-only", "stdin"}
    return [
        f"{r.outcome} {r.reason}: {' '.join(r.argv)}"
        for r in records
        if not r.outcome.startswith("hit") and not (r.outcome == "bypass" and r.reason in asked)
    ]


def _check_cmake(project: Project, least: int, *arguments: str) -> None:
    project.cmake(*arguments)
    project.records()
    first = project.objects()
    assert len(first) >= least
    project.cmake(*arguments)
    assert project.objects() == first
    assert _missed(project.records()) == []


@pytest.mark.nightly
def test_a_project_with_googletest_hits_completely(project: Project) -> None:
    _write(project, {"CMakeLists.txt": _GTEST_CMAKE})
    _check_cmake(project, 6)


def test_a_project_with_boost_hits_completely(project: Project) -> None:
    _write(project, _BOOST)
    _check_cmake(project, 3)


@pytest.mark.nightly
def test_a_cross_build_for_windows_hits_completely(project: Project) -> None:
    _write(project, _WINDOWS)
    _check_cmake(project, 7, "-DCMAKE_TOOLCHAIN_FILE=../toolchain.cmake")


@pytest.mark.nightly
def test_a_part_of_a_tiny_kernel_hits_completely(project: Project) -> None:
    """All but what cannot be kept: trials that fail, and what names a process or a memory limit.

    Kbuild asks which flags a compiler has, with a compile of the null device into a directory that
    has the number of a process. An object with split DWARF holds this name.
    """
    source = _unpacked_kernel(project.tree)
    words = [f"O={project.tree / 'build'}", "CC=hpcc gcc", "HOSTCC=hpcc gcc"]
    built, before = [], list[CompileRecord]()
    for _ in range(2):
        project.clean()
        before = project.records()
        for targets in (["tinyconfig"], ["-j2", *_KERNEL_TARGETS]):
            project.run(
                "make", "-s", "-C", source, *words, *targets,
                KBUILD_BUILD_TIMESTAMP="Thu Jan  1 00:00:00 UTC 1970",
            )  # fmt: skip
        built.append(project.objects())
    assert built[1] == built[0]
    assert len(built[0]) > 30
    records = project.records()
    assert Counter(r.outcome for r in records)["hit.local"] > 150
    missed = _missed(r for r in records if r.outcome != "bypass" or "/dev/null" not in r.argv)
    left = Counter(line.partition(":")[0] for line in missed)
    compiled = [r for r in records if r.outcome == "miss.local"]
    unknown = [r for r in compiled if "-gsplit-dwarf" not in r.argv]
    # What the first build has of them: it compiled each, and says why it did not keep one.
    assert not unknown, (
        unknown,
        [b for b in before if any(r.argv[:-1] == b.argv[:-1] for r in unknown)],
    )
    assert left.pop("miss.local new-command", 0) == len(compiled) <= 3, missed
    trials = [r for r in records if r.outcome == "miss.failed"]
    assert all("/dev/null" in r.argv for r in trials)
    assert left.pop("miss.failed new-command") == len(trials)
    # Generated offsets: `-S -fverbose-asm` writes down GCC's memory heuristics.
    assert left.pop("bypass verbose-asm") <= 3
    assert not left, missed


def _unpacked_kernel(tree: Path) -> Path:
    """Unpack the distribution's kernel without what `tinyconfig` never compiles."""
    archives = sorted(Path("/usr/src").glob("linux-source-*/linux-source-*.tar.*"))
    archives += sorted(Path("/usr/src").glob("linux-source-*.tar.*"))
    assert archives, "tools/bootstrap.sh packages test installs linux-source"
    excluded = [f"--exclude={pattern}" for pattern in _KERNEL_OUT]
    subprocess.run(["tar", "-xf", archives[-1], "-C", tree, *excluded], check=True)
    return next(p for p in tree.iterdir() if p.is_dir())
