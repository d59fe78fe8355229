"""`-E -o FILE`: the text, its mode, the messages and a depfile are those of the bare compiler."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from hpcc.cache.cache import Cache
from hpcc_testkit.cache.compiles import Compiled, FakeLauncher, FakeRemote, counted, run_bare

_SOURCES = {
    "src/a.c": '#include "a.h" // told\n#include <sys.h>\n#define OWN(x) x\n#pragma once_more\n'
    "#warning told\nconst char *f(void) { /* a remark */ return OWN(__FILE__) A; }\n",
    "src/quiet.cc": '#include "a.h"\nnamespace { int a = A; }\n',
    "src/low.lds.S": '#include "a.h"\nOUTPUT_ARCH(i386:x86-64)\nSECTIONS { . = A; }\n',
    "src/a.h": "#define A 5\n",
    "sys/sys.h": "struct system_s { int member; };\n",
}


@pytest.fixture(autouse=True)
def sources(project: Any) -> Any:
    for name, text in _SOURCES.items():
        project.write(name, text)
    (project.directory / "out").mkdir()
    project.settle()
    return project


def _left(cwd: Path) -> dict[str, tuple[int, bytes]]:
    out = cwd / "out"
    found = {p.name: (stat.S_IMODE(p.stat().st_mode), p.read_bytes()) for p in out.iterdir()}
    assert {p.suffix for p in cwd.iterdir()} <= {""}, "a file that no flag names"
    return found


def _place(cwd: Path, files: dict[str, tuple[int, bytes]]) -> None:
    for path in (cwd / "out").iterdir():
        path.unlink()
    for name, (mode, data) in files.items():
        (cwd / "out" / name).write_bytes(data)
        (cwd / "out" / name).chmod(mode)


def _same(launcher: FakeLauncher, *argv: str) -> Compiled:
    """Run bare and through the cache over the same files; both must do the same."""
    cwd, before = launcher.cwd, _left(launcher.cwd)
    code, out, err = run_bare(argv, cwd=cwd, env=launcher.env, umask=launcher.umask)
    bare = _left(cwd)
    _place(cwd, before)
    ours = launcher.compile(*argv)
    assert (ours.exit_code, ours.stdout, ours.stderr) == (code, out, err)
    assert _left(cwd) == bare
    return ours


_FORMS = (
    "-E -isystem sys -o out/a.i src/a.c",
    "-E -g -O2 -Wall -isystem sys -o out/a.i src/a.c",
    "-E -P -C -isystem sys -o out/a.i src/a.c",
    "-E -CC -isystem sys -o out/a.i src/a.c",
    "-E -dM -isystem sys -o out/a.i src/a.c",
    "-E -dD -dI -isystem sys -o out/a.i src/a.c",
    "-E -g3 -isystem sys -o out/a.i src/a.c",
    "-x c++ -E -isystem sys -std=c++20 -o out/a.ii src/a.c",
    "-E -MD -MF out/a.d -isystem sys -o out/a.i src/a.c",
    "-E -MMD -MF out/a.d -MT t -isystem sys -o out/a.i src/a.c",
    "-E -g -dD -MMD -MF out/a.d -isystem sys -o out/a.i src/a.c",
    # As Linux makes its linker scripts.
    "-E -Wp,-MMD,out/x.d -nostdinc -Isrc -P -Ux86 -DX -o out/low.lds src/low.lds.S",
)


@pytest.mark.parametrize("compiler", ["gcc-14", "g++-14", "clang-19"])
def test_text_is_a_cached_compile(compiler: str, launcher: FakeLauncher, cache: Cache) -> None:
    for form in _FORMS:
        argv = (compiler, *form.split())
        _place(launcher.cwd, {})
        launcher.umask = 0o022
        assert _same(launcher, *argv).answer == "run", form
        # Over a file with another mode, and as a new one with another.
        for path in (launcher.cwd / "out").iterdir():
            path.chmod(0o640)
        assert _same(launcher, *argv).answer == "done", form
        _place(launcher.cwd, {})
        launcher.umask = 0o077
        assert _same(launcher, *argv).answer == "done", form
    assert counted(cache, "miss.local", "hit.local") == (len(_FORMS), 2 * len(_FORMS))


@pytest.mark.parametrize("compiler", ["gcc-14", "clang-19"])
def test_whatever_the_text_shows_is_in_the_key(
    compiler: str, launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    argv = (compiler, "-E", "-C", "-g", "-isystem", "sys", "-o", "out/a.i", "src/a.c")
    _same(launcher, *argv)
    # A comment, a file that appears earlier, another name of the source, directory and $PWD.
    project.write("src/a.c", _SOURCES["src/a.c"].replace("remark", "Remark"))
    project.settle()
    assert _same(launcher, *argv).answer == "run"
    project.write("early/sys.h", "int early;\n")
    project.settle()
    assert _same(launcher, *argv[:3], "-isystem", "early", *argv[3:]).answer == "run"
    (project.directory / "early/sys.h").unlink()
    assert _same(launcher, *argv[:3], "-isystem", "early", *argv[3:]).answer == "run"
    project.write("early/sys.h", "int early;\n")
    project.settle()
    assert _same(launcher, *argv[:3], "-isystem", "early", *argv[3:]).answer == "done"
    assert _same(launcher, *argv[:-1], "src/../src/a.c").answer == "run"
    assert _same(launcher, *argv[:-1], str(launcher.cwd / "src/a.c")).answer == "run"
    (launcher.cwd.parent / "link").symlink_to(launcher.cwd)
    launcher.env = {"PWD": str(launcher.cwd.parent / "link")}
    assert _same(launcher, *argv).answer == "run"
    assert counted(cache, "hit.content", "hit.shared", "hit.local") == (0, 0, 1)


@pytest.mark.parametrize("compiler", ["gcc-14", "clang-19"])
def test_a_search_directory_behind_a_link_may_lead_elsewhere(
    compiler: str, launcher: FakeLauncher, project: Any
) -> None:
    for name in ("one", "two"):
        project.write(f"{name}/sys.h", "int here;\n")
    link = launcher.cwd / "a-name-longer-than-the-real-one-of-the-directory"
    link.symlink_to("one")
    project.settle()
    argv = (compiler, "-E", "-isystem", str(link), "-o", "out/a.i", "src/a.c")
    _same(launcher, *argv)
    assert _same(launcher, *argv).answer == "done"
    link.unlink()
    link.symlink_to("two")
    _same(launcher, *argv)


@pytest.mark.parametrize("compiler", ["gcc-14", "clang-19"])
def test_text_and_object_never_serve_each_other(
    compiler: str, launcher: FakeLauncher, cache: Cache
) -> None:
    flags = ("-O1", "-o", "out/x", "src/quiet.cc")
    for mode in ("-E", "-c", "-S"):
        assert _same(launcher, compiler, mode, *flags).answer == "run"
    for mode in ("-S", "-E", "-c"):
        assert _same(launcher, compiler, mode, *flags).answer == "done"
    assert _same(launcher, compiler, "-E", "-O1", "-o", "out/y", "src/quiet.cc").answer == "run"
    assert counted(cache, "miss.local", "hit.local", "hit.content") == (4, 3, 0)


@pytest.mark.parametrize("compiler", ["gcc-14", "clang-19"])
def test_a_clock_in_the_text_is_not_kept(
    compiler: str, launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    words = ("__TIME__", "__DATE__", "__TIMESTAMP__")
    for word in words:
        project.write(f"src/{word}.c", f"const char *at = {word};\n")
    project.settle()
    for word in (*words, *words):
        argv = (compiler, "-E", "-o", "out/c.i", f"src/{word}.c")
        assert launcher.compile(*argv).answer == "run"
    assert counted(cache, "hit.local", "miss.local") == (0, 6)
    # The text shows this definition, and nothing uses the clock.
    project.write("src/shown.c", "#define NOW __TIME__\nint a;\n")
    project.settle()
    for expected in ("run", "done"):
        argv = (compiler, "-E", "-dD", "-o", "out/c.i", "src/shown.c")
        assert launcher.compile(*argv).answer == expected


@pytest.mark.parametrize("compiler", ["gcc-14", "clang-19"])
def test_text_that_overwrites_its_input_is_the_bare_one(
    compiler: str, launcher: FakeLauncher, project: Any
) -> None:
    argv = (compiler, "-E", "-P", "-o", "out/in.h", "src/in.c")
    project.write("src/in.c", '#include "../out/in.h"\nint end;\n')
    project.write("out/in.h", "int in;\n")
    run_bare(argv, cwd=launcher.cwd)
    bare = (launcher.cwd / "out/in.h").read_bytes()
    for _ in range(2):
        project.write("out/in.h", "int in;\n")
        project.settle()
        assert launcher.compile(*argv).exit_code == 0
        assert (launcher.cwd / "out/in.h").read_bytes() == bare


_LEFT = (
    ("-E -c -o out/a.i src/quiet.cc", "preprocess-only"),
    ("-E -MD -o out/a.i src/quiet.cc", "preprocess-only"),
    ("-E -o out/a.i -x cpp-output src/quiet.cc", "preprocess-only"),
    ("-E -o out/a.i src/a.h", "preprocess-only"),
    ("-E -o /dev/null src/quiet.cc", "special-output"),
    ("-E -o out/a.i -x c++ -", "stdin"),
    ("-c -dM -o out/a.o src/quiet.cc", "dump"),
)


@pytest.mark.parametrize("compiler", ["gcc-14", "clang-19"])
def test_other_forms_run_unchanged(compiler: str, launcher: FakeLauncher) -> None:
    for flags, reason in _LEFT:
        answer = _same(launcher, compiler, *flags.split())
        assert (answer.answer, answer.reason) == ("exec", reason), flags


def test_other_checkouts_and_the_farm_get_none(make_cache: Any, launcher: FakeLauncher) -> None:
    remote = FakeRemote()
    launcher.handler = cache = make_cache(remote)
    (launcher.cwd / ".hpcc").touch()
    argv = ("gcc-14", "-E", "-o", "out/a.i", "src/quiet.cc")
    launcher.compile(*argv)
    assert launcher.compile(*argv).answer == "done"
    clone = launcher.cwd.parent / "clone"
    for name, text in (*_SOURCES.items(), (".hpcc", "")):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text(text)
        os.utime(clone / name, (1, 1))
    (clone / "out").mkdir()
    launcher.cwd = clone
    assert launcher.compile(*argv).answer == "run"
    assert remote.requests == []
    assert counted(cache, "miss.local", "hit.local", "hit.shared") == (2, 1, 0)
