"""A compile through the cache, miss or hit, leaves the same files as the bare compiler."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcc.cache.cache import Cache
from hpcc.cache.results.records_read import read_records
from hpcc.config.paths import Paths
from hpcc_testkit.cache.compiles import FakeLauncher, run_bare

_ENDINGS = (".o", ".d", ".P")

_DEPENDENCIES = {
    "none": (),
    "md": ("-MD",),
    "mmd": ("-MMD",),
    "md-mp": ("-MD", "-MP"),
    "mmd-mp": ("-MMD", "-MP"),
    "md-mf": ("-MD", "-MF", "deps.P"),
    "md-mfjoined": ("-MFdeps.P", "-MD"),
    "mmd-mf": ("-MMD", "-MF", "deps.P"),
    "md-mt": ("-MD", "-MT", "other.o"),
    "md-mt-mq": ("-MD", "-MT", "a$(X)", "-MQ", "b$(X)"),
    "mmd-mt": ("-MMD", "-MP", "-MT", "x y.o"),
    "automake": ("-MT", "out.o", "-MD", "-MP", "-MF", "deps.P"),
    "wp-md": ("-Wp,-MD,deps.P",),
    "wp-mmd": ("-Wp,-MMD,deps.P",),
}
_SHAPES = {
    "c-out": ("-c", "src/main.c", "-o", "out.o"),
    "c-default": ("-c", "src/main.c"),
    "c-odd-name": ("-c", "-o", "build/out.tmp.obj", "src/main.c"),
    "c-no-suffix": ("-c", "-o", "build/out", "src/main.c"),
    "c-debug": ("-g", "-O2", "-Wall", "-c", "src/main.c", "-o", "out.o"),
    "c-debug3-include": (
        "-g3",
        "-include",
        "src/util.h",
        "-imacros",
        "inc/conf.h",
        "-c",
        "src/main.c",
    ),
    "c-x": ("-x", "c", "-c", "src/main.c", "-o", "out.o", "-std=gnu11", "-pipe", "-pthread"),
    "asm": ("-c", "src/low.S", "-o", "out.o"),
    "c++-header-file": ("-x", "c++", "-c", "src/main.c", "-o", "out.o"),
}


def _tree(directory: Path) -> dict[str, tuple[int, bytes]]:
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and (path.suffix in _ENDINGS or path.parent.name == "build"):
            found[str(path.relative_to(directory))] = (
                stat.S_IMODE(path.stat().st_mode),
                path.read_bytes(),
            )
    return found


def _wipe(directory: Path) -> None:
    for name in _tree(directory):
        (directory / name).unlink()


_SOME = ("none", "md-mp", "mmd")


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize(
    ("deps", "shape"),
    [(deps, "c-out") for deps in _DEPENDENCIES]
    + [(deps, shape) for deps in _SOME for shape in _SHAPES if shape != "c-out"],
)
def test_cold_and_hit_equal_the_bare_compile(
    compiler: str, deps: str, shape: str, launcher: FakeLauncher, cache: Cache
) -> None:
    argv = (compiler, "-Iearly", "-Iinc", *_DEPENDENCIES[deps], *_SHAPES[shape])
    code, out, err = run_bare(argv, cwd=launcher.cwd)
    bare = _tree(launcher.cwd)
    assert code == 0, err
    _wipe(launcher.cwd)
    cold = launcher.compile(*argv)
    assert (cold.answer, cold.exit_code, cold.stdout, cold.stderr) == ("run", 0, out, err)
    assert _tree(launcher.cwd) == bare
    _wipe(launcher.cwd)
    hit = launcher.compile(*argv)
    assert (hit.answer, hit.exit_code, hit.stdout, hit.stderr) == ("done", 0, out, err)
    assert _tree(launcher.cwd) == bare
    again = launcher.compile(*argv)  # over existing outputs
    assert again.answer == "done"
    assert _tree(launcher.cwd) == bare
    counters = cache.counters()
    assert counters["miss.local"] == 1
    assert counters["hit.local"] == 2


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
@pytest.mark.parametrize("deps", ["none", "md-mp", "mmd"])
def test_cxx_through_the_cache_equals_the_bare_compile(
    compiler: str, deps: str, launcher: FakeLauncher
) -> None:
    argv = (compiler, "-O1", "-g", *_DEPENDENCIES[deps], "-c", "src/tool.cc")
    code, _, err = run_bare(argv, cwd=launcher.cwd)
    assert code == 0, err
    bare = _tree(launcher.cwd)
    _wipe(launcher.cwd)
    assert launcher.compile(*argv).answer == "run"
    assert _tree(launcher.cwd) == bare
    _wipe(launcher.cwd)
    assert launcher.compile(*argv).answer == "done"
    assert _tree(launcher.cwd) == bare


_GCC = ("gcc", "-Iearly", "-Iinc", "-MD", "-c", "src/main.c", "-o", "out.o")


def _edit(project: Any, name: str, text: str) -> None:
    project.write(name, text)
    project.settle()


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("deps", ["none", "md", "mmd"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("src/main.c", "int main(void) { return 1; }\n"),
        ("src/util.h", '#define NAME "other"\n'),
        ("src/deep/inner.h", '#define NAME "longer name"\n'),
        ("inc/conf.h", "#define CONF 8\n"),
        ("early/conf.h", "#define CONF 9\n"),
        ("src/conf.h", "#define CONF 7\n"),
        ("early/stdio.h", "#define EOF 3\n"),
        ("early/string.h", "unsigned long strlen(const char *);\n"),
    ],
)
def test_an_edited_or_added_header_gives_what_a_bare_compile_gives(
    compiler: str, deps: str, name: str, text: str, launcher: FakeLauncher, project: Any
) -> None:
    argv = (compiler, *_DEPENDENCIES[deps], *_GCC[1:3], *_GCC[4:])
    assert launcher.compile(*argv).answer == "run"
    assert launcher.compile(*argv).answer == "done"
    _edit(project, name, text)
    through = launcher.compile(*argv)
    seen = _tree(launcher.cwd)
    _wipe(launcher.cwd)
    bare = run_bare(argv, cwd=launcher.cwd)
    assert (through.exit_code, through.stdout, through.stderr) == bare
    assert _tree(launcher.cwd) == seen
    if not name.startswith("src/conf"):  # that one is never looked at: a superset may miss
        assert through.answer == "run"


def test_a_deleted_header_is_the_compilers_error(launcher: FakeLauncher) -> None:
    launcher.compile(*_GCC)
    (launcher.cwd / "inc/conf.h").unlink()
    ended = launcher.compile(*_GCC)
    assert ended.answer == "run"
    assert ended.exit_code == 1
    assert b"conf.h" in ended.stderr


def test_a_header_edited_back_is_a_hit_again(launcher: FakeLauncher, project: Any) -> None:
    old = (launcher.cwd / "inc/conf.h").read_text()
    launcher.compile(*_GCC)
    _edit(project, "inc/conf.h", "#define CONF 100\n")
    assert launcher.compile(*_GCC).answer == "run"
    _edit(project, "inc/conf.h", old)
    assert launcher.compile(*_GCC).answer == "done"
    _edit(project, "inc/conf.h", "#define CONF 100\n")
    assert launcher.compile(*_GCC).answer == "done"


def test_a_search_directory_that_appears_is_looked_at(launcher: FakeLauncher, project: Any) -> None:
    argv = (_GCC[0], "-Inot-yet/sub", *_GCC[1:])
    launcher.compile(*argv)
    assert launcher.compile(*argv).answer == "done"
    _edit(project, "not-yet/sub/conf.h", "#define CONF 55\n")
    assert launcher.compile(*argv).answer == "run"


@pytest.mark.parametrize(
    "search",
    [("-I.", "-I.."), ("-I../early", "-I../early/.."), ("-I../early", "-I../early/../build/..")],
)
def test_a_header_that_appears_in_a_directory_spelled_with_dots_is_seen(
    launcher: FakeLauncher, project: Any, search: tuple[str, ...]
) -> None:
    (project.directory / "below").mkdir()
    (project.directory / "below/inc").symlink_to("../inc")
    project.write("below/more.c", "#include <conf.h>\n#include <limits.h>\nint conf = CONF;\n")
    project.settle()
    launcher.cwd = project.directory / "below"
    argv = ("gcc", *search, "-Iinc", "-c", "more.c", "-o", "more.o")
    first = launcher.compile(*argv)
    before = (launcher.cwd / "more.o").read_bytes()
    assert (first.answer, launcher.compile(*argv).answer) == ("run", "done")
    project.write("conf.h", "#define CONF 8\n")
    assert launcher.compile(*argv).answer == "run"
    assert (launcher.cwd / "more.o").read_bytes() != before


def test_a_precompiled_header_that_appears_is_not_overlooked(
    launcher: FakeLauncher, cache: Cache
) -> None:
    argv = ("gcc", "-Iinc", "-include", "src/util.h", "-c", "src/main.c", "-o", "out.o")
    launcher.compile(*argv)
    assert launcher.compile(*argv).answer == "done"
    run_bare(["gcc", "-x", "c-header", "src/util.h", "-o", "src/util.h.gch"], cwd=launcher.cwd)
    assert launcher.compile(*argv).answer == "run"
    assert cache.counters()["uncacheable.pch"] == 1


def test_other_flags_are_another_entry(launcher: FakeLauncher) -> None:
    for extra in ((), ("-DX=1",), ("-O2",), ("-g",), ("-fPIC",), ("-m64",), ("-Wextra",)):
        assert launcher.compile(*_GCC, *extra).answer == "run"
        assert launcher.compile(*_GCC, *extra).answer == "done"


@pytest.mark.parametrize("name", ["C_INCLUDE_PATH", "CPATH", "LANG", "SOURCE_DATE_EPOCH"])
def test_the_environment_is_in_the_key(name: str, launcher: FakeLauncher) -> None:
    launcher.compile(*_GCC)
    launcher.env[name] = "1"
    assert launcher.compile(*_GCC).answer == "run"


def test_another_directory_hits_by_content(launcher: FakeLauncher, cache: Cache) -> None:
    launcher.compile(*_GCC)
    other = launcher.cwd.parent / "clone"
    shutil.copytree(launcher.cwd, other)
    launcher.cwd = other
    assert launcher.compile(*_GCC).answer == "done"
    assert cache.counters()["hit.content"] == 1


def test_another_directory_is_another_entry_with_debug_information(launcher: FakeLauncher) -> None:
    argv = (*_GCC, "-g")
    launcher.compile(*argv)
    other = launcher.cwd.parent / "clone"
    shutil.copytree(launcher.cwd, other)
    launcher.cwd = other
    assert launcher.compile(*argv).answer == "run"


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_launchers_umask_decides_the_mode(
    compiler: str, umask: int, launcher: FakeLauncher
) -> None:
    argv = (compiler, *_GCC[1:])
    launcher.compile(*argv)
    for path in (launcher.cwd / "out.o", launcher.cwd / "out.d"):
        path.unlink()
    launcher.umask = umask
    assert launcher.compile(*argv).answer == "done"
    for path in (launcher.cwd / "out.o", launcher.cwd / "out.d"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_an_existing_outputs_mode_is_what_the_compiler_makes_it(
    compiler: str, launcher: FakeLauncher
) -> None:
    argv = (compiler, *_GCC[1:])
    launcher.compile(*argv)
    outputs = [launcher.cwd / "out.o", launcher.cwd / "out.d"]
    for path in outputs:
        path.chmod(0o640)
    assert run_bare(argv, cwd=launcher.cwd)[0] == 0
    bare = [stat.S_IMODE(path.stat().st_mode) for path in outputs]
    for path in outputs:
        path.chmod(0o640)
    assert launcher.compile(*argv).answer == "done"
    assert [stat.S_IMODE(path.stat().st_mode) for path in outputs] == bare


def _make_odd(what: str, out: Path, twin: Path) -> None:
    twin.unlink(missing_ok=True)
    out.unlink()
    out.write_bytes(b"old")
    match what:
        case "hardlink":
            os.link(out, twin)
        case "symlink":
            out.rename(twin)
            out.symlink_to(twin)
        case _:
            out.unlink()
            out.symlink_to(twin)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("what", ["hardlink", "symlink", "dangling"])
def test_an_output_that_is_not_plain_is_left_to_the_compiler(
    compiler: str, what: str, launcher: FakeLauncher, cache: Cache
) -> None:
    argv = (compiler, *_GCC[1:])
    launcher.compile(*argv)
    out, twin = launcher.cwd / "out.o", launcher.cwd / "twin.o"
    _make_odd(what, out, twin)
    run_bare(argv, cwd=launcher.cwd)
    bare = out.is_symlink(), out.read_bytes(), twin.exists() and twin.read_bytes()
    _make_odd(what, out, twin)
    assert launcher.compile(*argv).answer == "run"
    assert (out.is_symlink(), out.read_bytes(), twin.exists() and twin.read_bytes()) == bare
    assert cache.counters()["uncacheable.output-not-ours"] == 1


def test_a_directory_in_place_of_the_output_is_a_bypass(launcher: FakeLauncher) -> None:
    (launcher.cwd / "out.o").mkdir()
    ended = launcher.compile(*_GCC)
    assert (ended.answer, ended.reason) == ("exec", "special-output")
    assert ended.exit_code != 0


def test_an_output_in_a_missing_directory_is_the_compilers_error(launcher: FakeLauncher) -> None:
    argv = (*_GCC[:-1], "gone/out.o")
    (launcher.cwd / "gone").mkdir()
    launcher.compile(*argv)
    shutil.rmtree(launcher.cwd / "gone")
    ended = launcher.compile(*argv)
    assert ended.exit_code == 1
    assert b"gone/out." in ended.stderr


def test_failed_compiles_are_shown_and_never_kept(
    launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    project.write("src/bad.c", "int main(void) { return missing; }\n")
    project.settle()
    for _ in range(2):
        ended = launcher.compile("gcc", "-c", "src/bad.c")
        assert ended.answer == "run"
        assert ended.exit_code == 1
        assert b"missing" in ended.stderr
    assert cache.counters()["miss.failed"] == 2


def test_gcc_header_listing_hides_no_diagnostic(launcher: FakeLauncher, project: Any) -> None:
    project.write("src/noguard.h", "int noguard;\n#warning look here\n")
    project.write("src/w.c", '#include "noguard.h"\nint f(void) { int unused; return 0; }\n')
    project.settle()
    argv = ("gcc", "-MMD", "-Wall", "-c", "src/w.c", "-o", "w.o")
    _, _, err = run_bare(argv, cwd=launcher.cwd)
    assert launcher.compile(*argv).stderr == err
    hit = launcher.compile(*argv)
    assert hit.answer == "done"
    assert hit.stderr == err


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("const char *d = __DATE__;\n", "date-time"),
        ("const char *d = __TIMESTAMP__;\n", "timestamp"),
        ("#define Q(x, y) __has_include(x)\n#if Q(<stdio.h>, 0)\n#endif\nint i;\n", "has-include"),
        ('#pragma GCC dependency "util.h"\nint i;\n', "pragma-dependency"),
    ],
)
def test_what_no_header_list_shows_is_not_kept(
    text: str, reason: str, launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    project.write("blob", "bytes")
    project.write("src/odd.c", text)
    project.settle()
    argv = ("gcc", "-c", "src/odd.c", "-Wa,--noexecstack")
    for _ in range(2):
        assert launcher.compile(*argv).answer == "run"
    assert cache.counters()[f"uncacheable.{reason}"] == 2


def test_a_refused_result_is_recorded_with_its_line_and_is_not_counted_as_a_new_command(
    launcher: FakeLauncher, cache: Cache, project: Any, paths: Paths
) -> None:
    project.write("src/odd.h", "int i;\nconst char *d =\n  __TIMESTAMP__;\n")
    project.write("src/odd.c", '#include "odd.h"\n')
    project.settle()
    for _ in range(2):
        assert launcher.compile("gcc", "-c", "src/odd.c", "-o", "odd.o").answer == "run"
    counted = cache.counters()
    assert counted["uncacheable.timestamp"] == 2
    assert not [name for name in counted if name.startswith("missed.")]
    record = read_records(os.fspath(paths.cache))[-1]
    place = f"{project.directory}/src/odd.h:3"
    assert (record.outcome, record.culprit) == ("uncacheable", f"{place}: __TIMESTAMP__;")
    # Once the reason is gone, the command counts as one without a result.
    project.write("src/odd.h", "int i;\n")
    project.settle()
    launcher.compile("gcc", "-c", "src/odd.c", "-o", "odd.o")
    assert cache.counters()["missed.new-command"] == 1
    assert not read_records(os.fspath(paths.cache))[-1].culprit


def test_a_directive_that_macros_make_is_not_kept(
    launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    project.write("blob", "bytes")
    text = '__asm__(".macro m x\\n.inc\\\\x \\"blob\\"\\n.endm\\nm bin\\n");\n'
    project.write("src/odd.c", text)
    project.settle()
    for _ in range(2):
        assert launcher.compile("clang", "-c", "src/odd.c").answer == "run"
    assert cache.counters()["uncacheable.incbin"] == 2
    # GNU as lists what it read.
    assert launcher.compile("gcc", "-c", "src/odd.c").answer == "run"
    assert launcher.compile("gcc", "-c", "src/odd.c").answer == "done"


def test_a_pinned_date_is_kept(launcher: FakeLauncher, project: Any) -> None:
    project.write("src/date.c", "const char *d = __DATE__ __TIME__;\n")
    project.settle()
    launcher.env["SOURCE_DATE_EPOCH"] = "1000000000"
    argv = ("gcc", "-c", "src/date.c")
    assert launcher.compile(*argv).answer == "run"
    assert launcher.compile(*argv).answer == "done"
    launcher.env["SOURCE_DATE_EPOCH"] = "1000000001"
    assert launcher.compile(*argv).answer == "run"


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_answer_of_has_include_is_an_input(
    compiler: str, launcher: FakeLauncher, project: Any
) -> None:
    project.write("src/q.c", "#if __has_include(<maybe.h>)\nint yes;\n#else\nint no;\n#endif\n")
    project.settle()
    argv = (compiler, "-Iinc", "-c", "src/q.c", "-o", "q.o")
    launcher.compile(*argv)
    assert launcher.compile(*argv).answer == "done"
    without = (launcher.cwd / "q.o").read_bytes()
    _edit(project, "inc/maybe.h", "")
    assert launcher.compile(*argv).answer == "run"
    assert (launcher.cwd / "q.o").read_bytes() != without
    assert launcher.compile(*argv).answer == "done"
    (launcher.cwd / "inc/maybe.h").unlink()
    assert launcher.compile(*argv).answer == "done"
    assert (launcher.cwd / "q.o").read_bytes() == without


def test_a_header_changed_during_the_compile_makes_nothing_to_keep(
    launcher: FakeLauncher, cache: Cache
) -> None:
    header = launcher.cwd / "inc/conf.h"
    launcher.after_run = lambda _run: header.write_text("#define CONF 1\n") and None
    assert launcher.compile(*_GCC).answer == "run"
    assert cache.counters()["uncacheable.modified-during-compile"] == 1
    launcher.after_run = lambda _run: None
    assert launcher.compile(*_GCC).answer == "run"


def test_a_header_added_during_the_compile_makes_nothing_to_keep(
    launcher: FakeLauncher, cache: Cache
) -> None:
    header = launcher.cwd / "early/conf.h"
    launcher.after_run = lambda _run: header.write_text("#define CONF 1\n") and None
    assert launcher.compile(*_GCC).answer == "run"
    assert cache.counters()["uncacheable.modified-during-compile"] == 1


def test_equal_size_edits_in_one_clock_tick_are_seen(launcher: FakeLauncher, project: Any) -> None:
    launcher.compile(*_GCC)
    seen = set()
    for value in range(10, 16):
        # The times are put back: only content tells.
        status = (launcher.cwd / "inc/conf.h").stat()
        (launcher.cwd / "inc/conf.h").write_text(f"#define CONF {value}\n")
        os.utime(launcher.cwd / "inc/conf.h", ns=(status.st_atime_ns, status.st_mtime_ns))
        assert launcher.compile(*_GCC).exit_code == 0
        seen.add((launcher.cwd / "out.o").read_bytes())
    assert len(seen) == 6


def test_response_files_are_read_and_their_content_is_in_the_key(
    launcher: FakeLauncher, project: Any
) -> None:
    project.write("flags.rsp", "-Iinc '-DTEXT=\"a b\"' @more.rsp\n")
    project.write("more.rsp", "-O1\n")
    argv = ("gcc", "@flags.rsp", "-c", "src/main.c", "-o", "out.o")
    launcher.compile(*argv)
    assert launcher.compile(*argv).answer == "done"
    project.write("more.rsp", "-O2\n")
    assert launcher.compile(*argv).answer == "run"


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("gcc", "src/main.c", "-Iinc", "-o", "a.out"), "link"),
        (("gcc", "-E", "-MD", "src/main.c"), "preprocess-only"),
        (("gcc", "-c", "-Iinc", "src/main.c", "src/tool.cc"), "multiple-sources"),
        (("gcc", "-c", "-Iinc", "src/main.c", "-o", "/dev/null"), "special-output"),
        (("gcc", "-c", "-Iinc", "src/main.c", "-fprofile-note=n"), "profile"),
        (("gcc", "-c", "-Iinc", "src/main.c", "-aux-info=x"), "side-output"),
        (("gcc", "-S", "-c", "-Iinc", "src/main.c"), "several-modes"),
        (("gcc", "-traditional-cpp", "-c", "-Iinc", "src/main.c"), "unknown-flag"),
        (("gcc", "-c", "-Iinc", "src/main.c", "-fembed-bitcode"), "record-switches"),
        (("gcc", "-c", "-Iinc", "src/main.c", "-Wa,-a=list"), "assembler-flag"),
    ],
)
def test_a_bypass_has_its_reason_and_runs_the_compiler(
    argv: tuple[str, ...], reason: str, launcher: FakeLauncher, cache: Cache
) -> None:
    ended = launcher.compile(*argv)
    assert (ended.answer, ended.reason) == ("exec", reason)
    assert cache.counters()[f"bypass.{reason}"] == 1


def test_dependency_variables_are_a_bypass(launcher: FakeLauncher) -> None:
    launcher.env["DEPENDENCIES_OUTPUT"] = "deps.txt"
    assert launcher.compile(*_GCC).reason == "dependencies-output"


def test_a_script_of_no_proved_form_is_a_bypass(launcher: FakeLauncher, project: Any) -> None:
    script = project.write("bin/gcc", '#!/bin/sh\ndate >/dev/null\nexec /usr/bin/gcc "$@"\n')
    script.chmod(0o755)
    launcher.env["PATH"] = f"{script.parent}:/usr/bin:/bin"
    ended = launcher.compile(*_GCC)
    assert (ended.answer, ended.reason) == ("exec", "wrapper-script")


def test_colours_are_what_a_terminal_would_have_got(launcher: FakeLauncher) -> None:
    argv = ("gcc", "-Wall", "-Iinc", "-c", "src/main.c", "-o", "out.o")
    plain = launcher.compile(*argv)
    launcher.stderr_is_tty = True
    launcher.env["TERM"] = "xterm"
    coloured = launcher.compile(*argv)
    assert coloured.answer == "run"
    assert b"\x1b[" in coloured.stderr
    assert launcher.compile(*argv).stderr == coloured.stderr
    assert b"\x1b[" not in plain.stderr
    assert launcher.compile(*argv, "-fno-diagnostics-color").stderr == plain.stderr


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_what_the_cache_adds_does_not_reach_the_object(
    compiler: str, launcher: FakeLauncher
) -> None:
    launcher.stderr_is_tty = True
    launcher.env["TERM"] = "xterm"
    for deps in ((), ("-MMD",)):
        argv = (compiler, "-g3", "-O2", "-flto", *deps, "-frandom-seed=1", *_GCC[1:3], *_GCC[4:])
        run_bare(argv, cwd=launcher.cwd)
        bare = (launcher.cwd / "out.o").read_bytes()
        assert launcher.compile(*argv).answer == "run"
        assert (launcher.cwd / "out.o").read_bytes() == bare


def test_results_outlive_the_daemon(
    make_cache: Callable[..., Cache], launcher: FakeLauncher, cache: Cache
) -> None:
    launcher.compile(*_GCC)
    cache.close()
    launcher.handler = again = make_cache()
    assert launcher.compile(*_GCC).answer == "done"
    assert again.counters()["miss.local"] == 1  # counted by the first daemon
    assert again.counters()["hit.local"] == 1
