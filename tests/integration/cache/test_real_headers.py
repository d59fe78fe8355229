"""Headers of real libraries, whose text leaves doubts: the second compile is a hit."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache
from hpcc_testkit.cache.compiles import FakeLauncher, run_bare

pytestmark = pytest.mark.timeout(300)

_CLANG = "clang++-19" if shutil.which("clang++-19") else "clang++"
_SOURCES = {
    # #define GTEST_INTERNAL_HAS_INCLUDE __has_include
    "gtest": "#include <gtest/gtest.h>\nTEST(A, B) { EXPECT_EQ(1, 1); }\n",
    # __has_include(BOOST_SLIST_HEADER)
    "boost": "#include <boost/config.hpp>\nint x = BOOST_VERSION_OK;\n",
    # boost/algorithm is a directory, and the C++ library has a file of this name
    "boost.algorithm": "#include <boost/algorithm/string/trim.hpp>\n"
    "void f(std::string &s) { boost::trim(s); }\n",
    # #define XXH_HAS_INCLUDE __has_include
    "xxhash": "#define XXH_INLINE_ALL\n#include <xxhash.h>\nint f() { return (int)XXH32(0, 0, 0); }\n",
    # #pragma once, _Pragma, and an alias of {fmt}
    "spdlog": '#include <spdlog/spdlog.h>\nvoid f() { spdlog::info("x {}", 1); }\n',
}
_FLAGS = ("-std=c++17", "-Ivendor", "-DBOOST_VERSION_OK=1", "-c", "unit.cc", "-o", "build/unit.o")


def _compile_twice(argv: tuple[str, ...], launcher: FakeLauncher, cache: Cache) -> None:
    """Compile bare and twice through hpcc: one miss, one hit, three equal objects."""
    output = launcher.cwd / "build/unit.o"
    code, _, stderr = run_bare(argv, cwd=launcher.cwd)
    assert code == 0, stderr
    expected = output.read_bytes()
    time.sleep(0.08)  # what a test wrote is older than the next compile
    before = cache.counters()
    for _ in range(2):
        output.unlink()
        assert launcher.compile(*argv).exit_code == 0
        assert output.read_bytes() == expected
    after = cache.counters()
    changed = {n: c - before.get(n, 0) for n, c in after.items() if c != before.get(n, 0)}
    assert (changed.get("miss.local"), changed.get("hit.local")) == (1, 1), changed


def _write_old(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("compiler", ["g++", _CLANG])
@pytest.mark.parametrize("name", list(_SOURCES))
def test_a_unit_with_a_real_library_hits(
    name: str, compiler: str, launcher: FakeLauncher, cache: Cache
) -> None:
    _write_old(launcher.cwd / "unit.cc", _SOURCES[name])
    _compile_twice((compiler, *_FLAGS), launcher, cache)


@pytest.mark.nightly
@pytest.mark.parametrize("compiler", ["g++", _CLANG])
@pytest.mark.parametrize("keeps_times", [True, False])
def test_a_vendored_copy_beside_the_installed_library_hits(
    keeps_times: bool, compiler: str, launcher: FakeLauncher, cache: Cache
) -> None:
    copy = shutil.copy2 if keeps_times else shutil.copyfile
    for name in ("nlohmann", "spdlog"):
        shutil.copytree(f"/usr/include/{name}", launcher.cwd / "vendor" / name, copy_function=copy)
    text = "#include <nlohmann/json.hpp>\n#include <spdlog/common.h>\nnlohmann::json j;\n"
    _write_old(launcher.cwd / "unit.cc", text)
    _compile_twice((compiler, *_FLAGS), launcher, cache)
    # The vendored one is edited: it is read, so the object is another.
    header = launcher.cwd / "vendor/spdlog/common.h"
    header.write_text(header.read_text() + "int edited;\n")
    argv = (compiler, *_FLAGS)
    assert run_bare(argv, cwd=launcher.cwd)[0] == 0
    expected = (launcher.cwd / "build/unit.o").read_bytes()
    assert launcher.compile(*argv).exit_code == 0
    assert (launcher.cwd / "build/unit.o").read_bytes() == expected


def test_headers_that_a_build_stages_hit(launcher: FakeLauncher, cache: Cache) -> None:
    """As CMake's `file(COPY)` does: both directories are searched, and times are kept."""
    header = "#pragma once\ninline int answer() { return 42; }\n"
    _write_old(launcher.cwd / "include/lib/a.h", header)
    shutil.copytree(launcher.cwd / "include", launcher.cwd / "build/include")
    _write_old(launcher.cwd / "unit.cc", "#include <lib/a.h>\nint x = answer();\n")
    argv = ("g++", "-Ibuild/include", "-Iinclude", "-c", "unit.cc", "-o", "build/unit.o")
    _compile_twice(argv, launcher, cache)
    os.utime(launcher.cwd / "include/lib/a.h")
    _compile_twice((*argv, "-O1"), launcher, cache)


@pytest.mark.parametrize("source", ["#include <stdio.h>\n", "#include <windows.h>\n"])
def test_a_unit_for_windows_hits(source: str, launcher: FakeLauncher, cache: Cache) -> None:
    """MinGW's headers are behind links, and hold `_Pragma`."""
    _write_old(launcher.cwd / "unit.c", source + "int x;\n")
    argv = ("x86_64-w64-mingw32-gcc", "-c", "unit.c", "-o", "build/unit.o")
    _compile_twice(argv, launcher, cache)


def test_a_header_where_a_name_needs_a_directory_hits(launcher: FakeLauncher, cache: Cache) -> None:
    """Until a directory is there, which the compiler would search."""
    for name, value in (("first/lib", "0"), ("second/lib/a.h", "1")):
        _write_old(launcher.cwd / name, f"#define A {value}\n")
    _write_old(launcher.cwd / "unit.c", "#include <lib/a.h>\nint x = A;\n")
    argv = ("gcc", "-Ifirst", "-Isecond", "-c", "unit.c", "-o", "build/unit.o")
    _compile_twice(argv, launcher, cache)
    (launcher.cwd / "first/lib").unlink()
    _write_old(launcher.cwd / "first/lib/a.h", "#define A 2\n")
    _compile_twice(argv, launcher, cache)


def test_a_link_where_a_name_needs_a_directory_is_refused(
    launcher: FakeLauncher, cache: Cache
) -> None:
    """Its target can become a directory, and no watched directory changes."""
    _write_old(launcher.cwd / "elsewhere/lib", "")
    _write_old(launcher.cwd / "second/lib/a.h", "#define A 1\n")
    _write_old(launcher.cwd / "unit.c", "#include <lib/a.h>\nint x = A;\n")
    (launcher.cwd / "first").mkdir()
    (launcher.cwd / "first/lib").symlink_to("../elsewhere/lib")
    time.sleep(0.08)
    argv = ("gcc", "-Ifirst", "-Isecond", "-c", "unit.c", "-o", "unit.o")
    assert launcher.compile(*argv).exit_code == 0
    assert cache.counters()["uncacheable.odd-directory"] == 1
