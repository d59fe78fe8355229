"""Precompiled headers of GCC, made and used: each hazard is shown with the real compiler.

GCC's depfile of a unit names neither the precompiled header nor what is in it, and GCC never
compares these texts. Each test compares hpcc's answer with the compiler's own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache, open_cache
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc_testkit.cache.clocks import TrustedClock
from hpcc_testkit.cache.compiles import Compiled, FakeLauncher, FakeRemote, log_counters, run_bare
from hpcc_testkit.cache.precompiled import GENERATED, OBJECT, PCH, SOURCES, Build

OUTPUTS = (PCH, f"{PCH}.d", OBJECT, f"{OBJECT}.d")


# For what the compilers themselves do.
both = pytest.mark.parametrize("gcc", ["g++-12", "g++-14"], indirect=True)


@pytest.fixture(params=["g++-14"])
def gcc(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def make(paths: Paths) -> Iterator[Callable[..., Cache]]:
    """Open caches whose clock believes the tests' file system: the tests wait for nothing."""
    opened: list[Cache] = []

    def one(remote: FakeRemote | None = None) -> Cache:
        opened.append(open_cache(paths, Settings(), remote, clock=TrustedClock()))
        return opened[-1]

    yield one
    for cache in opened:
        log_counters(cache)
        cache.close()


@pytest.fixture
def cache(make: Callable[..., Cache]) -> Cache:
    return make()


@pytest.fixture
def build(tmp_path: Path, cache: Cache, gcc: str, paths: Paths) -> Build:
    return Build(tmp_path / "project", cache, gcc, paths)


@both
def test_both_hit_in_a_new_build_directory(build: Build) -> None:
    assert (build.make(), build.use()) == ("run", "run")
    first = {name: build.read(name) for name in OUTPUTS}
    assert None not in first.values()
    for _ in range(2):
        shutil.rmtree(build.directory)
        build.plant()
        assert (build.make(), build.use()) == ("done", "done")
        assert first == {name: build.read(name) for name in OUTPUTS}
    assert not build.counted("bypass")
    assert not build.counted()


def test_the_file_itself_is_no_input_of_its_making(build: Build) -> None:
    assert [build.make() for _ in range(3)] == ["run", "done", "done"]
    build.write("src/once.h", SOURCES["src/once.h"].replace("1", "2"))
    assert (build.make(), build.use()) == ("run", "run")
    build.write("src/once.h", SOURCES["src/once.h"])
    assert (build.make(), build.use()) == ("done", "run")
    assert build.use() == "done"


@both
def test_a_header_that_is_skipped_and_listed_nowhere(build: Build) -> None:
    """A cache that trusts the depfile returns the old object; the compiler fails."""
    assert (build.make(), build.use(), build.use()) == ("run", "run", "done")
    depfile = build.read(f"{OBJECT}.d")
    assert depfile is not None
    assert b"once.h" not in depfile
    build.write("src/once.h", SOURCES["src/once.h"].replace("1", "2"))
    assert build.use() == "run, exit 1"
    build.write("src/once.h", SOURCES["src/once.h"])
    assert build.use() == "done"


@both
def test_a_header_that_changed_since(build: Build) -> None:
    """GCC still takes the old text, without a word."""
    build.write("src/u.cpp", "int u() { return guarded(); }\n")
    assert (build.make(), build.use(), build.use()) == ("run", "run", "done")
    before = build.read(OBJECT)
    build.write("src/guarded.h", SOURCES["src/guarded.h"].replace("return 1", "return 2"))
    assert [build.use() for _ in range(2)] == ["run", "run"]
    assert build.read(OBJECT) == before
    assert build.counted() == {"uncacheable.pch-stale": 2}
    assert (build.make(), build.use()) == ("run", "run")
    assert build.read(OBJECT) != before
    assert build.counted() == {"uncacheable.pch-stale": 2}


@pytest.mark.parametrize("is_gone", [False, True])
def test_the_changed_header_is_named(is_gone: bool, build: Build) -> None:
    build.make()
    if is_gone:
        (build.root / "src/guarded.h").unlink()
    else:
        build.write("src/guarded.h", SOURCES["src/guarded.h"].replace("return 1", "return 2"))
    assert build.use() == "run"
    assert build.counted() == {"uncacheable.pch-stale": 1}
    assert build.culprit() == f"{build.root}/src/guarded.h"


def test_one_that_hpcc_did_not_see_being_made(build: Build) -> None:
    assert run_bare(build.making(), cwd=build.directory)[0] == 0
    assert [build.use() for _ in range(2)] == ["run", "run"]
    assert build.counted() == {"uncacheable.pch": 2}
    assert build.culprit() == f"{build.directory}/{PCH}"


def test_one_that_was_made_elsewhere(build: Build) -> None:
    """Another header of the same name may have put another text in it."""
    build.make()
    assert build.use() == "run"
    shutil.copytree(build.root / "src", build.root / "other")
    build.write("other/guarded.h", SOURCES["src/guarded.h"].replace("return 1", "return 2"))
    build.write("build/pch.h", GENERATED["build/pch.h"].replace("src", "other"))
    assert run_bare(build.making(), cwd=build.directory)[0] == 0
    build.write("build/pch.h", GENERATED["build/pch.h"])
    assert build.use() == "run"
    assert build.counted() == {"uncacheable.pch": 1}


def test_one_that_is_made_again_with_the_same_text(build: Build, cache: Cache) -> None:
    assert (build.make(), build.use()) == ("run", "run")
    first = build.read(PCH)
    cache.close()
    shutil.rmtree(Path(os.fspath(build.paths.cache)))
    build.cache = build.launcher.handler = open_cache(
        build.paths, Settings(), None, clock=TrustedClock()
    )
    assert (build.make(), build.use(), build.use()) == ("run", "run", "done")
    assert build.read(PCH) != first
    build.cache.close()


@pytest.mark.parametrize("is_before", [False, True])
def test_one_that_appears_or_vanishes(is_before: bool, build: Build) -> None:
    if is_before:
        build.make()
    kinds = ["run", "done"]
    assert [build.use() for _ in range(2)] == kinds
    if is_before:
        (build.directory / PCH).unlink()
    else:
        assert run_bare(build.making(), cwd=build.directory)[0] == 0
    assert build.use() == "run"


@both
def test_one_that_appears_in_an_earlier_directory(build: Build) -> None:
    """GCC takes it although no header of that name is there."""
    flags = (f"-I{build.root}/one", f"-I{build.root}/two")
    for place, value in (("one", 2), ("two", 1)):
        build.write(f"{place}/x.txt", "")
        build.write(f"{place}/own.h", f"inline int own() {{ return {value}; }}\n")
    (build.root / "one/own.h").rename(build.root / "own.h")
    build.write("src/u.cpp", '#include "own.h"\nint u() { return own(); }\n')
    argv = tuple(
        word for word in build.using(*flags) if word not in {"-include", f"{build.directory}/pch.h"}
    )
    build.using = lambda *_, **__: argv  # type: ignore[method-assign]  # one command
    assert [build.use() for _ in range(2)] == ["run", "done"]
    words = (build.gcc, "-O1", "-g", "-x", "c++-header", f"{build.root}/own.h")
    making = (*words, "-o", f"{build.root}/one/own.h.gch")
    assert build.launcher.compile(*making).answer == "run"
    assert [build.use() for _ in range(2)] == ["run", "run"]
    assert build.counted() == {"uncacheable.pch": 2}


def test_a_directory_of_candidates(build: Build) -> None:
    build.make()
    (build.directory / PCH).rename(build.directory / "one")
    (build.directory / PCH).mkdir()
    (build.directory / "one").rename(build.directory / PCH / "one")
    assert [build.use() for _ in range(2)] == ["run", "run"]
    assert build.counted() == {"uncacheable.pch": 2}


@both
def test_a_macro_in_it_that_reads_the_clock(build: Build) -> None:
    """No text that GCC reads for this unit shows the clock."""
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


@pytest.mark.parametrize(
    "question",
    [
        ("#define HAS(x) __has_include(x)\n", 'HAS("opt.h")'),
        ("#define HAS __has_include\n", 'HAS("opt.h")'),
        ('#define NAME "opt.h"\n', "__has_include(NAME)"),
    ],
)
def test_a_macro_in_it_that_asks_for_a_file(question: tuple[str, str], build: Build) -> None:
    definition, use = question
    build.write("src/once.h", SOURCES["src/once.h"] + definition)
    build.write("src/u.cpp", f"#if {use}\nint there;\n#endif\n")
    assert build.make() == "run"
    assert [build.use() for _ in range(2)] == ["run", "done"]
    build.write("src/opt.h", "")
    assert [build.use() for _ in range(2)] == ["run", "done"]
    (build.root / "src/opt.h").unlink()
    assert build.use() == "done"


@both
def test_a_macro_in_it_that_names_a_header(build: Build) -> None:
    """A header that equals one in the precompiled header is skipped, and listed nowhere."""
    build.write("src/once.h", SOURCES["src/once.h"] + '#define TWIN "sub/twin.h"\n')
    build.write("src/sub/twin.h", (build.root / "src/once.h").read_text())
    build.write("src/u.cpp", "#include TWIN\nint u() { return once(); }\n")
    assert build.make() == "run"
    assert build.use() == "run"
    depfile = build.read(f"{OBJECT}.d")
    assert depfile is not None
    assert b"twin" not in depfile
    build.write("src/sub/twin.h", "#pragma once\nint twin;\n")
    assert build.use() == "run"
    assert build.counted() == {"uncacheable.pch-include": 2}
    assert build.culprit() == f"{build.root}/src/u.cpp"


@both
def test_a_twin_of_a_header_in_it(build: Build) -> None:
    build.write("src/sub/twin.h", SOURCES["src/once.h"])
    os.utime(build.root / "src/sub/twin.h", (1, 1))
    build.write("src/u.cpp", '#include "sub/twin.h"\nint u() { return once(); }\n')
    assert build.make() == "run"
    assert [build.use() for _ in range(2)] == ["run", "done"]
    build.write("src/sub/twin.h", SOURCES["src/once.h"].replace("1", "2"))
    assert build.use() == "run, exit 1"


@both
def test_one_that_gcc_does_not_take(build: Build) -> None:
    """GCC then reads the headers, and says why; a hit repeats that."""
    build.write("src/once.h", SOURCES["src/once.h"] + "#ifdef W\n#endif\n")
    assert build.make() == "run"
    assert [build.use("-DW=1") for _ in range(2)] == ["run", "done"]
    ended: Compiled = build.launcher.compile(*build.using("-DW=1"))
    assert b"-Winvalid-pch" in ended.stderr
    build.write("src/guarded.h", SOURCES["src/guarded.h"] + "int more;\n")
    assert build.use("-DW=1") == "run"
    assert build.counted() == {"uncacheable.pch-stale": 1}


def test_one_of_another_header_than_the_one_beside_it(build: Build) -> None:
    """The preprocessor would read the header beside it, and show no clock."""
    build.write("src/clock.h", "#define STAMP __TIME__\n")
    build.write("src/u.cpp", "char u() { return STAMP[7]; }\n")
    words = (build.gcc, *build.always, "-Winvalid-pch", "-x", "c++-header", "-o", PCH)
    assert build.launcher.compile(*words, f"{build.root}/src/clock.h").answer == "run"
    assert [build.launcher.compile(*build.using()).answer for _ in range(2)] == ["run", "run"]
    assert build.counted() == {"uncacheable.pch": 2}


@both
def test_a_search_path_that_hides_the_clock_from_the_preprocessor(build: Build) -> None:
    """GCC does not compare search paths, and `-E` of the unit reads another header."""
    build.write("one/stamp.h", "#define STAMP __TIME__\n")
    build.write("two/stamp.h", '#define STAMP "no clock"\n')
    build.write("src/once.h", "#include <stamp.h>\n" + SOURCES["src/once.h"])
    build.write("src/u.cpp", "char u() { return STAMP[7]; }\n")
    assert build.make(f"-I{build.root}/one") == "run"
    argv = build.using(f"-I{build.root}/two")
    assert [build.launcher.compile(*argv).answer for _ in range(2)] == ["run", "run"]
    assert build.counted() == {"uncacheable.pch": 2}


@pytest.mark.parametrize("macro", ["-DSTAMP=__TIME__", "-DHAS(x)=__has_include(x)"])
def test_hazards_on_its_command_line(macro: str, build: Build) -> None:
    build.make(macro)
    assert [build.use(macro) for _ in range(2)] == ["run", "run"]
    assert build.counted()["uncacheable.pch"] == 2


def test_one_that_was_made_with_other_macros(build: Build) -> None:
    """A target of CMake with REUSE_FROM lacks the `a_EXPORTS` of the other: GCC reads the text."""
    build.make("-Da_EXPORTS", "-fPIC")
    assert [build.use("-Da_EXPORTS", "-fPIC") for _ in range(2)] == ["run", "done"]
    for flags in (("-Db_EXPORTS", "-fPIC"), ("-fPIE",), ()):
        assert [build.use(*flags) for _ in range(2)] == ["run", "done"]
    assert not build.counted()
    build.write("src/guarded.h", SOURCES["src/guarded.h"].replace("return 1", "return 2"))
    assert build.use("-Db_EXPORTS", "-fPIC") == "run"


def test_a_header_that_appears_before_one_in_it(build: Build) -> None:
    flags = (f"-I{build.root}/first", f"-I{build.root}/src")
    build.write("first/x.txt", "")
    build.write("build/pch.h", "#include <all.h>\n")
    assert build.make(*flags) == "run"
    assert [build.use(*flags) for _ in range(2)] == ["run", "done"]
    build.write("first/all.h", "int first;\n")
    assert build.use(*flags) == "run"
    assert build.make(*flags) == "run"


# The first word is the compiler, `-MMD` is for the unit, too.
FORMS = {
    "no name": ("g++-12", "all.h"),
    "no mode": ("g++-12", "-O1", "all.h", "-o", "all.h.gch"),
    "by suffix": ("g++-12", "-c", "all.h", "-o", "all.h.gch"),
    "C": ("gcc-12", "-c", "all.h", "-o", "all.h.gch"),
    "C by language": ("gcc-12", "-xc-header", "all.h", "-MMD", "-MF", "d", "-o", "all.h.gch"),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_the_command(form: str, cache: Cache, tmp_path: Path) -> None:
    for name, text in SOURCES.items():
        (tmp_path / "src").mkdir(exist_ok=True)
        (tmp_path / name).write_text(text.replace("inline int", "static int"))
    directory = tmp_path / "src"
    (directory / "u.c").write_text('#include "all.h"\nint u(void) { return guarded(); }\n')
    launcher = FakeLauncher(handler=cache, cwd=directory)
    compiler = FORMS[form][0]
    level = ("-O1",) if "-O1" in FORMS[form] else ()
    listed = ("-MMD",) if "-MMD" in FORMS[form] else ()
    using = (compiler, *level, *listed, "-c", "u.c", "-o", "u.o")
    assert b"! all.h.gch" not in run_bare((*using, "-H"), cwd=directory)[2]
    for answer in ("run", "done"):
        assert launcher.compile(*FORMS[form]).answer == answer
        assert launcher.compile(*using).answer == answer
        assert b"! all.h.gch" in run_bare((*using, "-H"), cwd=directory)[2]
        (directory / "all.h.gch").unlink()


@pytest.mark.parametrize("more", [("-S",), ("-fpch-deps",), ("--coverage",), ("-o", "pch.h.pch")])
def test_what_is_left_to_the_compiler(more: tuple[str, ...], build: Build) -> None:
    argv = build.making()
    if "-o" in more:
        argv = tuple(word.replace("h.gch", "h.pch") for word in argv)
    else:
        argv = (*argv, *more)
    ended = build.launcher.compile(*argv)
    assert ended.answer == "exec"
    assert build.counted("bypass") in ({"bypass.pch": 1}, {"bypass.several-modes": 1})


def test_with_a_marker_one_that_may_be_respelled_stays_in_its_checkout(build: Build) -> None:
    """GCC may call a header by another name where a system header includes it by way of `..`."""
    build.write(".hpcc", "")
    assert [build.make(), build.make()] == ["run", "done"]
    argv = build.using()
    for answer in ("run", "done"):
        ended = build.launcher.compile(*argv)
        assert (ended.answer, ended.stderr) == (answer, b"")
    assert build.counted("private") == {"private.system-directory": 2}


def test_on_a_farm_both_are_compiled_and_cached_here(
    make: Callable[..., Cache], tmp_path: Path, paths: Paths
) -> None:
    paths.farm_file.parent.mkdir(parents=True, exist_ok=True)
    paths.farm_file.write_text("{}")
    build = Build(tmp_path / "project", make(FakeRemote()), "g++-12", paths)
    build.write(".hpcc", "")
    for answer in ("run", "done"):
        assert build.make() == answer
        assert build.launcher.compile(*build.using()).answer == answer
    assert set(build.counted("fallback")) == {"fallback.pch"}
