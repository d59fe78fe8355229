"""Units with a precompiled header of GCC's on a farm: the objects are those of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache
from hpcc.config.paths import Paths
from hpcc_testkit.cache.compiles import PlacedRemote, counted, farm_session, own_toolchain
from hpcc_testkit.cache.precompiled import Build

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a directory at /src needs root"),
    pytest.mark.skipif(
        shutil.which("g++-14") is None, reason="tools/bootstrap.sh packages test installs it"
    ),
]
ALL = '#pragma once\n#include <vector>\n#include "once.h"\n#include "guarded.h"\n'
UNIT = (
    '#include "once.h"\n#include <vector>\n#include "guarded.h"\n'
    "int u() { int unused; std::vector<int> v(2); return once() + guarded() + (int)v.size(); }\n"
)

LIGHT_UNIT = '#include "once.h"\nint u() { return once() + guarded(); }\n'


class FarmBuild(Build):
    """A build whose depfiles count by their words, and whose header includes by absolute names."""

    def read(self, name: str) -> bytes | None:
        data = super().read(name)
        is_depfile = data is not None and name.endswith(".d")
        return b" ".join(data.replace(b"\\\n", b" ").split()) if data and is_depfile else data


@pytest.fixture
def remote() -> PlacedRemote:
    return PlacedRemote()


@pytest.fixture
def cache(make_cache: Callable[..., Cache], remote: PlacedRemote) -> Cache:
    return make_cache(remote)


def planted(tmp_path: Path, cache: Cache, remote: PlacedRemote, name: str, paths: Paths) -> Build:
    root = tmp_path / "project"
    build = FarmBuild(root, cache, name, paths)
    build.write("src/all.h", ALL)
    build.write("src/u.cpp", UNIT)
    head = f'/* by CMake */\n\n#pragma GCC system_header\n#ifdef __cplusplus\n#include "{root}/src/all.h"\n'
    build.write("build/pch.h", head + "#endif // __cplusplus\n")
    subprocess.run(["git", "init", "-q", root], check=True)
    (root / "build/CMakeCache.txt").touch()
    remote.said = farm_session(own_toolchain(name))
    return build


@pytest.mark.parametrize(
    ("compiler", "flags"), [("g++-14", ("-g", "-O0")), ("g++-14", ("-O2",)), ("g++-12", ("-g",))]
)
def test_a_unit_with_a_precompiled_header_travels(
    compiler: str, flags: tuple[str, ...], tmp_path: Path, cache: Cache, remote: PlacedRemote,
    paths: Paths,
) -> None:  # fmt: skip
    build = planted(tmp_path, cache, remote, compiler, paths)
    build.always = (*flags, "-std=c++20")
    assert [build.make(), build.use(), build.use()] == ["run", "done", "done"]
    assert counted(cache, "miss.remote.executed", "hit.remote", "fallback.pch") == (1, 1, 1)
    (request,) = remote.requests
    sent = {item.path for item in request.inputs}
    assert {"src/u.cpp", "src/once.h", "build/pch.h.gch"} <= sent
    assert "build/pch.h" not in sent
    # A header that no list names is an input.
    build.write(
        "src/guarded.h", "#ifndef G\n#define G\ninline int guarded() { return 2; }\n#endif\n"
    )
    assert build.use() == "run"
    assert counted(cache, "fallback.pch-stale") == (1,)
    assert [build.make(), build.use()] == ["run", "done"]
    assert counted(cache, "miss.remote.executed") == (2,)


def test_one_that_the_guests_compiler_rejects_is_compiled_here(
    tmp_path: Path, cache: Cache, remote: PlacedRemote, paths: Paths
) -> None:
    build = planted(tmp_path, cache, remote, "g++-14", paths)
    build.write("src/all.h", ALL.replace("vector", "cstddef"))
    build.write("src/u.cpp", LIGHT_UNIT)
    # With another macro GCC reads the header, with a warning.
    build.write("src/guarded.h", "#ifdef X\n#endif\n" + (build.root / "src/guarded.h").read_text())
    assert build.make() == "run"
    ended = build.launcher.compile(*build.using("-DX=1"))
    assert (ended.answer, ended.exit_code) == ("run", 0)
    assert counted(cache, "fallback.exit-code", "miss.remote.executed") == (1, 0)


@pytest.mark.parametrize(
    "kind",
    [
        "other headers",
        "not compared",
        "no record",
        "clock",
        "link",
        "flag",
        "old debug",
        "includes it",
    ],
)
def test_what_could_give_another_object_stays_here(
    kind: str, tmp_path: Path, cache: Cache, remote: PlacedRemote, paths: Paths
) -> None:
    build = planted(tmp_path, cache, remote, "g++-14", paths)
    assert remote.said is not None
    (own,) = remote.said.compilers or ()
    more = {"not compared": "#include <fts.h>\n", "clock": "#define STAMP __TIME__\n"}
    light = ALL.replace("vector", "cstddef")
    build.write("src/all.h", light + more.get(kind, ""))
    if kind == "includes it":
        build.write(
            "src/guarded.h", '#include "../build/pch.h"\ninline int guarded() { return 1; }\n'
        )
    build.write("src/u.cpp", LIGHT_UNIT + ("const char *now = STAMP;\n" if kind == "clock" else ""))
    if kind == "other headers":
        remote.said = farm_session(replace(own, headers=own.headers[1:]))
    elif kind == "link":
        (build.root / "src/guarded.h").rename(build.root / "src/real.h")
        (build.root / "src/guarded.h").symlink_to("real.h")
    if kind == "no record":
        subprocess.run(build.making(), cwd=build.directory, check=True)
    else:
        assert build.make() == "run"
    flags = {"flag": ("-fdump-tree-all",), "old debug": ("-gdwarf-4",)}
    build.launcher.compile(*build.using(*flags.get(kind, ())))
    assert remote.requests == []
    assert counted(cache, "miss.remote.executed") == (0,)
