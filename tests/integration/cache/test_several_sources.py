"""A command with several sources: each is one cached compile, and nothing else differs."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcc.cache.cache import Cache
from hpcc_testkit.cache.compiles import Compiled, FakeLauncher, counted, run_bare

_SOURCES = {
    "a.c": '#include "common.h"\nint a(void) { return COMMON; }\n',
    "b.c": '#include "common.h"\nint b(void) { return COMMON + 1; }\n',
    "c.c": "int c(void) { return 3; }\n",
    "common.h": "#define COMMON 5\n",
}
_WRITTEN = ("*.o", "*.d", "*.s")
_WARNS = "int {0}(void) {{ int unused_{0}; return 1; }}\n"


@pytest.fixture(autouse=True)
def sources(project: Any) -> Any:
    for name, text in _SOURCES.items():
        project.write(name, text)
    project.settle()
    return project


def _outputs(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.name: (stat.S_IMODE(path.stat().st_mode), path.read_bytes())
        for pattern in _WRITTEN
        for path in sorted(directory.glob(pattern))
    }


def _place(directory: Path, files: dict[str, tuple[int, bytes]]) -> None:
    for name in _outputs(directory):
        (directory / name).unlink()
    for name, (mode, data) in files.items():
        (directory / name).write_bytes(data)
        (directory / name).chmod(mode)


def _same(launcher: FakeLauncher, *argv: str) -> Compiled:
    """Compile bare and through the cache over the same outputs; both must do the same."""
    before = _outputs(launcher.cwd)
    code, out, err = run_bare(argv, cwd=launcher.cwd, env=launcher.env, umask=launcher.umask)
    bare = _outputs(launcher.cwd)
    _place(launcher.cwd, before)
    ours = launcher.compile(*argv)
    assert (ours.exit_code, ours.stdout, ours.stderr) == (code, out, err)
    assert _outputs(launcher.cwd) == bare
    return ours


_FLAGS = {
    "plain": ("-c",),
    "debug": ("-g", "-O2", "-MD", "-MP", "-c"),
    "user-headers": ("-O1", "-MMD", "-MT", "x", "-c"),
    "assembly": ("-S", "-O1"),
    "language": ("-x", "c++", "-std=c++17", "-c"),
}


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("flags", _FLAGS)
def test_each_source_is_one_cached_compile(
    compiler: str, flags: str, launcher: FakeLauncher, cache: Cache
) -> None:
    argv = (compiler, *_FLAGS[flags], "a.c", "b.c", "c.c")
    assert _same(launcher, *argv).answer == "run"
    assert counted(cache, "miss.local", "hit.local") == (3, 0)
    assert _same(launcher, *argv).answer == "done"  # over the outputs
    _place(launcher.cwd, {})
    assert _same(launcher, *argv).answer == "done"
    # Each alone, in another order, and a part of them.
    assert _same(launcher, *argv[:-3], "b.c").answer == "done"
    assert _same(launcher, *argv[:-3], "c.c", "a.c").answer == "done"
    assert counted(cache, "miss.local", "hit.local", "bypass.multiple-sources") == (3, 9, 0)


def test_only_what_has_no_result_is_compiled(
    launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    argv = ("gcc", "-c", "a.c", "b.c", "c.c")
    commands: list[tuple[bytes, ...]] = []
    launcher.before_run = lambda run: commands.append(run.argv)
    _same(launcher, *argv)
    project.write("b.c", "int b(void) { return 77; }\n")
    project.settle()
    assert _same(launcher, *argv).answer == "run"
    assert {b"a.c", b"b.c", b"c.c"} & {*commands[-1]} == {b"b.c"}
    project.write("common.h", "#define COMMON 6\n")
    project.write("b.c", _SOURCES["b.c"])
    project.settle()
    assert _same(launcher, *argv).answer == "run"
    assert {b"a.c", b"b.c", b"c.c"} & {*commands[-1]} == {b"a.c", b"b.c"}
    assert _same(launcher, *argv).answer == "done"
    assert counted(cache, "miss.local", "hit.local") == (6, 6)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_messages_are_those_of_the_whole_command(
    compiler: str, launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    argv = (compiler, "-Wall", "-c")
    project.write("b.c", _WARNS.format("b"))
    project.write("d.c", _WARNS.format("d"))
    project.settle()
    # Together they do not tell whose message it is.
    assert _same(launcher, *argv, "a.c", "b.c").answer == "run"
    assert counted(cache, "uncacheable.mixed-messages", "miss.local") == (2, 2)
    for name in ("a.c", "b.c", "d.c"):
        _same(launcher, *argv, name)
    assert b"unused_b" in _same(launcher, *argv, "a.c", "b.c").stderr
    both = _same(launcher, *argv, "d.c", "a.c", "b.c")
    assert both.answer == "done"
    assert both.stderr.index(b"unused_d") < both.stderr.index(b"unused_b")
    # Without a silent one, the driver may have printed something.
    assert _same(launcher, *argv, "b.c", "d.c").answer == "run"


def test_the_driver_complains_once(launcher: FakeLauncher) -> None:
    argv = ("clang", "-L/none", "-c")
    for name in ("a.c", "b.c"):
        assert b"'-L/none'" in _same(launcher, *argv, name).stderr
    assert _same(launcher, *argv, "a.c", "b.c").stderr.count(b"'-L/none'") == 1
    assert _same(launcher, *argv, "a.c", "b.c").stderr.count(b"'-L/none'") == 1


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_after_an_error_the_compiler_does_what_it_does(
    compiler: str, launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    argv = (compiler, "-c", "a.c", "b.c", "c.c")
    project.write("b.c", "int b(void) { return nothing; }\n")
    project.settle()
    assert _same(launcher, *argv).exit_code == 1
    assert _same(launcher, *argv).exit_code == 1
    assert {"a.o", "c.o"} == {*_outputs(launcher.cwd)}
    assert counted(cache, "miss.failed", "hit.local") == (6, 0)
    _same(launcher, compiler, "-c", "a.c")
    _same(launcher, compiler, "-c", "c.c")
    project.write("b.o", "old")
    assert _same(launcher, *argv).exit_code == 1
    assert counted(cache, "hit.local") == (2,)


_REFUSED = {
    "one-output": ("-c", "a.c", "b.c", "-o", "x.o"),
    "one-depfile": ("-c", "a.c", "b.c", "-MD", "-MF", "x.d"),
    "one-depfile-of-cpp": ("-c", "a.c", "b.c", "-Wp,-MD,x.d"),
    "further-outputs": ("-c", "a.c", "b.c", "-g", "-gsplit-dwarf"),
    "language-between": ("-c", "a.c", "-x", "c++", "b.c"),
    "two-languages": ("-c", "a.c", "src/tool.cc"),
    "one-object": ("-c", "a.c", "same/a.c"),
    "twice": ("-c", "a.c", "a.c"),
    "missing": ("-c", "a.c", "missing.c"),
    "object": ("-c", "a.c", "old.o"),
    "response-file": ("@flags", "a.c", "b.c"),
    "profile": ("-c", "a.c", "b.c", "-fprofile-use"),
    "source-named-as-output": ("-x", "c", "-c", "sub/a.o", "b.o.c", "a.c"),
}


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("case", _REFUSED)
def test_what_is_more_than_its_sources_is_left_to_the_compiler(
    case: str, compiler: str, launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    project.write("same/a.c", "int same;\n")
    project.write("sub/a.o", "int sub;\n")
    project.write("b.o.c", "int sub2;\n")
    project.write("old.o", "")
    project.write("flags", "-c -O1\n")
    assert _same(launcher, compiler, *_REFUSED[case]).reason == "multiple-sources"
    assert counted(cache, "bypass.multiple-sources", "miss.local") == (1, 0)


@pytest.mark.parametrize("name", ["a.o", "link.bin"])
def test_a_source_that_reads_anothers_object_gets_the_right_one(
    name: str, launcher: FakeLauncher, project: Any
) -> None:
    project.write("b.c", f'__asm__(".section .x\\n .incbin \\"{name}\\"\\n");\n')
    (launcher.cwd / "link.bin").symlink_to("a.o")
    for value in (1, 2, 1, 2, 2):
        project.write("a.c", f"int a = {value};\n")
        project.settle()
        _same(launcher, "gcc", "-c", "a.c", "b.c", "c.c")
        _same(launcher, "gcc", "-c", "b.c", "c.c", "a.c")


def test_behind_the_first_miss_only_what_is_there_is_taken(
    launcher: FakeLauncher, project: Any
) -> None:
    """The source without a result may read what a later one writes."""
    argv = ("gcc", "-c", "b.c", "a.c", "c.c")
    for value in (1, 2):
        project.write("a.c", f"int a = {value};\n")
        project.settle()
        _same(launcher, *argv)
    project.write("a.c", "int a = 1;\n")  # has a result, which is not the file that is there
    project.write("b.c", '__asm__(".section .x\\n .incbin \\"a.o\\"\\n");\n')
    project.settle()
    _same(launcher, *argv)


def test_an_output_that_only_the_compiler_may_write_is_compiled(
    launcher: FakeLauncher, cache: Cache
) -> None:
    argv = ("gcc", "-c", "a.c", "b.c", "c.c")
    _same(launcher, *argv)
    (launcher.cwd / "b.o").unlink()
    os.link(launcher.cwd / "a.o", launcher.cwd / "b.o")
    assert launcher.compile(*argv).answer == "run"
    assert counted(cache, "uncacheable.output-not-ours")[0] > 0


def test_a_header_changed_during_the_run_makes_nothing_to_keep(
    launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    launcher.after_run = lambda _run: project.write("common.h", "#define COMMON 9\n") and None
    launcher.compile("gcc", "-c", "a.c", "b.c", "c.c")
    assert counted(cache, "uncacheable.modified-during-compile") == (2,)
    launcher.after_run = lambda _run: None
    project.settle()
    assert _same(launcher, "gcc", "-c", "a.c", "b.c", "c.c").answer == "run"


def test_an_abandoned_run_leaves_nothing_behind(launcher: FakeLauncher, cache: Cache) -> None:
    argv = ("gcc", "-c", "a.c", "b.c")
    request = launcher.request(argv)
    run = cache.begin(request, lambda: False)
    cache.abandon(request, run)  # type: ignore[arg-type]  # nothing is stored yet, so it is a run
    assert _same(launcher, *argv).answer == "run"
    assert _same(launcher, *argv).answer == "done"


def test_a_second_checkout_hits(
    make_cache: Callable[..., Cache], project: Any, launcher: FakeLauncher
) -> None:
    argv = ("gcc", "-g", "-MD", "-c", "a.c", "b.c")
    (launcher.cwd / ".hpcc").touch()
    project.settle()
    cache = make_cache()
    first = FakeLauncher(handler=cache, cwd=launcher.cwd)
    assert first.compile(*argv).answer == "run"
    other = launcher.cwd.with_name("second")
    other.mkdir()
    for name in (".hpcc", "a.c", "b.c", "common.h"):
        (other / name).write_bytes((launcher.cwd / name).read_bytes())
    project.settle()
    assert FakeLauncher(handler=cache, cwd=other).compile(*argv).answer == "done"
    assert counted(cache, "hit.shared") == (2,)
    assert (other / "a.d").read_bytes() == (launcher.cwd / "a.d").read_bytes()
    assert (other / "a.o").read_bytes() == (launcher.cwd / "a.o").read_bytes()
