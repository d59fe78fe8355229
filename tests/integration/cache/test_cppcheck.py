"""cppcheck: its findings are kept, and every file that can change them is an input."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from hpcc.cache.cache import Cache
from hpcc_testkit.cache.compiles import Compiled, FakeLauncher, counted, run_bare

pytestmark = pytest.mark.skipif(
    shutil.which("cppcheck") is None, reason="tools/bootstrap.sh packages test installs cppcheck"
)
SOURCE = '#include "h.h"\nint f(int c) {\n  int a[2] = {c};\n  return a[N];\n}\n'
HEADER, SAFE = "#define N 2\n", "#define N 1\n"
BOUNDS = b"[arrayIndexOutOfBounds]"
# As CMake makes it of CMAKE_CXX_CPPCHECK="cppcheck;--enable=warning".
ARGV = ("cppcheck", "--enable=warning", "-DX=1", "-Iearly", "-Iinc", "src/a.cc")


@pytest.fixture
def tree(project: Any) -> Any:
    project.write("src/a.cc", SOURCE)
    project.write("inc/h.h", HEADER)
    project.settle()
    return project


def _same(launcher: FakeLauncher, *argv: str) -> Compiled:
    """Run bare and through the cache; both must print the same."""
    bare = run_bare(argv, cwd=launcher.cwd, env=launcher.env)
    ours = launcher.compile(*argv)
    assert (ours.exit_code, ours.stdout, ours.stderr) == bare
    return ours


def test_findings_are_kept(tree: Any, launcher: FakeLauncher, cache: Cache) -> None:
    first = _same(launcher, *ARGV)
    assert (first.answer, first.exit_code, first.reason) == ("run", 0, "")
    assert BOUNDS in first.stderr
    assert _same(launcher, *ARGV) == Compiled("done", 0, first.stdout, first.stderr)
    assert counted(cache, "miss.local", "hit.local", "bypass.analyser") == (1, 1, 0)


def test_each_edit_that_can_change_findings_is_a_miss(
    tree: Any, launcher: FakeLauncher, cache: Cache
) -> None:
    argv = (
        *ARGV[:2], "--inline-suppr", "--enable=information", "--std=c++17", "--library=own",
        "--suppressions-list=known.txt", "--include=forced.h", *ARGV[3:],
    )  # fmt: skip
    tree.write("known.txt", "missingIncludeSystem\n")
    tree.write("own.cfg", '<?xml version="1.0"?>\n<def format="2"></def>\n')
    tree.write("forced.h", "\n")
    tree.settle()
    assert _same(launcher, *argv).answer == "run"
    no_return = '<function name="stop"><noreturn>true</noreturn></function>'
    edits = [
        ("src/a.cc", "// cppcheck-suppress-file arrayIndexOutOfBounds\n" + SOURCE),  # a comment
        ("src/a.cc", SOURCE),
        ("inc/h.h", SAFE),
        # Also what an inactive branch includes.
        ("inc/h.h", '#define N 1\n#ifdef A\n#undef N\n#include "sub/deep.h"\n#endif\n'),
        ("inc/sub/deep.h", HEADER),
        ("inc/sub/deep.h", SAFE),
        # A header that comes first; at that, its directory appears.
        ("early/h.h", HEADER),
        ("src/h.h", "#if __has_include(<asked.h>)\n#define N 2\n#else\n#define N 1\n#endif\n"),
        ("inc/asked.h", ""),
        ("known.txt", "arrayIndexOutOfBounds\n"),
        ("forced.h", "#define c 3\n"),
        ("own.cfg", f'<?xml version="1.0"?>\n<def format="2">{no_return}</def>\n'),
        # The working directory comes before the installation.
        ("std.cfg", '<?xml version="1.0"?>\n<def format="2"></def>\n'),
    ]
    for number, (name, text) in enumerate(edits, 1):
        tree.write(name, text)
        tree.settle()
        answer = _same(launcher, *argv).answer
        assert answer == ("done" if number == 2 else "run"), (name, text)  # an earlier text again
        assert _same(launcher, *argv).answer == "done", (name, text)
    for name in ("inc/asked.h", "src/h.h", "early/h.h", "inc/sub/deep.h", "std.cfg"):
        (launcher.cwd / name).unlink()
        assert _same(launcher, *argv).answer == "run", name
    assert counted(cache, "hit.local") == (len(edits) + 1,)


def test_directories_of_headers_are_inputs(tree: Any, launcher: FakeLauncher, cache: Cache) -> None:
    argv = ("cppcheck", "--enable=information", "--suppress=*", "-Iinc", "-Inone", "src/a.cc")
    first = _same(launcher, *argv)
    assert b"Couldn't find path given by -I 'none/'" in first.stdout
    assert _same(launcher, *argv).answer == "done"
    (launcher.cwd / "none").mkdir()
    assert b"Couldn't" not in _same(launcher, *argv).stdout
    tree.write("none/h.h/x", "")  # it opens a directory as an empty header
    tree.settle()
    assert _same(launcher, *argv).answer == "run"
    # Without an include line no name is looked up there.
    tree.write("src/a.cc", "int f();\n")
    tree.settle()
    assert _same(launcher, *argv).answer == "run"
    shutil.rmtree(launcher.cwd / "none")
    assert b"Couldn't find" in _same(launcher, *argv).stdout
    assert counted(cache, "hit.local", "uncacheable.odd-directory") == (1, 1)


def test_arguments_are_in_the_key(tree: Any, launcher: FakeLauncher, cache: Cache) -> None:
    flags = (
        (),
        ("--template=gcc",),
        ("--xml",),
        ("-q", "-U", "X"),
        ("--suppress=arrayIndexOutOfBounds",),
        ("--platform=unix32", "--language=c", "--library=gnu,posix"),
        ("--error-exitcode=0",),
    )
    for words in flags:
        first, second = (_same(launcher, *ARGV[:3], *words, *ARGV[3:]) for _ in range(2))
        assert (first.answer, second.answer) == ("run", "done"), words
    # As a failed compile, findings that are errors are found each time.
    for _ in range(2):
        failed = _same(launcher, *ARGV[:3], "--error-exitcode=3", *ARGV[3:])
        assert (failed.answer, failed.exit_code) == ("run", 3)
    launcher.cwd /= "src"
    elsewhere = ("cppcheck", "-I../inc", "a.cc")
    assert [_same(launcher, *elsewhere).answer for _ in range(2)] == ["run", "done"]
    assert counted(cache, "hit.local", "miss.failed") == (len(flags) + 1, 2)


def test_what_is_not_certain_is_not_kept(tree: Any, launcher: FakeLauncher, cache: Cache) -> None:
    texts = {
        "#define H <h.h>\n#include H\n": "analyser-text",
        '#line 1 "other/b.cc"\n#include "h.h"\n': "analyser-text",
        "const char *t() { return __TIME__; }\n": "date-time",
    }
    for number, (text, reason) in enumerate(texts.items(), 1):
        tree.write("src/a.cc", text)
        tree.settle()
        assert [_same(launcher, *ARGV).answer for _ in range(2)] == ["run", "run"], text
        assert (
            sum(counted(cache, "uncacheable.analyser-text", "uncacheable.date-time")) == 2 * number
        )
        assert counted(cache, f"uncacheable.{reason}")[0] >= 2
    tree.write("src/a.cc", SOURCE)
    tree.write("own.cfg", '<def format="2"><define name="N" value="__TIME__"/></def>\n')
    tree.settle()
    for _ in range(2):
        assert _same(launcher, *ARGV[:3], "--library=own", *ARGV[3:]).answer == "run"
    launcher.env = {"CLICOLOR_FORCE": "1"}
    answer = _same(launcher, *ARGV)
    assert (answer.answer, answer.reason) == ("exec", "environment")
    assert b"\033[" in answer.stderr
    assert counted(cache, "hit.local") == (0,)


def test_a_check_that_was_given_up_is_not_kept(
    tree: Any, launcher: FakeLauncher, cache: Cache
) -> None:
    # The line is shown as an `internalError` is that comes of too little memory.
    tree.write("src/a.cc", SOURCE.replace("a[N];", "a[N];  // [internalError]"))
    tree.settle()
    for _ in range(2):
        assert b"internalError" in _same(launcher, *ARGV).stderr
    assert counted(cache, "uncacheable.analyser-failed", "hit.local") == (2, 0)


def test_what_writes_files_runs_unchanged(tree: Any, launcher: FakeLauncher, cache: Cache) -> None:
    (launcher.cwd / "build").mkdir(exist_ok=True)
    for word, left in (
        ("--dump", "src/a.cc.dump"),
        ("--output-file=found.txt", "found.txt"),
        ("--cppcheck-build-dir=build", "build/files.txt"),
        ("--checkers-report=all.txt", "all.txt"),
    ):
        for _ in range(2):
            (launcher.cwd / left).unlink(missing_ok=True)
            answer = launcher.compile(*ARGV[:3], word, *ARGV[3:])
            assert (answer.answer, answer.reason) == ("exec", "analyser"), word
            assert (launcher.cwd / left).exists(), word
    assert counted(cache, "bypass.analyser") == (8,)


def test_a_header_that_is_removed_once_it_was_read_is_not_kept(
    tree: Any, launcher: FakeLauncher, cache: Cache
) -> None:
    tree.write("early/h.h", SAFE)
    tree.settle()
    launcher.after_run = lambda _run: (launcher.cwd / "early/h.h").unlink()
    launcher.compile(*ARGV)
    # Build tools write to the directories of sources and to the working directory meanwhile.
    launcher.after_run = lambda _run: tree.write("src/a.o", "")
    assert BOUNDS in _same(launcher, *ARGV).stderr
    assert _same(launcher, *ARGV).answer == "done"
    assert counted(cache, "uncacheable.modified-during-compile", "miss.local") == (1, 2)
