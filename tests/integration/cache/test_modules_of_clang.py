"""Named modules of Clang, made and imported with the response files that CMake writes.

With `-g` Clang opens the sources of what a unit imports, and lists them nowhere. Each test compares
hpcc's answer with the compiler's own.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache, open_cache
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc_testkit.cache.clocks import TrustedClock
from hpcc_testkit.cache.compiles import log_counters, run_bare
from hpcc_testkit.cache.modules import ALL, SOURCES, Build
from hpcc_testkit.suite.newest_clang import newest


@pytest.fixture
def cache(paths: Paths) -> Iterator[Cache]:
    """A cache whose clock believes the tests' file system: the tests wait for nothing."""
    opened = open_cache(paths, Settings(), None, clock=TrustedClock())
    yield opened
    log_counters(opened)
    opened.close()


@pytest.fixture(params=["clang++-17", "clang++-19", newest("clang++-22")])
def build(tmp_path: Path, cache: Cache, request: pytest.FixtureRequest) -> Build:
    return Build(tmp_path / "project", cache, request.param)


def test_all_hit_in_a_new_build_directory(build: Build) -> None:
    assert build.compile_all() == ["run"] * 5
    assert build.compile_all() == ["done"] * 5
    shutil.rmtree(build.directory)
    build.plant()
    assert build.compile_all() == ["done"] * 5
    assert not build.counted("bypass", "uncacheable")


@pytest.mark.parametrize("source", ["base.cppm", "conf.h"])
def test_an_edit_that_leaves_the_interface_as_it_was(source: str, build: Build) -> None:
    """With an equal length, the interface has the same bytes, and the unit another MD5."""
    build.write("conf.h", SOURCES["conf.h"] + "// aaa\n")
    build.compile_all()
    before = build.read("user.cpp.o"), build.read(build.interface("mid"))
    text = SOURCES[source] + ("// aaa\n" if source == "conf.h" else "")
    build.write(source, text.replace("aaa", "bbb"))
    assert build.compile_all()[-1] == "run"
    after = build.read("user.cpp.o"), build.read(build.interface("mid"))
    assert before[0] != after[0] or source == "conf.h"
    build.write(source, text)
    assert not build.counted("uncacheable")
    assert build.compile_all() == ["done"] * 5
    assert before == (build.read("user.cpp.o"), build.read(build.interface("mid")))


def test_an_interface_older_than_its_import(build: Build) -> None:
    """Clang takes it without a word."""
    build.compile_all()
    build.write("base.cppm", SOURCES["base.cppm"].replace("x + SEED", "x - SEED"))
    assert build.compile("base.cppm") == "run"
    assert [build.compile("user.cpp") for _ in range(2)] == ["run", "run"]
    assert build.counted("uncacheable") == {"uncacheable.module-stale": 2}
    assert [build.compile(source) for source in ALL[2:]] == ["run"] * 3
    assert [build.compile(source) for source in ALL[2:]] == ["done"] * 3


def test_an_interface_that_the_compiler_alone_made(build: Build) -> None:
    build.compile_all()
    build.write("part.cppm", SOURCES["part.cppm"].replace("4", "5"))
    for source in ("part.cppm", "mid.cppm"):
        assert run_bare(build.command(source), cwd=build.directory)[0] == 0
    assert [build.compile("user.cpp") for _ in range(2)] == ["run", "run"]
    assert build.counted("uncacheable") == {"uncacheable.module-file": 2}


def test_an_import_that_flags_do_not_name(build: Build) -> None:
    """Clang finds it by the path that is in another interface: it is an input as well."""
    build.compile_all()
    only = f'-fmodule-file="mid={build.interface("mid")}"\n-fmodule-file="mid:part={build.interface("mid:part")}"\n'
    (build.directory / "user.cpp.o.modmap").write_text(only)
    first = build.compile("user.cpp")
    build.write("base.cppm", SOURCES["base.cppm"].replace("x + SEED", "x - SEED"))
    assert build.compile("base.cppm") == "run"
    assert build.compile("user.cpp") == first


@pytest.mark.parametrize("is_there", [True, False], ids=["there", "later"])
def test_an_inline_function_that_reads_a_file(is_there: bool, build: Build) -> None:
    """The assembler reads it for each object that emits the function.

    It need not exist when the interface is made.
    """
    data = build.root / "data.bin"
    if is_there:
        data.write_text("one")
    text = SOURCES["part.cppm"] + f'export inline void f() {{ asm(".incbin \\"{data}\\""); }}\n'
    build.write("part.cppm", text)
    build.write("user.cpp", SOURCES["user.cpp"] + "void g() { f(); }\n")
    for source in ALL[:-1]:
        build.compile(source)
    data.write_text("one")
    assert build.compile("user.cpp") == "run"
    first = build.read("user.cpp.o")
    data.write_text("two")
    assert build.compile("user.cpp") == "run"
    assert build.read("user.cpp.o") != first
    assert "uncacheable.module-file" in build.counted("uncacheable")


def test_a_source_by_another_name_of_the_directory(build: Build) -> None:
    """Clang spells relative names below $PWD, and opens that file for what imports the module."""
    link = build.root / "current"
    other = build.root / "other"
    shutil.copytree(build.directory, other)
    for place in (build.directory, other):
        (place / "one.cppm").write_text(
            "export module one;\nexport inline int one() { return 1; }\n"
        )
        (place / "two.cpp").write_text("import one;\nint two() { return one(); }\n")
    (other / "one.cppm").write_text("export module one;\nexport inline int one() { return 2; }\n")
    link.symlink_to(build.directory)
    flags = (build.compiler, *build.always)
    make = (*flags, "-fmodule-output=one.pcm", "-c", "one.cppm", "-o", "one.o")
    use = (*flags, "-fmodule-file=one=one.pcm", "-c", "two.cpp", "-o", "two.o")
    build.launcher.env = {"PWD": str(link)}
    assert build.launcher.compile(*make).answer == "run"
    build.launcher.env = {}
    assert [build.launcher.compile(*use).answer for _ in range(2)] == ["run", "done"]
    link.unlink()
    link.symlink_to(other)
    assert build.launcher.compile(*use).answer == "run"


def test_a_new_unit_after_an_edit_was_undone(build: Build) -> None:
    """The interface has the same bytes in both states."""
    build.compile_all()
    for text in (SOURCES["base.cppm"].replace("aaa", "bbb"), SOURCES["base.cppm"]):
        build.write("base.cppm", text)
        build.compile_all()
    assert build.compile("user.cpp", "-O1") == "run"
    assert build.compile("user.cpp", "-O1") == "done"


def test_one_whose_record_was_evicted(build: Build, paths: Paths) -> None:
    """It is compiled again, which makes the record anew: what imports it could not be kept."""
    build.compile_all()
    for path in Path(paths.cache).rglob("*"):
        if path.is_file() and b"interface-1" in path.read_bytes()[:200]:
            path.unlink()
    assert build.compile_all() == [*["run"] * 3, "done", "done"]
    assert [build.compile("user.cpp", "-O1") for _ in range(2)] == ["run", "done"]


def test_a_file_that_is_gone(build: Build) -> None:
    build.compile_all()
    (build.root / "base.cppm").unlink()
    assert build.compile("user.cpp").startswith("run")
    build.write("base.cppm", SOURCES["base.cppm"])
    assert build.compile("user.cpp") == "done"
    (build.directory / build.interface("base")).unlink()
    assert build.compile("user.cpp").startswith("run")


@pytest.mark.parametrize(
    "more",
    [("-fmodule-file=mods/base.pcm",), ("-fprebuilt-module-path=mods",), ("-fmodules",)],
)
def test_interfaces_by_other_rules_are_left_to_the_compiler(
    more: tuple[str, ...], build: Build
) -> None:
    build.compile_all()
    assert build.launcher.compile(*build.command("user.cpp", *more)).reason == "modules"


newest_only = pytest.mark.parametrize("build", [newest("clang++-22")], indirect=True)


@newest_only
def test_an_interface_that_no_flag_names_is_left_to_the_compiler(build: Build) -> None:
    """Clang 22 writes one beside the object: a hit would leave an old one there."""
    words = (build.compiler, *build.always, "-c", f"{build.root}/part.cppm", "-o", "mods/new.o")
    for _ in range(2):
        assert build.launcher.compile(*words).reason == "modules"
        (build.directory / "mods/new.pcm").unlink()
    # With a name, that is the only one.
    named = (*words, "-fmodule-output=mods/named.pcm")
    assert [build.launcher.compile(*named).answer for _ in range(2)] == ["run", "done"]
    made = {path.name for path in (build.directory / "mods").iterdir()}
    assert made == {"new.o", "named.pcm"}


@newest_only
def test_reduced_and_whole_interfaces_are_different_results(build: Build) -> None:
    found = []
    for flag in ("-fmodules-reduced-bmi", "-fno-modules-reduced-bmi"):
        build.always = ("-g", "-std=c++20", flag)
        assert build.compile_all() == ["run"] * 5
        assert build.compile_all() == ["done"] * 5
        found.append(build.read(build.interface("mid")))
    assert found[0] != found[1]
    # As of any interface, the sources of a reduced one are read for debug information.
    build.write("base.cppm", SOURCES["base.cppm"].replace("aaa", "bbb"))
    build.always = ("-g", "-std=c++20", "-fmodules-reduced-bmi")
    assert build.compile_all()[-1] == "run"
