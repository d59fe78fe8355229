"""A source of the assembler without preprocessor travels, if all that it reads is its own text."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache
from hpcc.cache.results.records_read import read_records
from hpcc.config.paths import Paths
from hpcc_testkit.cache.compiles import FakeLauncher, FakeRemote, run_bare

SOURCE = """# include nothing
.section .init
.global _init
_init:
    push %rax
    .ascii "x"
"""


@pytest.fixture
def remote() -> FakeRemote:
    return FakeRemote()


@pytest.fixture
def launcher(make_cache: Callable[..., Cache], remote: FakeRemote, tmp_path: Path) -> FakeLauncher:
    root = tmp_path / "proj"
    (root / ".git").mkdir(parents=True)
    (root / "crt").mkdir()
    (root / "crt/i.s").write_text(SOURCE)
    _settle(root)
    return FakeLauncher(handler=make_cache(remote), cwd=root)


def _settle(root: Path) -> None:
    old = time.time() - 3600
    for path in (root / "crt").iterdir():
        os.utime(path, (old, old))


def _argv(source: str = "crt/i.s", *flags: str, compiler: str = "gcc") -> list[str]:
    return [compiler, "-O2", "-Wa,--noexecstack", "-Iinc", *flags, "-c", "-o", "i.o", source]


def _compared(launcher: FakeLauncher, argv: list[str]) -> str:
    """Compile bare and with hpcc, compare all that shows; return how hpcc answered."""
    code, out, err = run_bare(argv, cwd=launcher.cwd)
    assert code == 0, err
    bare = (launcher.cwd / "i.o").read_bytes()
    (launcher.cwd / "i.o").unlink()
    ended = launcher.compile(*argv)
    assert (ended.exit_code, ended.stdout, ended.stderr) == (code, out, err)
    assert (launcher.cwd / "i.o").read_bytes() == bare
    (launcher.cwd / "i.o").unlink()
    return ended.answer


def _why(launcher: FakeLauncher, paths: Paths) -> str:
    launcher.handler.close()  # type: ignore[attr-defined]  # a cache
    (record,) = read_records(os.fspath(paths.cache))
    return record.fallback


def test_it_travels_with_the_bytes_of_here_and_an_edit_is_a_new_compile(
    launcher: FakeLauncher, remote: FakeRemote
) -> None:
    for source in ("crt/i.s", f"{launcher.cwd}/crt/i.s"):
        remote.requests.clear()
        assert _compared(launcher, _argv(source)) == "done"
        assert [item.path for item in remote.requests[0].inputs] == ["crt/i.s"]
        assert _compared(launcher, _argv(source)) == "done"
        assert len(remote.requests) == 1
    (launcher.cwd / "crt/i.s").write_text(SOURCE + "    nop\n")
    assert _compared(launcher, _argv()) == "done"
    assert len(remote.requests) == 2


def test_its_warnings_name_the_file_of_here(launcher: FakeLauncher, remote: FakeRemote) -> None:
    (launcher.cwd / "crt/i.s").write_text(SOURCE + '.warning "old"\n')
    for source in ("crt/i.s", f"{launcher.cwd}/crt/i.s"):
        assert _compared(launcher, _argv(source)) == "done"
    assert len(remote.requests) == 2


@pytest.mark.parametrize(
    ("text", "flags", "why"),
    [
        ('.incbin "more.bin"\n', "", "incbin"),
        ('.include "more.s"\n', "-Icrt", "incbin"),
        ('.macro get x\n.\\x "more.bin"\n.endm\nget incbin\n', "", "incbin"),
        ('.file 1 "i.c"\n.loc 1 1\nnop\n', "", "no-preprocessing: debug information in the text"),
        ("nop\n", "-g", "no-preprocessing: -g with plain assembler"),
        ("nop\n", "-Wa,-g", "no-preprocessing: -Wa,-g with plain assembler"),
    ],
)
def test_what_may_differ_in_a_guest_stays(
    text: str, flags: str, why: str, launcher: FakeLauncher, remote: FakeRemote, paths: Paths
) -> None:
    (launcher.cwd / "more.bin").write_bytes(b"12")
    (launcher.cwd / "crt/more.s").write_text("nop\n")
    (launcher.cwd / "crt/i.s").write_text(SOURCE + text)
    _settle(launcher.cwd)
    assert _compared(launcher, _argv("crt/i.s", *flags.split())) != "done"
    assert remote.requests == []
    assert _why(launcher, paths).startswith(why)


def test_another_assembler_and_preprocessed_c_stay(
    launcher: FakeLauncher, remote: FakeRemote
) -> None:
    (launcher.cwd / "crt/a.i").write_text("int x;\n")
    _settle(launcher.cwd)
    assert _compared(launcher, _argv(compiler="clang")) != "done"
    assert _compared(launcher, _argv("crt/a.i")) != "done"
    assert remote.requests == []
