"""clang-tidy: its findings are kept, and every file that can change them is an input."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from hpcc.cache.base.api import Run
from hpcc.cache.cache import Cache
from hpcc_testkit.cache.compiles import Compiled, FakeLauncher, counted, run_bare
from hpcc_testkit.suite.newest_clang import newest

TIDY = "clang-tidy"
_OLDER = "clang-tidy-19"
pytestmark = pytest.mark.skipif(
    shutil.which(_OLDER) is None, reason=f"tools/bootstrap.sh packages test installs {_OLDER}"
)
CHECKS = "Checks: '-*,modernize-use-nullptr,readability-braces-around-statements'\n"
NULL, BRACES = b"[modernize-use-nullptr]", b"[readability-braces-around-statements]"
SOURCE = '#include "h.h"\nint *f(int c) {\n  int *p = 0;\n  if (c) return p;\n  return hh();\n}\n'
HEADER = "#pragma once\ninline int *hh() { return nullptr; }\n"
HINTS = "inline int *hh() { return 0; }\n"
ARGV = (TIDY, "-header-filter=.*", "src/a.cc", "--", "-std=c++17", "-Iearly", "-Iinc")


@pytest.fixture(params=[_OLDER, newest("clang-tidy-22")])
def tree(
    project: Any, launcher: FakeLauncher, tmp_path: Path, request: pytest.FixtureRequest
) -> Any:
    """A project, and a clang-tidy of one version in front of the others."""
    found = tmp_path / "programs" / TIDY
    found.parent.mkdir()
    found.symlink_to(shutil.which(request.param) or "")
    launcher.env = {"PATH": f"{found.parent}:/usr/local/bin:/usr/bin:/bin"}
    project.write("src/a.cc", SOURCE)
    project.write("inc/h.h", HEADER)
    project.write(".clang-tidy", CHECKS)
    project.settle()
    return project


def _left(cwd: Path) -> dict[str, bytes]:
    return {str(p.relative_to(cwd)): p.read_bytes() for p in cwd.rglob("*") if p.is_file()}


def _same(launcher: FakeLauncher, *argv: str) -> Compiled:
    """Run bare and through the cache; both must print the same and leave the same."""
    bare = run_bare(argv, cwd=launcher.cwd, env=launcher.env)
    left = _left(launcher.cwd)
    ours = launcher.compile(*argv)
    assert (ours.exit_code, ours.stdout, ours.stderr) == bare
    assert _left(launcher.cwd) == left
    return ours


def _answers(launcher: FakeLauncher, *argv: str) -> tuple[str, str]:
    """Run twice, and bare once; all three must print the same."""
    first, second = _same(launcher, *argv), launcher.compile(*argv)
    assert (second.exit_code, second.stdout, second.stderr) == (
        first.exit_code,
        first.stdout,
        first.stderr,
    )
    return first.answer, second.answer


def test_findings_are_kept(tree: Any, launcher: FakeLauncher, cache: Cache) -> None:
    first = _same(launcher, *ARGV)
    assert first.answer == "run"
    assert first.exit_code == 0
    assert NULL in first.stdout
    assert _same(launcher, *ARGV) == Compiled("done", 0, first.stdout, first.stderr)
    cmake = (TIDY, "--extra-arg-before=--driver-mode=g++", "--quiet", "src/a.cc", "--")
    compile_ = ("/usr/bin/c++", "-Iinc", "-MD", "-MT", "t", "-MF", "x.d", "-o", "x.o", "-c")
    assert _answers(launcher, *cmake, *compile_, "src/a.cc") == ("run", "done")
    assert counted(cache, "miss.local", "hit.local", "bypass.analyser") == (2, 2, 0)


def test_each_edit_that_can_change_findings_is_a_miss(
    tree: Any, launcher: FakeLauncher, cache: Cache
) -> None:
    assert _same(launcher, *ARGV).answer == "run"
    edits = [
        # A comment counts here.
        ("src/a.cc", SOURCE.replace("0;", "0; // NOLINT"), BRACES, NULL),
        ("src/a.cc", SOURCE, NULL, None),
        ("inc/h.h", HINTS, NULL, None),
        ("inc/h.h", HINTS.replace("}\n", "} // NOLINT(modernize-use-nullptr)\n"), NULL, None),
        ("early/h.h", HEADER, NULL, None),
        (".clang-tidy", CHECKS.replace("modernize-use-nullptr,", ""), BRACES, NULL),
        # The nearest one counts, and alone, unless it inherits.
        ("src/.clang-tidy", "Checks: '-*,modernize-use-nullptr'\n", NULL, BRACES),
        ("src/.clang-tidy", "InheritParentConfig: true\nChecks: modernize-use-nullptr\n", NULL, None),
        (".clang-tidy", CHECKS.replace(",readability-braces-around-statements", ""), NULL, BRACES),
        ("../.clang-tidy", CHECKS, NULL, None),
        ("early/.clang-tidy", "Checks: '-*'\n", NULL, None),
        (".clang-format", "IndentWidth: 4\n", NULL, None),
        ("src/_clang-format", "IndentWidth: 4\n", NULL, None),
    ]  # fmt: skip
    for number, (name, text, there, gone) in enumerate(edits, 1):
        tree.write(name, text)
        tree.settle()
        answer = _same(launcher, *ARGV)
        # An earlier text of the same files is a hit.
        is_back = number == 2
        assert answer.answer == ("done" if is_back else "run"), (name, text)
        assert there in answer.stdout, (name, text)
        assert gone is None or gone not in answer.stdout, (name, text)
        assert _same(launcher, *ARGV).answer == "done", (name, text)
    for name in ("src/.clang-tidy", "early/.clang-tidy", "early/h.h"):
        (launcher.cwd / name).unlink()
        assert _same(launcher, *ARGV).answer == "run", name
    assert counted(cache, "hit.local") == (len(edits) + 1,)


def test_arguments_are_in_the_key(tree: Any, launcher: FakeLauncher, cache: Cache) -> None:
    tree.write("named.yml", "Checks: '-*,readability-braces-around-statements'\n")
    tree.settle()
    flags = (
        (),
        ("-checks=-*,modernize-use-nullptr",),
        ("--checks", "-*,modernize-use-nullptr"),
        ("--config={Checks: '-*,modernize-use-nullptr'}",),
        ("--config-file=named.yml",),
        ("--use-color",),
        ("--extra-arg=-DX",),
    )
    for words in flags:
        assert _answers(launcher, TIDY, *words, *ARGV[2:]) == ("run", "done"), words
    tree.write("named.yml", "Checks: '-*,modernize-use-nullptr'\n")
    tree.settle()
    answer = _same(launcher, TIDY, "--config-file=named.yml", *ARGV[2:])
    assert answer.answer == "run"
    assert NULL in answer.stdout
    # CMake names such a file for modules, and it mostly holds nothing.
    tree.write("a.modmap", "\n")
    tree.settle()
    assert _answers(launcher, *ARGV, "@a.modmap") == ("run", "done")
    tree.write("a.modmap", "-DX\n")
    assert launcher.compile(*ARGV, "@a.modmap").reason == "analyser"
    elsewhere = (*ARGV[:2], "a.cc", "--", "-I../inc")
    launcher.cwd /= "src"
    assert _answers(launcher, *elsewhere) == ("run", "done")
    assert counted(cache, "hit.local") == (len(flags) + 2,)


def _database(tree: Any, *flags: str, other: str = "-O1") -> None:
    root = str(tree.directory)
    source = f"{root}/src/a.cc"
    command = f"/usr/bin/c++ -I../inc {' '.join(flags)} -o a.o -c '{source}'"
    entries = [
        {"directory": f"{root}/build", "command": command, "file": source},
        {"directory": root, "arguments": ["/usr/bin/c++", other, "b.cc"], "file": "b.cc"},
    ]
    tree.write("build/compile_commands.json", json.dumps(entries))
    tree.settle()


def test_the_entry_of_a_database_is_in_the_key(
    tree: Any, launcher: FakeLauncher, cache: Cache
) -> None:
    argv = (TIDY, "-p", "build", f"{tree.directory}/src/a.cc")
    _database(tree)
    first = _same(launcher, *argv)
    assert first.answer == "run"
    assert NULL in first.stdout
    assert _same(launcher, *argv).answer == "done"
    _database(tree, other="-O2")
    assert _same(launcher, *argv).answer == "done"
    _database(tree, "-I../early")
    assert _answers(launcher, *argv) == ("run", "done")
    tree.write("early/h.h", HINTS)
    tree.settle()
    assert _answers(launcher, *argv) == ("run", "done")
    tree.write(".clang-tidy", CHECKS.replace("modernize-use-nullptr,", ""))
    tree.settle()
    assert _answers(launcher, *argv) == ("run", "done")
    tree.write("build/compile_flags.txt", "-I../inc\n")
    assert launcher.compile(*argv).reason == "analyser-database"
    assert counted(cache, "hit.local", "bypass.analyser-database") == (5, 1)


def test_a_driver_that_gets_headers_is_another_driver(
    tree: Any, launcher: FakeLauncher, cache: Cache
) -> None:
    root = str(tree.directory)
    tree.write("src/a.cc", SOURCE.replace('"h.h"', "<h.h>"))
    (tree.directory / "tool/bin").mkdir(parents=True)
    words = [f"{root}/tool/bin/clang++", "-stdlib=libc++", "-idirafter", f"{root}/inc", "-c"]
    source = f"{root}/src/a.cc"
    entry = {"directory": root, "arguments": [*words, source], "file": source}
    tree.write("build/compile_commands.json", json.dumps([entry]))
    tree.settle()
    argv = (TIDY, "-p", "build", "-header-filter=.*", "-system-headers", source)
    assert _answers(launcher, *argv) == ("run", "done")
    # Clang looks for headers of libc++ beside the driver, and names only places that exist.
    tree.write("tool/include/c++/v1/h.h", HINTS)
    tree.settle()
    answer = _same(launcher, *argv)
    assert answer.answer == "run"
    assert b"c++/v1/h.h" in answer.stdout
    assert _same(launcher, *argv).answer == "done"
    tree.write("tool/bin/clang++.cfg", "-DX\n")
    tree.settle()
    assert _answers(launcher, *argv) == ("run", "run")
    assert counted(cache, "hit.local", "uncacheable.config-file") == (2, 2)


def test_other_forms_run_unchanged(tree: Any, launcher: FakeLauncher, cache: Cache) -> None:
    _database(tree)
    tree.write("src/two.cc", SOURCE)
    tree.settle()
    forms = (
        (("--version",), "analyser"),
        (("--list-checks", *ARGV[2:]), "analyser"),
        (("--dump-config", *ARGV[2:]), "analyser"),
        (("src/two.cc", *ARGV[2:]), "analyser"),
        (("--config={ExtraArgs: [-DX], Checks: '-*,modernize-use-nullptr'}", *ARGV[2:]), "analyser"),
        ((*ARGV[2:], "@inc/h.h"), "analyser"),
        ((*ARGV[2:], "@missing"), "analyser"),
        ((*ARGV[2:], "-Wp,-MD,user.d"), "analyser"),
        (("inc/h.h", "--"), "analyser"),
        (("src/a.cc", "--", "-Iinc", "-march=native"), "native"),
        (("src/a.cc",), "analyser-database"),
        (("-p", "build", "src/two.cc"), "analyser-database"),
    )  # fmt: skip
    for words, reason in forms:
        answer = launcher.compile(TIDY, *words)
        assert (answer.answer, answer.reason) == ("exec", reason), words
    assert counted(cache, "miss.local") == (0,)


@pytest.mark.parametrize("flags", ["--fix", "--enable-check-profile"])
def test_what_changes_files_or_prints_times_runs_each_time(
    flags: str, tree: Any, launcher: FakeLauncher
) -> None:
    answer = launcher.compile(TIDY, flags, *ARGV[1:])
    assert (answer.answer, answer.reason) == ("exec", "analyser")


def test_exported_fixes_are_put_in_place(tree: Any, launcher: FakeLauncher, cache: Cache) -> None:
    _database(tree)
    export = launcher.cwd / "f.yaml"
    export.write_text("old")
    export.chmod(0o600)
    by_database = (TIDY, "-p", "build", "-export-fixes", "f.yaml", f"{tree.directory}/src/a.cc")
    for argv in ((TIDY, "--export-fixes=f.yaml", *ARGV[1:]), by_database):
        assert launcher.compile(*argv).answer == "run"
        written = export.read_bytes()
        assert b"modernize-use-nullptr" in written
        export.write_text("old")
        assert launcher.compile(*argv).answer == "done"
        assert (export.read_bytes(), export.stat().st_mode & 0o777) == (written, 0o600)
        # run-clang-tidy makes up a name for each run.
        assert launcher.compile(*(w.replace("f.yaml", "g.yaml") for w in argv)).answer == "done"
        assert (launcher.cwd / "g.yaml").read_bytes() == written
        export.write_text("old")
    tree.write("src/a.cc", "int f();\n")
    tree.settle()
    assert _answers(launcher, TIDY, "--export-fixes=f.yaml", *ARGV[1:]) == ("run", "done")
    assert export.read_text() == "old"
    odd = launcher.compile(TIDY, "--export-fixes=src/a.cc", *ARGV[1:])
    assert (odd.answer, odd.reason) == ("exec", "odd-output")
    assert counted(cache, "miss.local", "hit.local") == (3, 5)


def test_what_depends_on_more_is_not_kept(tree: Any, launcher: FakeLauncher, cache: Cache) -> None:
    more = (
        "ExtraArgs: [-DX]\n",
        'CheckOptions: {clang-analyzer-optin.taint.TaintPropagation:Config: "t.yaml"}\n',
    )
    for text in more:
        tree.write(".clang-tidy", CHECKS + text)
        tree.settle()
        assert _answers(launcher, *ARGV) == ("run", "run"), text
    assert counted(cache, "uncacheable.analyser-config") == (2 * len(more),)
    tree.write(".clang-tidy", CHECKS)
    tree.write("src/a.cc", SOURCE + "// TODO: x\n")
    tree.settle()
    for name in ("ann", "bob"):
        launcher.env["USER"] = name
        answer = _same(launcher, TIDY, "-checks=-*,google-readability-todo", *ARGV[2:])
        assert name.encode() in answer.stdout
    assert counted(cache, "uncacheable.analyser-user") == (2,)
    assert _answers(launcher, ARGV[0], "--warnings-as-errors=*", *ARGV[1:]) == ("run", "run")
    assert counted(cache, "miss.failed") == (2,)
    tree.write("inc/h.h", HEADER + "const char *at = __TIME__;\n")
    tree.settle()
    assert _answers(launcher, *ARGV) == ("run", "run")
    assert counted(cache, "uncacheable.date-time", "hit.local") == (2, 0)


def test_a_configuration_that_is_there_only_while_it_is_read_is_not_kept(
    tree: Any, launcher: FakeLauncher, cache: Cache
) -> None:
    def during(path: Path, text: str) -> None:
        def write(_run: Run) -> None:
            path.write_text(text)

        def remove(_run: Run) -> None:
            path.unlink()

        launcher.before_run, launcher.after_run = write, remove

    during(launcher.cwd / "src/.clang-tidy", "Checks: '-*,modernize-use-nullptr'\n")
    assert BRACES not in launcher.compile(*ARGV).stdout
    assert counted(cache, "uncacheable.modified-during-compile") == (1,)
    # Other files may come and go beside the source.
    during(launcher.cwd / "src/a.o", "")
    answer = launcher.compile(*ARGV)
    assert (answer.answer, BRACES in answer.stdout) == ("run", True)
    assert launcher.compile(*ARGV).answer == "done"
    # So they may beside headers, and beside a response file: in a build of CMake's, objects do.
    tree.write("out/a.modmap", "\n")
    tree.settle()
    for place in ("inc", "out"):
        during(launcher.cwd / place / "b.o", "")
        argv = (*ARGV, f"-D{place.upper()}", "@out/a.modmap")
        assert [launcher.compile(*argv).answer for _ in "12"] == ["run", "done"]
    during(launcher.cwd / "inc/.clang-tidy", "Checks: '-*,modernize-use-nullptr'\n")
    launcher.compile(*ARGV, "-DNOT_KEPT")
    assert counted(cache, "uncacheable.modified-during-compile") == (2,)
    # A link does not show what it led to.
    config = launcher.cwd / ".clang-tidy"
    config.rename(launcher.cwd / "one.yml")
    config.symlink_to("one.yml")
    tree.write("two.yml", "Checks: '-*,modernize-use-nullptr'\n")
    tree.write("src/a.cc", SOURCE + "\n")
    tree.settle()

    def lead(target: str) -> None:
        config.unlink()
        config.symlink_to(target)

    launcher.before_run = lambda _run: lead("two.yml")
    launcher.after_run = lambda _run: lead("one.yml")
    answer = launcher.compile(*ARGV)
    assert (answer.answer, BRACES in answer.stdout) == ("run", False)
    assert counted(cache, "uncacheable.modified-during-compile") == (3,)


def test_a_tree_behind_a_link_is_seen_under_each_name(
    tree: Any, launcher: FakeLauncher, tmp_path: Path
) -> None:
    link = tmp_path / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(launcher.cwd)
    (launcher.cwd / ".clang-tidy").unlink()
    (tmp_path / ".clang-tidy").write_text(CHECKS)
    launcher.env["PWD"] = str(link)
    tree.settle()
    assert _answers(launcher, *ARGV) == ("run", "done")
    (link.parent / ".clang-tidy").write_text("Checks: '-*,modernize-use-nullptr'\n")
    answer = _same(launcher, *ARGV)
    assert answer.answer == "run"
    assert BRACES not in answer.stdout


def test_another_clang_tidy_has_its_own_results(
    tree: Any, launcher: FakeLauncher, tmp_path: Path
) -> None:
    script = tmp_path / "bin" / TIDY
    script.parent.mkdir()
    real = tmp_path / "programs" / TIDY
    script.write_text(f'#!/bin/sh\nexec {real} "$@"\n')
    script.chmod(0o755)
    assert _answers(launcher, *ARGV) == ("run", "done")
    launcher.env = {"PATH": f"{script.parent}:{launcher.env['PATH']}"}
    assert _answers(launcher, *ARGV) == ("done", "done")  # a plain `exec` is that program
    script.write_text(f'#!/bin/sh\nCFG=x\nexec {real} "$@"\n')
    assert launcher.compile(*ARGV).reason == "wrapper-script"


def test_a_second_process_finds_the_findings(
    tree: Any, launcher: FakeLauncher, make_cache: Any
) -> None:
    assert _same(launcher, *ARGV).answer == "run"
    launcher.handler = make_cache()
    assert _same(launcher, *ARGV).answer == "done"
    os.utime(launcher.cwd / "inc/h.h")
    assert _same(launcher, *ARGV).answer == "done"
