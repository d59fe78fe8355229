"""Compiles that write more than an object: a hit restores all outputs, for every compiler."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache
from hpcc_testkit.cache.compiles import FakeLauncher, run_bare

_OTHERS = ("gcc-13", "gcc-14", "clang-17", "clang-19")
# The distribution's own, and those that it offers beside them.
_COMPILERS = ("gcc", "clang", *filter(shutil.which, _OTHERS))
_FLAGS = {
    "coverage": ("--coverage",),
    "test-coverage": ("-ftest-coverage", "-O1"),
    "split-dwarf": ("-g", "-gsplit-dwarf"),
    "stack-usage": ("-fstack-usage", "-O2"),
    "save-temps": ("-save-temps", "-MMD"),
    "save-temps-obj": ("-save-temps=obj", "-MD"),
    "save-temps-cwd": ("-save-temps=cwd", "-g"),
    "many": ("-g", "-gsplit-dwarf", "-fstack-usage", "-MD", "-MP"),
}
_SHAPES = {
    "output": ("-c", "src/main.c", "-o", "build/x.y.obj"),
    "default": ("-c", "src/main.c"),
    "assembly": ("-S", "src/main.c", "-o", "build/out.s"),
    "assembly-default": ("-S", "src/main.c"),
    "no-suffix": ("-c", "src/main.c", "-o", "build/noext"),
}
# GCC stamps notes and object with the time all the same: two bare compiles differ.
_SEED = ("-frandom-seed=1",)


def _outputs(directory: Path, sources: frozenset[Path]) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(directory)): (p.stat().st_mode & 0o7777, p.read_bytes())
        for p in sorted(directory.rglob("*"))
        if p.is_file() and p not in sources
    }


def _remove(directory: Path, names: object) -> None:
    for name in names:  # type: ignore[attr-defined]  # any collection of names
        (directory / name).unlink()


# Of another release's names: each flag once, and each shape by the flags with the most files.
_EACH = [
    *((flags, "output") for flags in _FLAGS),
    ("many", "default"),
    ("save-temps-cwd", "assembly"),
    ("many", "no-suffix"),
]
_MORE = [
    *((flags, "default") for flags in ("save-temps", "save-temps-cwd", "coverage")),
    *((flags, "assembly") for flags in ("stack-usage", "save-temps")),
    ("stack-usage", "assembly-default"),
    ("coverage", "no-suffix"),
]


@pytest.mark.parametrize(
    ("compiler", "flags", "shape"),
    [(compiler, *case) for compiler in _COMPILERS for case in _EACH]
    + [(compiler, *case) for compiler in _COMPILERS[:2] for case in _MORE],
)
def test_every_output_comes_back(
    compiler: str, flags: str, shape: str, launcher: FakeLauncher, cache: Cache
) -> None:
    cwd = launcher.cwd
    sources = frozenset(p for p in cwd.rglob("*") if p.is_file())
    argv = (compiler, "-Iinc", *_FLAGS[flags], *_SEED, *_SHAPES[shape])
    bare = run_bare(argv, cwd=cwd)
    expected = _outputs(cwd, sources)
    assert bare[0] == 0
    _remove(cwd, expected)
    cold = launcher.compile(*argv)
    made = _outputs(cwd, sources)
    assert (cold.answer, cold.exit_code, cold.stdout, cold.stderr) == ("run", *bare)
    assert sorted(made) == sorted(expected)
    if flags not in {"coverage", "test-coverage"}:
        assert made == expected
    _remove(cwd, made)
    hit = launcher.compile(*argv)
    assert (hit.answer, hit.exit_code, hit.stdout, hit.stderr) == ("done", *bare)
    assert _outputs(cwd, sources) == made
    for name in made:
        (cwd / name).write_bytes(b"old")
        (cwd / name).chmod(0o600)
    over = launcher.compile(*argv)
    kept = _outputs(cwd, sources)
    assert over.answer == "done"
    assert {n: d for n, (_, d) in kept.items()} == {n: d for n, (_, d) in made.items()}
    for name in made:
        (cwd / name).chmod(0o600)
    run_bare(argv, cwd=cwd)
    bare_modes = {n: mode for n, (mode, _) in _outputs(cwd, sources).items()}
    assert {n: mode for n, (mode, _) in kept.items()} == bare_modes
    assert cache.counters()["hit.local"] == 2


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_outputs_are_put_in_place_all_or_none(compiler: str, launcher: FakeLauncher) -> None:
    argv = (compiler, "-Iinc", "-fstack-usage", "-c", "src/main.c", "-o", "build/x.o")
    launcher.compile(*argv)
    assert launcher.compile(*argv).answer == "done"
    other = launcher.cwd / "elsewhere.su"
    (launcher.cwd / "build/x.su").unlink()
    other.write_text("another file")
    (launcher.cwd / "build/x.su").hardlink_to(other)
    assert launcher.compile(*argv).answer == "run"  # the compiler's affair, as without hpcc


def test_a_file_that_the_flags_announce_and_nobody_writes_is_not_kept(
    launcher: FakeLauncher, cache: Cache
) -> None:
    argv = (
        "clang",
        "-Iinc",
        "-gsplit-dwarf",
        "-gcolumn-info",
        "-c",
        "src/main.c",
        "-o",
        "build/x.o",
    )
    (launcher.cwd / "build/x.dwo").write_text("left by another compile")
    assert launcher.compile(*argv).answer == "run"
    assert launcher.compile(*argv).answer == "run"
    assert cache.counters()["uncacheable.side-output-missing"] == 2


@pytest.mark.parametrize("clang", ["clang", "clang-19"])
@pytest.mark.parametrize(
    "flags", [("-gsplit-dwarf",), ("-g", "-gsplit-dwarf", "-g0")], ids=" ".join
)
def test_without_debug_information_clang_writes_no_split_file(
    launcher: FakeLauncher, clang: str, flags: tuple[str, ...]
) -> None:
    """An old file stays as it is, as it does with the bare compiler."""
    argv = (clang, "-Iinc", *flags, "-c", "src/main.c", "-o", "build/x.o")
    assert launcher.compile(*argv).answer == "run"
    (launcher.cwd / "build/x.o").unlink()
    assert launcher.compile(*argv).answer == "done"
    assert (launcher.cwd / "build/x.o").exists()
    old = launcher.cwd / "build/x.dwo"
    assert not old.exists()
    old.write_text("left by another compile")
    assert launcher.compile(*argv).answer == "done"
    assert old.read_text() == "left by another compile"
    # With debug information there is one, and the file is part of the result.
    debug = (clang, "-Iinc", "-g", "-gsplit-dwarf", "-c", "src/main.c", "-o", "build/x.o")
    assert launcher.compile(*debug).answer == "run"
    made = old.read_bytes()
    old.unlink()
    assert launcher.compile(*debug).answer == "done"
    assert old.read_bytes() == made


def test_an_output_that_is_the_source_is_left_to_the_compiler(launcher: FakeLauncher) -> None:
    (launcher.cwd / "a.s").write_text(".long 1\n")
    argv = ("gcc", "-save-temps", "-x", "assembler-with-cpp", "-c", "a.s", "-o", "a.o")
    assert launcher.compile(*argv).answer == "exec"


def test_a_changed_header_gives_new_notes(
    launcher: FakeLauncher, project: object, make_cache: Callable[..., Cache]
) -> None:
    argv = ("gcc", "-Iinc", "--coverage", "-c", "src/main.c", "-o", "build/x.o")
    launcher.compile(*argv)
    before = (launcher.cwd / "build/x.gcno").read_bytes()
    (launcher.cwd / "inc/conf.h").write_text("#define CONF 7 + (unused ? 1 : 2)\n")
    project.settle()  # type: ignore[attr-defined]  # the fixture's class is not importable
    assert launcher.compile(*argv).answer == "run"
    assert (launcher.cwd / "build/x.gcno").read_bytes() != before
