"""Units that import modules of Clang's on a farm: the objects are those of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache
from hpcc_testkit.cache.compiles import PlacedRemote, counted, farm_session, own_toolchain
from hpcc_testkit.cache.modules import Build

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a directory at /src needs root"),
    pytest.mark.skipif(
        shutil.which("clang++-19") is None, reason="tools/bootstrap.sh packages test installs it"
    ),
]
# As CMake builds: interfaces first. Units that write one stay here.
ALL = ["run", "run", "run", "done", "done"]
WITH_HEADER = (
    'module;\n#include <vector>\n#include "conf.h"\nexport module base;\n'
    "export template <class T> bool less(T t, unsigned u) { return t < u; }\n"
    "export inline int base(int x) { std::vector<int> v(3); return x + SEED + (int)v.size(); }\n"
)
# A warning in the template of a module shows a line of its source.
UNIT = (
    "#include <vector>\n#include <source_location>\nimport mid;\n"
    "const char *here() { return std::source_location::current().file_name(); }\n"
    "int user() { int unused; return (int)twice(-2L) + mid(3) + less(3, 4) + (int)std::vector<int>(2).size(); }\n"
)


@pytest.fixture
def remote() -> PlacedRemote:
    return PlacedRemote()


@pytest.fixture
def cache(make_cache: Callable[..., Cache], remote: PlacedRemote) -> Cache:
    return make_cache(remote)


class FarmBuild(Build):
    """A build whose depfiles count by their words: lines end where `/src` makes them end."""

    def read(self, name: str) -> bytes | None:
        data = super().read(name)
        is_depfile = data is not None and name.endswith(".d")
        return b" ".join(data.replace(b"\\\n", b" ").split()) if data and is_depfile else data


def planted(tmp_path: Path, cache: Cache, remote: PlacedRemote, compiler: str) -> Build:
    build = FarmBuild(tmp_path / "project", cache, compiler)
    subprocess.run(["git", "init", "-q", build.root], check=True)
    (build.directory / "build.ninja").touch()
    remote.said = farm_session(own_toolchain(compiler))
    return build


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [
        ("clang++-19", ("-g",)),
        ("clang++-19", ("-O2", "-Wall", "-Wextra")),
        ("clang++-17", ("-g", "-gdwarf-4", "-O1")),
    ],
)
def test_a_unit_that_imports_travels(
    compiler: str, flags: tuple[str, ...], tmp_path: Path, cache: Cache, remote: PlacedRemote
) -> None:
    build = planted(tmp_path, cache, remote, compiler)
    build.always = (*flags, "-std=c++20")
    build.write("base.cppm", WITH_HEADER)
    build.write("user.cpp", UNIT)
    assert build.compile_all() == ALL
    assert counted(cache, "miss.remote.executed", "fallback.modules") == (2, 3)
    user = build.launcher.compile(*build.command("user.cpp"))
    assert (b"base.cppm:" in user.stderr) == ("-Wextra" in flags)
    unit = remote.requests[-1]
    sent = {item.path for item in unit.inputs}
    assert {"user.cpp", "b/mods/mid.pcm", "b/mods/base.pcm", "mid.cppm", "conf.h"} <= sent
    assert counted(cache, "miss.remote.executed", "hit.remote") == (2, 1)


def test_an_object_of_a_shared_project_has_the_names_of_its_interfaces(
    tmp_path: Path, cache: Cache, remote: PlacedRemote
) -> None:
    build = planted(tmp_path, cache, remote, "clang++-19")
    build.write(".hpcc", "")  # other units have names below "." then
    build.write("user.cpp", UNIT.replace("less(3, 4) + ", ""))
    root = build.root
    # Of a compile here.
    build.maps = (f"-fmacro-prefix-map={root}/=./", f"-fdebug-prefix-map={root}/=/proc/self/cwd/")
    assert [build.compile(name) for name in ("base.cppm", "part.cppm", "mid.cppm")] == ["run"] * 3
    build.maps = ()
    assert [build.compile(name) for name in ("impl.cpp", "user.cpp")] == ["done"] * 2
    assert counted(cache, "miss.remote.executed") == (2,)


def test_an_edit_of_a_source_that_no_list_names_is_a_miss(
    tmp_path: Path, cache: Cache, remote: PlacedRemote
) -> None:
    build = planted(tmp_path, cache, remote, "clang++-19")
    build.compile_all()
    # Of one length: with -g only the MD5 of the source changes.
    text = (build.root / "base.cppm").read_text()
    build.write("base.cppm", text.replace("// aaa", "// bbb"))
    assert build.compile("user.cpp") == "run"  # the interface is older than its source
    assert counted(cache, "fallback.module-stale") == (1,)
    assert build.compile_all()[3:] == ["done", "done"]
    assert counted(cache, "miss.remote.executed") == (4,)
    build.write("conf.h", "#define SEED 4\n")
    assert build.compile_all()[3:] == ["done", "done"]
    assert counted(cache, "miss.remote.executed") == (6,)


@pytest.mark.parametrize(
    "kind", ["other headers", "unknown", "not compared", "no record", "link", "flag"]
)
def test_what_could_give_another_object_stays_here(
    kind: str, tmp_path: Path, cache: Cache, remote: PlacedRemote
) -> None:
    build = planted(tmp_path, cache, remote, "clang++-19")
    (own,) = remote.said.compilers or () if remote.said else ()
    if kind == "other headers":
        remote.said = farm_session(replace(own, headers=own.headers[1:]))
    elif kind == "unknown":
        remote.said = replace(farm_session(), compilers=None)
    elif kind == "not compared":  # no probe reads it
        build.write("base.cppm", WITH_HEADER.replace("<vector>", "<vector>\n#include <fts.h>"))
    elif kind == "link":
        (build.root / "real.h").write_text("#define SEED 3\n")
        (build.root / "conf.h").unlink()
        (build.root / "conf.h").symlink_to("real.h")
    before = [build.compile(source) for source in ("base.cppm", "part.cppm", "mid.cppm")]
    assert before == ["run"] * 3
    if kind == "no record":
        subprocess.run(
            [build.compiler, "-std=c++20", "-g", "-x", "c++-module", "--precompile", "-DX",
             "../base.cppm", "-o", "mods/base.pcm"],
            cwd=build.directory, check=True,
        )  # fmt: skip
    flags = ("-fdebug-macro",) if kind == "flag" else ()
    assert build.compile("impl.cpp", *flags).startswith("run")
    assert remote.requests == []
    # The record of `mid` names another interface of `base`.
    counts = (3, 1) if kind == "no record" else (4, 0)
    assert counted(cache, "fallback.modules", "fallback.module-stale") == counts
