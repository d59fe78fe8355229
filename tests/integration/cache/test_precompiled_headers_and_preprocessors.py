"""Precompiled headers, and what a preprocessor that leaves them out says about their users.

hpcc asks the preprocessor where a text mentions a clock, and for the headers of a unit whose list
of headers is not written. It reads the headers of a precompiled header anew: with other flags, or
after a header appeared, other ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache, open_cache
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc_testkit.cache.clocks import TrustedClock
from hpcc_testkit.cache.compiles import FakeLauncher, log_counters, run_bare
from hpcc_testkit.cache.precompiled import NO_TIMES, OBJECT, SOURCES, Build

CLOCK = "char u() { return STAMP[7]; }\n"
NO_CLOCK = '#define STAMP "no clock"\n'


@pytest.fixture
def cache(paths: Paths) -> Iterator[Cache]:
    """A cache whose clock believes the tests' file system: the tests wait for nothing."""
    opened = open_cache(paths, Settings(), None, clock=TrustedClock())
    yield opened
    log_counters(opened)
    opened.close()


@pytest.fixture(params=["g++-14", "clang++-19"])
def build(tmp_path: Path, cache: Cache, request: pytest.FixtureRequest, paths: Paths) -> Build:
    return Build(tmp_path / "project", cache, request.param, paths)


def _twice(build: Build, *more: str) -> list[str]:
    argv = build.using(*more)
    return [build.launcher.compile(*argv).answer for _ in range(2)]


def _include_stamp(build: Build) -> None:
    build.write("src/once.h", "#include <stamp.h>\n" + SOURCES["src/once.h"])


def test_a_macro_in_it_that_switches_on_a_clock_of_the_unit(build: Build) -> None:
    """No text in it mentions a clock, and `-E` of the unit reads another header."""
    build.write("one/stamp.h", "#define FROM_ONE\n")
    build.write("two/stamp.h", "\n")
    _include_stamp(build)
    build.write("src/u.cpp", f"#define STAMP __TIME__\n#ifdef FROM_ONE\n{CLOCK}#endif\n")
    assert build.make(f"-I{build.root}/one") == "run"
    assert _twice(build, f"-I{build.root}/two") == ["run", "run"]
    assert build.counted() == {"uncacheable.pch": 2}


def test_a_header_that_appeared_before_one_in_it(build: Build) -> None:
    flags = (f"-I{build.root}/first", f"-I{build.root}/one")
    build.write("first/x.txt", "")
    build.write("one/stamp.h", "#define STAMP __TIME__\n")
    _include_stamp(build)
    assert build.make(*flags) == "run"
    assert [build.use(*flags) for _ in range(2)] == ["run", "done"]  # does not use the macro
    build.write("first/stamp.h", NO_CLOCK)
    build.write("src/u.cpp", CLOCK)
    assert _twice(build, *flags) == ["run", "run"]
    assert build.counted() == {"uncacheable.pch": 2}


def test_a_file_that_it_asked_for_and_that_appeared(build: Build) -> None:
    question = f'#if __has_include("opt.h")\n{NO_CLOCK}#else\n#define STAMP __TIME__\n#endif\n'
    build.write("src/once.h", SOURCES["src/once.h"] + question)
    build.write("src/u.cpp", CLOCK)
    assert build.make() == "run"
    build.write("src/opt.h", "")
    assert _twice(build) == ["run", "run"]
    assert build.counted() == {"uncacheable.pch": 2}


def test_a_macro_that_only_the_unit_has(build: Build) -> None:
    """Clang takes the precompiled header although its text asks for that macro."""
    question = f"#ifdef NO\n{NO_CLOCK}#else\n#define STAMP __TIME__\n#endif\n"
    build.write("src/once.h", SOURCES["src/once.h"] + question)
    build.write("src/u.cpp", CLOCK)
    assert build.make() == "run"
    assert _twice(build, "-DNO") == ["run", "run"]
    assert build.counted() == {"uncacheable.pch": 2}


def test_macros_of_a_header_that_clang_reads_behind_it(cache: Cache, tmp_path: Path) -> None:
    """The preprocessor reads the header of `-imacros` first."""
    own = f"#ifdef NO\n{NO_CLOCK}#else\n#define STAMP __TIME__\n#endif\n"
    for name, text in (("own.h", own), ("no.h", "#define NO\n"), ("u.cpp", CLOCK)):
        (tmp_path / name).write_text(text)
    launcher = FakeLauncher(handler=cache, cwd=tmp_path)
    making = (*NO_TIMES, "-x", "c++-header", "own.h", "-o", "own.h.pch")
    assert launcher.compile("clang++-19", *making).answer == "run"
    using = (*NO_TIMES, "-imacros", "no.h", "-Xclang", "-include-pch", "-Xclang", "own.h.pch")
    argv = ("clang++-19", *using, "-c", "u.cpp")
    assert [launcher.compile(*argv).answer for _ in range(2)] == ["run", "run"]
    assert cache.counters()["uncacheable.pch"] == 2


def test_headers_that_are_listed_by_the_preprocessor(build: Build) -> None:
    """A unit with `-g`, `-include` and `-MMD` is asked about again with `-M`."""
    for place, text in (("one", "#define FROM_ONE\n"), ("two", "\n")):
        build.write(f"{place}/stamp.h", text)
    build.write("src/x.h", '#include "y.h"\n')
    build.write("src/y.h", "int y = 1;\n")
    _include_stamp(build)
    build.write("src/u.cpp", '#ifdef FROM_ONE\n#include "x.h"\n#endif\n')
    using = build.using
    build.using = lambda *more, **_: tuple(  # type: ignore[method-assign]  # one command
        "-MMD" if word == "-MD" else word for word in using(*more)
    )
    one, two = f"-I{build.root}/one", f"-I{build.root}/two"
    assert build.make(one) == "run"
    assert [build.use(one) for _ in range(2)] == ["run", "done"]
    assert [build.use(two) for _ in range(2)] == ["run", "run"]
    assert build.counted() == {"uncacheable.pch": 2}
    build.write("src/y.h", "int y = 2;\n")
    assert [build.use(one) for _ in range(2)] == ["run", "done"]


def test_a_macro_that_names_the_first_header(cache: Cache, tmp_path: Path) -> None:
    """GCC takes own.h.gch, and no list has either name."""
    (tmp_path / "own.h").write_text("inline int own() { return 1; }\n")
    (tmp_path / "u.cpp").write_text("#include OWN\nint u() { return own(); }\n")
    launcher = FakeLauncher(handler=cache, cwd=tmp_path)
    words = ("g++-14", '-DOWN="own.h"')
    using = (*words, "-MD", "-c", "u.cpp", "-o", OBJECT)
    assert [launcher.compile(*using).answer for _ in range(2)] == ["run", "done"]
    assert run_bare((*words, "own.h"), cwd=tmp_path)[0] == 0
    assert [launcher.compile(*using).answer for _ in range(2)] == ["run", "run"]
    assert cache.counters()["uncacheable.pch"] == 2
    assert b"own.h" not in (tmp_path / "u.d").read_bytes()


def test_another_directory_with_assembler_in_a_header(build: Build) -> None:
    """CMake's REUSE_FROM: the units of another target, compiled in its own directory."""
    name = '#define NAME(x) x\nint far() __asm__(NAME("far_away"));\n'
    build.write("src/once.h", SOURCES["src/once.h"] + name)
    build.write("src/u.cpp", "int u() { return once() + far(); }\n")
    assert build.make() == "run"
    build.write("build/b/x.txt", "")
    launcher = FakeLauncher(handler=build.cache, cwd=build.directory / "b")
    argv = build.using()
    assert [launcher.compile(*argv).answer for _ in range(2)] == ["run", "done"]
    assert (build.directory / "b" / OBJECT).exists()


def test_one_whose_record_was_evicted(build: Build, paths: Paths) -> None:
    """A stored one without its record would leave all its users out of the cache."""
    assert (build.make(), build.make(), build.use()) == ("run", "done", "run")
    for path in Path(paths.cache).rglob("*"):
        if path.is_file() and b"precompiled-1" in path.read_bytes()[:200]:
            path.unlink()
    assert [build.make() for _ in range(2)] == ["run", "done"]
    build.write("src/u.cpp", SOURCES["src/u.cpp"] + "int more;\n")
    assert [build.use() for _ in range(2)] == ["run", "done"]
