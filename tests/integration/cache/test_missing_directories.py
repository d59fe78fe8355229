"""-Wmissing-include-dirs: a guest has each search directory of the project, and warns of none."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache
from hpcc.core import RemoteOutcome, RemoteRequest
from hpcc_testkit.cache.compiles import Compiled, FakeLauncher, FakeRemote, run_bare

ENV = {"LC_ALL": "C.UTF-8"}  # as in a guest
# The header is found in the first directory, so that nothing is looked for in the last one.
WARNING = ("-Wmissing-include-dirs", "-I.", "-iquote", "../include", "-iquote", "../empty")


@pytest.fixture
def remote() -> FakeRemote:
    return FakeRemote()


@pytest.fixture
def launcher(make_cache: Callable[..., Cache], remote: FakeRemote, tmp_path: Path) -> FakeLauncher:
    root = tmp_path / "p"
    for name in ("build", "empty", "include"):
        (root / name).mkdir(parents=True)
    (root / "include/a.h").write_text("#define A 1\n")
    (root / "a.c").write_text('#include "a.h"\nint a(void) { return A; }\n')
    subprocess.run(["git", "init", "-q", root], check=True)
    time.sleep(0.08)
    return FakeLauncher(handler=make_cache(remote), cwd=root / "build", env=ENV)


def _argv(compiler: str, *flags: str) -> list[str]:
    return [compiler, *flags, "-c", "../a.c", "-o", "a.o"]


def _compare(launcher: FakeLauncher, argv: list[str]) -> Compiled:
    """Compile bare and through hpcc; the object and the messages are the same."""
    code, _, warnings = run_bare(argv, cwd=launcher.cwd, env=ENV)
    wanted = (launcher.cwd / "a.o").read_bytes()
    (launcher.cwd / "a.o").unlink()
    ended = launcher.compile(*argv)
    if ended.answer == "done":
        assert (ended.exit_code, ended.stderr) == (code, warnings)
        assert (launcher.cwd / "a.o").read_bytes() == wanted
    return ended


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_a_compile_that_warns_of_missing_directories_travels(
    compiler: str, launcher: FakeLauncher, remote: FakeRemote
) -> None:
    argv = _argv(compiler, *WARNING)
    assert _compare(launcher, argv).answer == "done"
    assert "empty" in remote.requests[0].directories
    assert _compare(launcher, argv).answer == "done"
    assert len(remote.requests) == 1  # the second was a hit


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_a_directory_that_vanishes_is_no_hit_and_is_named(
    compiler: str, launcher: FakeLauncher, remote: FakeRemote
) -> None:
    argv = _argv(compiler, *WARNING)
    assert _compare(launcher, argv).answer == "done"
    (launcher.cwd.parent / "empty").rmdir()
    time.sleep(0.08)
    said = run_bare(argv, cwd=launcher.cwd, env=ENV)[2]
    assert (b"../empty" in said) == (compiler == "gcc")  # Clang 14 says nothing
    assert launcher.compile(*argv).answer != "done"  # it runs here
    assert len(remote.requests) == 1
    (launcher.cwd.parent / "empty").mkdir()
    time.sleep(0.08)
    assert _compare(launcher, argv).answer == "done"
    assert len(remote.requests) == 1


def test_a_directory_outside_of_the_project_stays(
    launcher: FakeLauncher, remote: FakeRemote, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert _compare(launcher, _argv("gcc", *WARNING, f"-I{tmp_path}/elsewhere")).answer != "done"
    assert not remote.requests


class _Lacking(FakeRemote):
    """An image without a directory of system headers that this machine has."""

    def compile(self, request: RemoteRequest, is_cancelled: Callable[[], bool]) -> RemoteOutcome:
        argv = tuple(w.replace("/usr/include/x86_64-linux-gnu", "/nowhere") for w in request.argv)
        self.requests.append(request)
        outcome = super().compile(replace(request, argv=argv), is_cancelled)
        self.requests.pop()
        return outcome


@pytest.mark.parametrize("flag", ["-I", "-isystem"])
@pytest.mark.parametrize("has_it", [True, False])
def test_a_directory_of_system_headers_is_the_images(
    flag: str,
    has_it: bool,
    make_cache: Callable[..., Cache],
    launcher: FakeLauncher,
) -> None:
    remote = FakeRemote() if has_it else _Lacking()
    launcher = replace(launcher, handler=make_cache(remote))
    argv = _argv("gcc", *WARNING, flag, "/usr/include/x86_64-linux-gnu/sys")
    answers = [_compare(launcher, argv).answer for _ in range(2)]
    assert len(remote.requests) == 1
    assert (answers[0] == "done") == has_it
    # What the image lacks was compiled here, and is a hit.
    assert answers[1] == "done"


def test_a_warning_that_is_off_keeps_nothing_here(
    launcher: FakeLauncher, remote: FakeRemote, tmp_path: Path
) -> None:
    shutil.rmtree(launcher.cwd.parent / "empty")
    argv = _argv("gcc", "-Wno-missing-include-dirs", *WARNING[1:])
    assert _compare(launcher, argv).answer == "done"
    assert len(remote.requests) == 1
