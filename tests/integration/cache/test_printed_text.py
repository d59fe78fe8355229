"""`-E` to standard output: text, messages, status and depfile are those of the bare compiler."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hpcc.cache.base.api import MAX_CAPTURE_BYTES
from hpcc.cache.cache import Cache
from hpcc_testkit.cache.compiles import Compiled, FakeLauncher, FakeRemote, counted, run_bare
from hpcc_testkit.suite.newest_clang import newest

_SOURCES = {
    "conftest.c": '#include "a.h" // told\n#include <limits.h>\nconst char *f = __FILE__; A\n',
    "quiet.cc": '#include "a.h"\nnamespace { int a = A; }\n',
    "a.h": "#define A 5\n",
}


@pytest.fixture(autouse=True)
def sources(project: Any) -> Any:
    for name, text in _SOURCES.items():
        project.write(name, text)
    project.settle()
    return project


def _same(launcher: FakeLauncher, *argv: str) -> Compiled:
    """Run bare and through the cache; both must print the same and write the same depfile."""
    depfile = launcher.cwd / "a.d"
    bare = run_bare(argv, cwd=launcher.cwd, env=launcher.env)
    expected = depfile.read_bytes() if depfile.exists() else None
    depfile.unlink(missing_ok=True)
    ours = launcher.compile(*argv)
    assert (ours.exit_code, ours.stdout, ours.stderr) == bare
    assert (depfile.read_bytes() if depfile.exists() else None) == expected
    names = {path.name for path in launcher.cwd.iterdir() if path.is_file()}
    assert names <= {*_SOURCES, "a.d", ".hpcc"} | {p for p in names if p.startswith("more")}
    depfile.unlink(missing_ok=True)
    return ours


# As autoconf, Linux' Kbuild and meson ask.
_FORMS = (
    "-E conftest.c",
    "-E -P conftest.c",
    "-E -dM -x c /dev/null",
    "-E -dM -I. -include a.h -x c++ /dev/null",
    "-E -O2 -g -Wp,-MMD,a.d -P -DX=1 -x assembler-with-cpp conftest.c",
    "-E -MD -MF a.d -MT t conftest.c",
    "quiet.cc -E -P -D_FILE_OFFSET_BITS=64 -P -O0",
)


@pytest.mark.parametrize("compiler", ["gcc-14", "g++-14", "clang-19", newest("clang-22")])
def test_printed_text_is_cached(compiler: str, launcher: FakeLauncher, cache: Cache) -> None:
    for form in _FORMS:
        argv = (compiler, *form.split())
        assert _same(launcher, *argv).answer == "run", form
        assert _same(launcher, *argv).answer == "done", form
    assert counted(cache, "miss.local", "hit.local") == (len(_FORMS), len(_FORMS))


@pytest.mark.parametrize("compiler", ["gcc-14", "clang-19", newest("clang-22")])
def test_a_second_run_of_a_configure_script_hits(
    compiler: str, launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    texts = [f'#include "a.h"\nanswer{number} A\n' for number in range(3)]
    answers = []
    for text in texts * 2:
        project.write("conftest.c", text)
        project.settle()
        answers.append(_same(launcher, compiler, "-E", "conftest.c").answer)
    assert answers == ["run"] * 3 + ["done"] * 3
    project.write("a.h", "#define A 6\n")
    project.settle()
    assert _same(launcher, compiler, "-E", "conftest.c").answer == "run"
    project.write("conftest.c", "#error told\n")
    project.settle()
    for _ in range(2):
        assert _same(launcher, compiler, "-E", "conftest.c").exit_code == 1
    assert counted(cache, "miss.failed", "hit.content") == (2, 0)


def test_text_that_looks_like_a_message_is_none(launcher: FakeLauncher, project: Any) -> None:
    """Files that a message names are inputs, and this one is behind a link that leads nowhere."""
    (launcher.cwd / "gone").symlink_to("nowhere")
    project.write("more-names.c", "gone/a.c:1: note: told\n")
    project.settle()
    for expected in ("run", "done"):
        assert _same(launcher, "gcc-14", "-E", "-P", "more-names.c").answer == expected


@pytest.mark.parametrize("compiler", ["gcc-14", "clang-19", newest("clang-22")])
def test_text_to_a_file_and_printed_text_never_serve_each_other(
    compiler: str, launcher: FakeLauncher
) -> None:
    output = launcher.cwd / "more.i"
    for expected in ("run", "done"):
        assert _same(launcher, compiler, "-E", "quiet.cc").answer == expected
        ours = launcher.compile(compiler, "-E", "-o", "more.i", "quiet.cc")
        assert (ours.answer, ours.stdout) == (expected, b"")
        assert output.read_bytes()
        output.unlink()


@pytest.mark.parametrize("compiler", ["gcc-14", "clang-19", newest("clang-22")])
def test_what_is_not_kept_is_printed_whole(
    compiler: str, launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    project.write("more-time.c", "const char *at = __TIME__;\n")
    project.write("more-warned.c", "#warning told\nint a;\n")
    lines = MAX_CAPTURE_BYTES // len("int a1000000;\n") + 1
    project.write("more-long.c", "".join(f"int a{1_000_000 + n};\n" for n in range(lines)))
    project.settle()
    for _ in range(2):
        assert launcher.compile(compiler, "-E", "more-time.c").answer == "run"
        for name in ("more-warned.c", "more-long.c"):
            assert _same(launcher, compiler, "-E", name).answer == "run", name
    reasons = ("date-time", "both-streams", "long-diagnostics")
    assert counted(cache, *(f"uncacheable.{reason}" for reason in reasons)) == (2, 2, 2)


_LEFT = (
    ("-E -MD quiet.cc", "preprocess-only"),
    ("-E -c quiet.cc", "preprocess-only"),
    ("-E a.h", "preprocess-only"),
    ("-E -fdirectives-only quiet.cc", "preprocess-only"),
    ("-E -o - quiet.cc", "odd-output"),
    ("-E -", "stdin"),
    ("-E conftest.c quiet.cc", "multiple-sources"),
)


@pytest.mark.parametrize("compiler", ["gcc-14", "clang-19", newest("clang-22")])
def test_other_forms_run_unchanged(compiler: str, launcher: FakeLauncher) -> None:
    for flags, reason in _LEFT:
        if compiler == "gcc-14" or "directives" not in flags:
            argv = (compiler, *flags.split())
            code, out, err = run_bare(argv, cwd=launcher.cwd)
            ours = launcher.compile(*argv)
            assert (ours.answer, ours.reason) == ("exec", reason), flags
            assert (ours.exit_code, ours.stdout, ours.stderr) == (code, out, err)


def test_other_checkouts_and_the_farm_get_none(make_cache: Any, launcher: FakeLauncher) -> None:
    remote = FakeRemote()
    launcher.handler = cache = make_cache(remote)
    (launcher.cwd / ".hpcc").touch()
    argv = ("gcc-14", "-E", "quiet.cc")
    for expected in ("run", "done"):
        assert launcher.compile(*argv).answer == expected
    clone: Path = launcher.cwd.parent / "clone"
    for name, text in (*_SOURCES.items(), (".hpcc", "")):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text(text)
        os.utime(clone / name, (1, 1))
    launcher.cwd = clone
    assert launcher.compile(*argv).answer == "run"
    assert remote.requests == []
    assert counted(cache, "hit.local", "hit.shared") == (1, 0)
