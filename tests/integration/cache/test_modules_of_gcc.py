"""Named modules of GCC 14, made and imported with the maps that CMake writes.

GCC lists each interface that it opens, in the depfile, if `-fdeps-format` is given. Two interfaces
of one source differ: each holds the time when it was made.
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


@pytest.fixture
def cache(paths: Paths) -> Iterator[Cache]:
    """A cache whose clock believes the tests' file system: the tests wait for nothing."""
    opened = open_cache(paths, Settings(), None, clock=TrustedClock())
    yield opened
    log_counters(opened)
    opened.close()


@pytest.fixture
def build(tmp_path: Path, cache: Cache) -> Build:
    return Build(tmp_path / "project", cache, "g++-14")


def test_all_hit_in_a_new_build_directory(build: Build) -> None:
    assert build.compile_all() == ["run"] * 5
    made = build.read(build.interface("mid"))
    assert build.compile_all() == ["done"] * 5
    shutil.rmtree(build.directory)
    build.plant()
    assert build.compile_all() == ["done"] * 5
    assert build.read(build.interface("mid")) == made
    assert not build.counted("bypass", "uncacheable")
    assert set(build.counted("private")) <= {"private.modules"}


@pytest.mark.parametrize("source", ["base.cppm", "conf.h"])
def test_an_edit_of_an_interface_reaches_what_imports_it(source: str, build: Build) -> None:
    build.compile_all()
    before = build.read("user.cpp.o")
    text = SOURCES[source].replace("x + SEED", "x - SEED").replace("SEED 3", "SEED 5")
    build.write(source, text)
    assert build.compile_all() == ["run", "done", *(["run"] * 3)]
    assert build.read("user.cpp.o") != before or source == "conf.h"
    build.write(source, SOURCES[source])
    assert build.compile_all() == ["done"] * 5
    assert build.read("user.cpp.o") == before


def test_an_interface_older_than_its_import(build: Build) -> None:
    """GCC compares a checksum, and fails."""
    build.compile_all()
    build.write("base.cppm", SOURCES["base.cppm"].replace("base(int x)", "base(int x, int = 0)"))
    assert build.compile("base.cppm") == "run"
    assert build.compile("user.cpp").startswith("run, exit 1")
    assert [build.compile(source) for source in ALL[2:]] == ["run"] * 3
    assert [build.compile(source) for source in ALL[2:]] == ["done"] * 3


def test_an_interface_that_the_compiler_alone_made(build: Build) -> None:
    build.compile_all()
    for source, reason in (("part.cppm", "module-stale"), ("mid.cppm", "module-file")):
        build.write(source, SOURCES[source] + f"export struct S{reason[7:]} {{}};\n")
        assert run_bare(build.command(source), cwd=build.directory)[0] == 0
        assert [build.compile("user.cpp") for _ in range(2)] == ["run", "run"]
        assert build.counted("uncacheable")[f"uncacheable.{reason}"] == 2


def test_the_order_of_a_maps_lines_does_not_count(build: Build) -> None:
    """CMake writes them in the order of GCC's scan, which varies from run to run."""
    build.compile_all()
    path = build.directory / "mid.cppm.o.modmap"
    root, *lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 3
    path.write_text(root + "".join(reversed(lines)))
    assert build.compile("mid.cppm") == "done"
    path.write_text("".join((root, *lines)).replace("base.gcm", "../mods/base.gcm"))
    assert build.compile("mid.cppm") == "run"


def test_a_header_unit_that_an_interface_imports(build: Build) -> None:
    """The interface is not kept. Neither is a unit that reads the header unit by way of it."""
    header = build.root / "unit.h"
    header.write_text("inline int unit() { return 1; }\n")
    made = ("g++-14", *build.always, "-fmodules-ts", "-fmodule-header", "-x", "c++-header")
    assert run_bare((*made, f"{header}"), cwd=build.directory)[0] == 0
    (unit,) = (build.directory / "gcm.cache").rglob("*.gcm")
    with (build.directory / "base.cppm.o.modmap").open("a") as file:
        file.write(f"{header} {unit.rename(build.directory / 'unit.gcm').name}\n")
    build.write(
        "base.cppm",
        f'module;\nimport "{header}";\nexport module base;\n'
        "export inline int base(int x) { return x + unit(); }\n",
    )
    assert build.compile_all() == ["run"] * 5
    assert build.compile_all() == ["run", "done", "run", "run", "run"]
    assert set(build.counted("uncacheable")) == {"uncacheable.modules", "uncacheable.module-file"}


@pytest.mark.parametrize("case", ["there", "later", "by-macro"])
def test_an_inline_function_that_reads_a_file(case: str, build: Build) -> None:
    """The assembler reads it for each object that emits the function.

    It need not exist when the interface is made, and no list of what its unit read names it.
    """
    data = build.root / "data.bin"
    if case != "later":
        data.write_text("one")
    statement = f'.incbin \\"{data}\\"'
    if case == "by-macro":
        statement = f'.macro m w\\n.inc\\\\w \\"{data}\\"\\n.endm\\nm bin'
    text = SOURCES["part.cppm"] + f'export inline void f() {{ asm("{statement}"); }}\n'
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


def test_a_file_that_is_gone(build: Build) -> None:
    build.compile_all()
    (build.root / "base.cppm").unlink()
    assert build.compile("user.cpp") == "done"
    (build.directory / build.interface("base")).unlink()
    assert build.compile("user.cpp").startswith("run, exit 1")
    assert build.compile("plain.cpp").startswith("run, exit 1")
