"""Precompiled headers of Clang with `-fno-pch-timestamp`, made and used as CMake does it.

Clang lists the headers of a precompiled header as read by its users. It compares their sizes, and
their times only without that flag. Each test compares hpcc's answer with the compiler's own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache, open_cache
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc_testkit.cache.clocks import TrustedClock
from hpcc_testkit.cache.compiles import FakeLauncher, FakeRemote, log_counters, run_bare
from hpcc_testkit.cache.precompiled import NO_TIMES, OBJECT, SOURCES, Build
from hpcc_testkit.suite.newest_clang import newest


@pytest.fixture
def cache(paths: Paths) -> Iterator[Cache]:
    """A cache whose clock believes the tests' file system: the tests wait for nothing."""
    opened = open_cache(paths, Settings(), None, clock=TrustedClock())
    yield opened
    log_counters(opened)
    opened.close()


# For what the compilers themselves do.
both = pytest.mark.parametrize(
    "build", ["clang++-17", "clang++-19", newest("clang++-22")], indirect=True
)


@pytest.fixture(params=["clang++-19", newest("clang++-22")])
def build(tmp_path: Path, cache: Cache, request: pytest.FixtureRequest, paths: Paths) -> Build:
    return Build(tmp_path / "project", cache, request.param, paths)


@both
def test_both_hit_in_a_new_build_directory(build: Build) -> None:
    """CMake writes its header again there, so that its times are others."""
    assert (build.make(), build.use()) == ("run", "run")
    outputs = (build.pch, f"{build.pch}.d", OBJECT, f"{OBJECT}.d")
    first = {name: build.read(name) for name in outputs}
    assert None not in first.values()
    for when in (1, 2_000_000_000):
        shutil.rmtree(build.directory)
        build.plant()
        for path in (build.directory / "pch.h", build.root / "src/once.h"):
            os.utime(path, (when, when))
        assert (build.make(), build.use()) == ("done", "done")
        assert first == {name: build.read(name) for name in outputs}
    assert not build.counted("bypass")
    assert not build.counted()


@both
def test_one_with_times_is_left_to_the_compiler(build: Build) -> None:
    """Put back, it is an error for its users."""
    build.always = ("-O1", "-g")
    for _ in range(2):
        assert build.launcher.compile(*build.making()).reason == "pch-timestamp"
        assert build.use() == "run"
    assert build.counted() == {"uncacheable.pch": 2}
    os.utime(build.root / "src/once.h", (1, 1))
    assert build.use() == "run, exit 1"


@both
@pytest.mark.parametrize("name", ["once.h", "guarded.h"])
def test_a_header_that_changed_since(name: str, build: Build) -> None:
    """With an equal size Clang takes the old text without a word, else it fails."""
    assert (build.make(), build.use(), build.use()) == ("run", "run", "done")
    before = build.read(OBJECT)
    changed = SOURCES[f"src/{name}"].replace("return 1", "return 2")
    build.write(f"src/{name}", changed)
    assert [build.use() for _ in range(2)] == ["run", "run"]
    assert build.read(OBJECT) == before
    assert build.counted() == {"uncacheable.pch-stale": 2}
    build.write(f"src/{name}", changed.replace("return 2", "return 22"))
    assert build.use() == "run, exit 1"
    build.write(f"src/{name}", changed)
    assert (build.make(), build.use(), build.use()) == ("run", "run", "done")
    assert build.read(OBJECT) != before
    build.write(f"src/{name}", SOURCES[f"src/{name}"])
    assert (build.make(), build.use()) == ("done", "done")


@both
def test_it_is_the_same_twice(build: Build, cache: Cache) -> None:
    """Its users hit although the one in the cache was evicted."""
    assert (build.make(), build.use()) == ("run", "run")
    before = build.read(build.pch)
    assert run_bare(build.making(), cwd=build.directory)[0] == 0
    assert build.read(build.pch) == before
    assert build.use() == "done"


def test_one_that_hpcc_did_not_see_being_made(build: Build) -> None:
    assert run_bare(build.making(), cwd=build.directory)[0] == 0
    assert [build.use() for _ in range(2)] == ["run", "run"]
    assert build.counted() == {"uncacheable.pch": 2}
    assert build.culprit() == f"{build.directory}/{build.pch}"


def test_another_one_in_its_place(build: Build) -> None:
    assert (build.make(), build.use()) == ("run", "run")
    build.write("src/guarded.h", SOURCES["src/guarded.h"].replace("return 1", "return 2"))
    assert run_bare(build.making(), cwd=build.directory)[0] == 0
    build.write("src/guarded.h", SOURCES["src/guarded.h"])
    assert [build.use() for _ in range(2)] == ["run", "run"]
    assert build.counted() == {"uncacheable.pch": 2}
    (build.directory / build.pch).unlink()
    assert build.use() == "run, exit 1"


@both
def test_a_macro_in_it_that_reads_the_clock(build: Build) -> None:
    build.write("src/once.h", SOURCES["src/once.h"] + "#define STAMP __TIME__\n")
    build.write("src/clock.cpp", "char u() { return STAMP[7]; }\n")
    assert build.make() == "run"
    argv = build.using(source="clock.cpp")
    assert [build.launcher.compile(*argv).answer for _ in range(2)] == ["run", "run"]
    assert build.counted() == {"uncacheable.date-time": 2}
    assert [build.use() for _ in range(2)] == ["run", "done"]  # does not use the macro


def test_a_clock_in_its_text_is_not_kept(build: Build) -> None:
    build.write("src/once.h", SOURCES["src/once.h"] + "static const char* made = __TIME__;\n")
    assert [build.make() for _ in range(2)] == ["run", "run"]
    assert build.use() == "run"
    assert build.counted() == {"uncacheable.date-time": 2, "uncacheable.pch": 1}


@pytest.mark.parametrize("definition", ["HAS(x) __has_include(x)", "HAS __has_include"])
def test_a_macro_in_it_that_asks_for_a_file(definition: str, build: Build) -> None:
    build.write("src/once.h", SOURCES["src/once.h"] + f"#define {definition}\n")
    build.write("src/u.cpp", '#if HAS("opt.h")\nint there;\n#endif\n')
    assert build.make() == "run"
    assert [build.use() for _ in range(2)] == ["run", "done"]
    build.write("src/opt.h", "")
    assert [build.use() for _ in range(2)] == ["run", "done"]


@both
def test_a_link_to_a_header_in_it(build: Build) -> None:
    """Clang skips it, and lists it under the other name."""
    (build.root / "src/link.h").symlink_to("once.h")
    build.write("src/u.cpp", '#include "link.h"\nint u() { return once(); }\n')
    assert build.make() == "run"
    assert [build.use() for _ in range(2)] == ["run", "done"]
    (build.root / "src/link.h").unlink()
    build.write("src/link.h", "#pragma once\nint other;\n")
    assert build.use() == "run"


@both
def test_one_that_clang_does_not_take(build: Build) -> None:
    build.make()
    assert build.use("-DA=1", "-std=c++20") == "run, exit 1"


def test_a_header_that_only_its_flag_names(build: Build) -> None:
    """`-Xclang -include` without a precompiled header: a name like any other."""
    words = ("-Xclang", "-include", "-Xclang", "own.h", f"-I{build.root}/a", f"-I{build.root}/b")
    for place, value in (("a", 2), ("b", 1)):
        build.write(f"{place}/own.h", f"inline int own() {{ return {value}; }}\n")
    (build.root / "a/own.h").rename(build.root / "own.h")
    build.write("a/x.txt", "")
    build.write("src/u.cpp", "int u() { return own(); }\n")
    argv = (build.gcc, *words, "-c", f"{build.root}/src/u.cpp", "-o", OBJECT)
    build.using = lambda *_, **__: argv  # type: ignore[method-assign]  # one command
    assert [build.use() for _ in range(2)] == ["run", "done"]
    (build.root / "own.h").rename(build.root / "a/own.h")
    assert [build.use() for _ in range(2)] == ["run", "done"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("pch.h.pch", "pch.h.gch"),
        ("-emit-pch", "-include-pch"),
        ("-fno-pch-timestamp", "-emit-pch"),
    ],
)
def test_what_is_left_to_the_compiler(old: str, new: str, build: Build) -> None:
    argv = tuple(word.replace(old, new) for word in build.making())
    assert build.launcher.compile(*argv).reason in {"pch", "pch-timestamp", "pass-through"}


def test_on_a_farm_both_are_compiled_and_cached_here(tmp_path: Path, paths: Paths) -> None:
    paths.farm_file.parent.mkdir(parents=True, exist_ok=True)
    paths.farm_file.write_text("{}")
    cache = open_cache(paths, Settings(), FakeRemote(), clock=TrustedClock())
    build = Build(tmp_path / "project", cache, "clang++-19", paths)
    build.write(".hpcc", "")
    root = tmp_path / "project"
    build.maps = (f"-fmacro-prefix-map={root}/=./", f"-fdebug-prefix-map={root}/=/proc/self/cwd/")
    for answer in ("run", "done"):
        assert (build.make(), build.use()) == (answer, answer)
    assert set(build.counted("fallback")) == {"fallback.pch"}
    cache.close()


@pytest.mark.parametrize(
    "used", ["-Xclang -include-pch -Xclang own.h.pch", "-include own.h", "-include ./own.h"]
)
def test_without_the_flags_of_cmake(used: str, cache: Cache, tmp_path: Path) -> None:
    """A makefile's commands: `-emit-pch` is not needed, and `-include H` takes H.pch."""
    (tmp_path / "own.h").write_text("inline int own() { return 1; }\n")
    (tmp_path / "u.cpp").write_text("int u() { return own(); }\n")
    launcher = FakeLauncher(handler=cache, cwd=tmp_path)
    making = ("clang++-19", *NO_TIMES, "-x", "c++-header", "own.h", "-o", "own.h.pch")
    using = ("clang++-19", *used.split(), "-c", "u.cpp")
    for answer in ("run", "done"):
        assert launcher.compile(*making).answer == answer
        assert launcher.compile(*using).answer == answer
        if answer == "run":
            (tmp_path / "own.h.pch").unlink()
    (tmp_path / "own.h").write_text("inline int own() { return 2; }\n")
    assert launcher.compile(*using).answer == "run"
    assert cache.counters()["uncacheable.pch-stale"] == 1
    (tmp_path / "own.h").write_text("#define STAMP __TIME__\n")
    (tmp_path / "u.cpp").write_text("char u() { return STAMP[7]; }\n")
    assert launcher.compile(*making).answer == "run"
    assert [launcher.compile(*using).answer for _ in range(2)] == ["run", "run"]
    assert cache.counters()["uncacheable.date-time"] == 2


def test_an_old_one_that_its_own_making_takes(cache: Cache, tmp_path: Path) -> None:
    """Clang writes another file first, and takes the old one in place of the header."""
    (tmp_path / "own.h").write_text("inline int own() { return 1; }\n")
    (tmp_path / "none.cxx").write_text("")
    launcher = FakeLauncher(handler=cache, cwd=tmp_path)
    words = ("-x", "c++-header", "-include", "own.h", "none.cxx", "-o", "own.h.pch")
    for _ in range(2):
        assert launcher.compile("clang++-19", *NO_TIMES, *words).answer == "run"
    counters = cache.counters()
    assert counters["uncacheable.pch"] == 1
    assert counters["uncacheable.modified-during-compile"] == 1  # Clang lists the old one


def test_a_user_that_does_not_name_the_header(build: Build) -> None:
    """The preprocessor would not read the header that CMake names, and show no clock."""
    build.write("src/once.h", SOURCES["src/once.h"] + "#define STAMP __TIME__\n")
    build.write("src/u.cpp", "char u() { return STAMP[7]; }\n")
    assert build.make() == "run"
    argv = build.using()
    at = argv.index("-include")
    argv = (*argv[: at - 1], *argv[at + 3 :])
    assert [build.launcher.compile(*argv).answer for _ in range(2)] == ["run", "run"]
    assert build.counted() == {"uncacheable.pch": 2}
