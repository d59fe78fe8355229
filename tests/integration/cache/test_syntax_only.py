"""`-fsyntax-only`: messages and status are kept, and a depfile. No other file is touched."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from hpcc.cache.cache import Cache
from hpcc_testkit.cache.compiles import Compiled, FakeLauncher, FakeRemote, counted, run_bare
from hpcc_testkit.suite.newest_clang import newest

_SOURCES = {
    "a.c": '#include "a.h"\nint f(void) { int unused; return A; }\n',
    "a.cc": '#include "a.h"\n#warning told\nint f() { int unused; return A; }\n',
    "quiet.c": '#include "a.h"\nint f(void) { return A; }\n',
    "asm.c": '__asm__(".incbin \\"missing.bin\\"");\nint f(void) { return 1; }\n',
    "low.S": '#include "a.h"\n.long A\n',
    "a.h": "#define A 5\n",
    "pre.i": "int f(void);\n",
}


@pytest.fixture(autouse=True)
def sources(project: Any) -> Any:
    for name, text in _SOURCES.items():
        project.write(name, text)
    (project.directory / "out").mkdir()
    project.settle()
    return project


def _left(cwd: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return mode and content of each file, and when an object was written."""
    found = {}
    for path in cwd.rglob("*"):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            at = status.st_mtime_ns if path.suffix == ".o" else 0
            found[str(path.relative_to(cwd))] = (status.st_mode, at, path.read_bytes())
    return found


def _same(launcher: FakeLauncher, *argv: str) -> Compiled:
    """Run bare and through the cache; both must print the same and leave the same."""
    cwd = launcher.cwd
    depfiles = [*cwd.rglob("*.d")]
    before = {path: (path.read_bytes(), path.stat().st_mode) for path in depfiles}
    code, out, err = run_bare(argv, cwd=cwd, env=launcher.env, umask=launcher.umask)
    bare = _left(cwd)
    for path in cwd.rglob("*.d"):
        path.unlink()
    for path, (data, mode) in before.items():
        path.write_bytes(data)
        path.chmod(mode)
    ours = launcher.compile(*argv)
    assert (ours.exit_code, ours.stdout, ours.stderr) == (code, out, err)
    assert _left(cwd) == bare
    return ours


_FORMS = (
    "-fsyntax-only a.c",
    "-Wall -O2 -g -fsyntax-only a.c",
    "-Wall -c -o out/a.o -fsyntax-only a.c",
    "-c -MD -o out/a.o -fsyntax-only a.c",
    "-fsyntax-only -MD -MP -MF out/x.d -MT t a.c",
    "-Wall -fsyntax-only -MMD -MF out/x.d a.c",
    "-fsyntax-only -Wp,-MD,out/x.d a.c",
    "-fsyntax-only -o /dev/null a.c",
    "-x c++ -std=c++17 -Wall -fsyntax-only a.c",
    "-fsyntax-only -lm a.c",
)


@pytest.mark.parametrize("compiler", ["gcc-14", "clang-19", newest("clang-22")])
def test_a_check_is_a_cached_compile(compiler: str, launcher: FakeLauncher, cache: Cache) -> None:
    (launcher.cwd / "out/a.o").write_bytes(b"of an earlier compile")
    for form in _FORMS:
        argv = (compiler, *form.split())
        assert _same(launcher, *argv).answer == "run", form
        assert _same(launcher, *argv).answer == "done", form  # over the depfile
        for path in launcher.cwd.rglob("*.d"):
            path.unlink()
        assert _same(launcher, *argv).answer == "done", form
    assert counted(cache, "miss.local", "hit.local") == (len(_FORMS), 2 * len(_FORMS))


@pytest.mark.parametrize("compiler", ["g++-14", "clang++-19", newest("clang++-22")])
def test_an_edit_of_a_header_is_a_miss(
    compiler: str, launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    argv = (compiler, "-Wall", "-fsyntax-only", "a.cc")
    _same(launcher, *argv)
    project.write("a.h", "#define A 6\nstatic int unused_here;\n")
    project.settle()
    assert _same(launcher, *argv).answer == "run"
    project.write("a.h", "error\n")
    project.settle()
    assert _same(launcher, *argv).exit_code == 1
    assert _same(launcher, *argv).exit_code == 1
    project.write("a.h", _SOURCES["a.h"])
    project.settle()
    assert _same(launcher, *argv).answer == "done"
    assert counted(cache, "miss.local", "hit.local", "miss.failed") == (4, 1, 2)


@pytest.mark.parametrize("compiler", ["gcc-14", "clang-19", newest("clang-22")])
def test_a_check_and_a_compile_never_serve_each_other(
    compiler: str, launcher: FakeLauncher, cache: Cache
) -> None:
    check = (compiler, "-O1", "-c", "-o", "out/q.o", "-fsyntax-only", "quiet.c")
    compile_ = tuple(word for word in check if word != "-fsyntax-only")
    assert _same(launcher, *check).answer == "run"
    assert launcher.compile(*compile_).answer == "run"
    (launcher.cwd / "out/q.o").unlink()
    assert _same(launcher, *check).answer == "done"
    assert not (launcher.cwd / "out/q.o").exists()
    assert launcher.compile(*compile_).answer == "done"
    assert (launcher.cwd / "out/q.o").stat().st_size > 0
    # Content keys leave names of outputs out.
    assert _same(launcher, *(word.replace("q.o", "r.o") for word in check)).answer == "run"
    assert counted(cache, "miss.local", "hit.local", "hit.content") == (3, 2, 0)


_LEFT = (
    ("-S -fsyntax-only a.c", "syntax-only"),
    ("-fsyntax-only -MD a.c", "syntax-only"),
    ("-fsyntax-only -fstack-usage a.c", "syntax-only"),
    ("-fsyntax-only -fno-syntax-only -c -o out/b a.c", "syntax-only"),
    ("-fsyntax-only low.S", "syntax-only"),
    ("-fsyntax-only pre.i", "syntax-only"),
    ("-fsyntax-only -c a.c quiet.c", "multiple-sources"),
    ("-fsyntax-only -x c -", "stdin"),
)


@pytest.mark.parametrize("compiler", ["gcc-14", "clang-19", newest("clang-22")])
def test_other_forms_run_unchanged(compiler: str, launcher: FakeLauncher, cache: Cache) -> None:
    for flags, reason in _LEFT:
        answer = _same(launcher, compiler, *flags.split())
        assert (answer.answer, answer.reason) == ("exec", reason)
        for path in (launcher.cwd / "out").iterdir():
            path.unlink()
    assert counted(cache, "miss.local", "bypass.syntax-only") == (0, len(_LEFT) - 2)


@pytest.mark.parametrize("compiler", ["gcc-14", "clang-19", newest("clang-22")])
def test_what_an_assembler_would_read_is_no_reason(compiler: str, launcher: FakeLauncher) -> None:
    argv = (compiler, "-fsyntax-only", "asm.c")
    for _ in range(2):
        assert _same(launcher, *argv).exit_code == 0


@pytest.mark.parametrize("compiler", ["gcc-14", "clang-19", newest("clang-22")])
def test_a_clock_in_a_message_is_not_kept(
    compiler: str, launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    project.write("clock.c", '#pragma message("at " __TIME__)\nint f(void);\n')
    project.settle()
    for _ in range(2):
        assert launcher.compile(compiler, "-fsyntax-only", "clock.c").exit_code == 0
    assert counted(cache, "uncacheable.date-time", "hit.local") == (2, 0)


def test_another_directory_has_its_own_result(launcher: FakeLauncher, cache: Cache) -> None:
    (launcher.cwd / ".hpcc").touch()
    argv = ("gcc-14", "-Wall", "-fsyntax-only", "a.c")
    _same(launcher, *argv)
    clone = launcher.cwd.parent / "clone"
    clone.mkdir()
    for name, text in (*_SOURCES.items(), (".hpcc", "")):
        (clone / name).write_text(text)
        os.utime(clone / name, (1, 1))
    launcher.cwd = clone
    assert _same(launcher, *argv).answer == "run"
    assert counted(cache, "miss.local", "hit.local", "hit.shared") == (2, 0, 0)


def test_with_a_farm_a_check_stays_here(make_cache: Any, launcher: FakeLauncher) -> None:
    remote = FakeRemote()
    launcher.handler = cache = make_cache(remote)
    argv = ("gcc-14", "-Wall", "-fsyntax-only", "a.c")
    assert _same(launcher, *argv).answer == "run"
    assert _same(launcher, *argv).answer == "done"
    assert remote.requests == []
    assert not [name for name in cache.counters() if name.startswith("fallback")]
    assert counted(cache, "miss.local", "hit.local") == (1, 1)
