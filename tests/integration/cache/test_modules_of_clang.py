"""Named modules of Clang, made and imported with the response files that CMake writes.

With `-g` Clang opens the sources of what a unit imports, and lists them nowhere. Each test compares
hpcc's answer with the compiler's own.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from hpcc.cache.cache import Cache, open_cache
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc_testkit.cache.clocks import TrustedClock
from hpcc_testkit.cache.compiles import FakeLauncher, run_bare

SOURCES: Final = {
    "conf.h": "#define SEED 3\n",
    "base.cppm": 'module;\n#include "conf.h"\nexport module base;\n// aaa\n'
    "export inline int base(int x) { return x + SEED; }\n",
    "part.cppm": "export module mid:part;\nexport struct Part { int a = 4; };\n",
    "mid.cppm": "export module mid;\nexport import base;\nexport import :part;\n"
    "export int mid(int x);\nexport template <class T> T twice(T t) { return t + base(1); }\n",
    "impl.cpp": "module mid;\nint mid(int x) { return base(x) + Part{}.a; }\n",
    "user.cpp": "import mid;\nint user() { return twice(2) + mid(3); }\n",
}
IMPORTS: Final = {
    "base.cppm": (),
    "part.cppm": (),
    "mid.cppm": ("base", "mid:part"),
    "impl.cpp": ("mid", "base", "mid:part"),
    "user.cpp": ("mid", "base", "mid:part"),
}
NAMES: Final = {"base.cppm": "base", "part.cppm": "mid:part", "mid.cppm": "mid"}
ALL: Final = tuple(IMPORTS)


class Build:
    """A build directory whose commands are those of CMake with Ninja."""

    def __init__(self, root: Path, cache: Cache, compiler: str) -> None:
        self.root, self.directory, self.cache, self.compiler = root, root / "b", cache, compiler
        self.always: tuple[str, ...] = ("-g", "-std=c++20")
        self.plant()
        self.launcher = FakeLauncher(handler=cache, cwd=self.directory)

    def plant(self) -> None:
        """Write the project as a fresh clone has it, and the response files."""
        for name, text in SOURCES.items():
            self.write(name, text)
        self.directory.mkdir(exist_ok=True)
        for source, imported in IMPORTS.items():
            lines = [f'-fmodule-file="{name}={pcm(name)}"' for name in imported]
            if source in NAMES:
                lines = ["-x c++-module", f"-fmodule-output={pcm(NAMES[source])}", *lines]
            text = "".join(line + "\n" for line in lines)
            (self.directory / f"{source}.o.modmap").write_text(text)

    def write(self, name: str, text: str) -> None:
        """Write a file of the project."""
        self.root.mkdir(exist_ok=True)
        (self.root / name).write_text(text)

    def command(self, source: str, *more: str) -> tuple[str, ...]:
        """Return the command of one source."""
        made = f"{source}.o"
        depfile = ("-MD", "-MT", made, "-MF", f"{made}.d")
        words = (self.compiler, *self.always, *more, *depfile, f"@{made}.modmap")
        return (*words, "-o", made, "-c", f"{self.root}/{source}")

    def compile(self, source: str, *more: str) -> str:
        """Compile a source, compare all with the compiler alone, and return the answer."""
        argv = self.command(source, *more)
        for name in outputs(source):
            (self.directory / name).unlink(missing_ok=True)
        ended = self.launcher.compile(*argv)
        made = {name: self.read(name) for name in outputs(source)}
        code, out, err = run_bare(argv, cwd=self.directory)
        assert made == {name: self.read(name) for name in outputs(source)}
        assert (ended.exit_code, ended.stdout, ended.stderr) == (code, out, err)
        return ended.answer if code == 0 else f"{ended.answer}, exit {code}"

    def compile_all(self) -> list[str]:
        """Compile all sources in the order of their imports; return the answers."""
        return [self.compile(source) for source in ALL]

    def read(self, name: str) -> bytes | None:
        """Return what is in the build directory under a name."""
        path = self.directory / name
        return path.read_bytes() if path.exists() else None

    def counted(self, *kinds: str) -> dict[str, int]:
        """Return the counters of these kinds that are not zero."""
        found = self.cache.counters().items()
        return {name: n for name, n in found if n and name.partition(".")[0] in kinds}


def pcm(name: str) -> str:
    """Return where a module's interface is."""
    return f"mods/{name.replace(':', '-')}.pcm"


def outputs(source: str) -> tuple[str, ...]:
    """Return what a compile of a source writes."""
    made = f"{source}.o"
    return (made, f"{made}.d", *((pcm(NAMES[source]),) if source in NAMES else ()))


@pytest.fixture
def cache(paths: Paths) -> Iterator[Cache]:
    """A cache whose clock believes the tests' file system: the tests wait for nothing."""
    opened = open_cache(paths, Settings(), None, clock=TrustedClock())
    yield opened
    opened.close()


@pytest.fixture(params=["clang++-17", "clang++-19"])
def build(tmp_path: Path, cache: Cache, request: pytest.FixtureRequest) -> Build:
    made = Build(tmp_path / "project", cache, request.param)
    (made.directory / "mods").mkdir()
    return made


def test_all_hit_in_a_new_build_directory(build: Build) -> None:
    assert build.compile_all() == ["run"] * 5
    assert build.compile_all() == ["done"] * 5
    shutil.rmtree(build.directory)
    build.plant()
    (build.directory / "mods").mkdir()
    assert build.compile_all() == ["done"] * 5
    assert not build.counted("bypass", "uncacheable")


@pytest.mark.parametrize("source", ["base.cppm", "conf.h"])
def test_an_edit_that_leaves_the_interface_as_it_was(source: str, build: Build) -> None:
    """With an equal length, the interface has the same bytes, and the unit another MD5."""
    build.write("conf.h", SOURCES["conf.h"] + "// aaa\n")
    build.compile_all()
    before = build.read("user.cpp.o"), build.read(pcm("mid"))
    text = SOURCES[source] + ("// aaa\n" if source == "conf.h" else "")
    build.write(source, text.replace("aaa", "bbb"))
    assert build.compile_all()[-1] == "run"
    after = build.read("user.cpp.o"), build.read(pcm("mid"))
    assert before[0] != after[0] or source == "conf.h"
    build.write(source, text)
    assert build.compile_all() == ["done"] * 5
    assert before == (build.read("user.cpp.o"), build.read(pcm("mid")))


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
    only = f'-fmodule-file="mid={pcm("mid")}"\n-fmodule-file="mid:part={pcm("mid:part")}"\n'
    (build.directory / "user.cpp.o.modmap").write_text(only)
    first = build.compile("user.cpp")
    build.write("base.cppm", SOURCES["base.cppm"].replace("x + SEED", "x - SEED"))
    assert build.compile("base.cppm") == "run"
    assert build.compile("user.cpp") == first


def test_a_file_that_is_gone(build: Build) -> None:
    build.compile_all()
    (build.root / "base.cppm").unlink()
    assert build.compile("user.cpp").startswith("run")
    build.write("base.cppm", SOURCES["base.cppm"])
    assert build.compile("user.cpp") == "done"
    (build.directory / pcm("base")).unlink()
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
