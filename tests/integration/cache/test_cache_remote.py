"""Compiles on a farm: what is sent, which keys stay separate, and every fallback to local."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcc.cache.cache import Cache
from hpcc.cache.key.marker import find_root
from hpcc.config.settings import RemoteSettings, Settings
from hpcc.core import RemoteFailure
from hpcc_testkit.cache.compiles import FARM, FakeLauncher, FakeRemote, run_bare

_ARGV = ("gcc", "-Iearly", "-Iinc", "-O2", "-MD", "-MP", "-c", "src/main.c", "-o", "out.o")


@pytest.fixture
def remote() -> FakeRemote:
    return FakeRemote()


@pytest.fixture
def cache(make_cache: Callable[..., Cache], remote: FakeRemote) -> Cache:
    return make_cache(remote)


def test_a_miss_compiles_on_the_farm_and_then_hits_here(
    launcher: FakeLauncher, remote: FakeRemote, cache: Cache
) -> None:
    first = launcher.compile(*_ARGV)
    assert (first.answer, first.exit_code) == ("done", 0)
    data = (launcher.cwd / "out.o").read_bytes()
    depfile = (launcher.cwd / "out.d").read_bytes()
    second = launcher.compile(*_ARGV)
    assert second == first
    assert len(remote.requests) == 1
    assert ((launcher.cwd / "out.o").read_bytes(), (launcher.cwd / "out.d").read_bytes()) == (
        data,
        depfile,
    )
    counters = cache.counters()
    assert (counters["miss.remote.executed"], counters["hit.remote"]) == (1, 1)
    run_bare(_ARGV, cwd=launcher.cwd)
    assert (launcher.cwd / "out.d").read_bytes() == depfile


def test_the_request_holds_the_projects_files_and_relocatable_arguments(
    launcher: FakeLauncher, remote: FakeRemote
) -> None:
    root = launcher.cwd
    launcher.compile(
        "gcc",
        f"-I{root}/inc",
        "-I",
        "early",
        "-isystem",
        "/usr/include",
        "-c",
        f"{root}/src/main.c",
        "-o",
        f"{root}/build/out.o",
        "-MD",
        "-MF",
        "x.d",
    )
    request = remote.requests[0]
    assert [i.path for i in request.inputs] == [
        "inc/conf.h",
        "src/deep/inner.h",
        "src/main.c",
        "src/util.h",
    ]
    assert request.argv == (
        "gcc",
        "-I/src/inc",
        "-I",
        "early",
        "-isystem",
        "/usr/include",
        "-c",
        "/src/src/main.c",
        "-o",
        "/src/build/out.o",
        "-MD",
        "-MF",
        "x.d",
        "-ffile-prefix-map=/src=.",
        "-Werror=date-time",
    )
    assert request.outputs == ("build/out.o", "x.d")
    assert request.cwd == ""
    assert dict(request.env) == {"LC_ALL": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin"}
    depfile = (root / "x.d").read_text()
    assert str(root).replace(" ", "\\ ") + "/src/main.c" in depfile
    assert "/src/src" not in depfile


def test_a_marker_above_names_the_root(launcher: FakeLauncher, remote: FakeRemote) -> None:
    (launcher.cwd / ".hpcc").mkdir()
    launcher.cwd = launcher.cwd / "src"
    ended = launcher.compile("gcc", "-I../inc", "-c", "main.c", "-o", "../build/m.o")
    assert ended.answer == "done"
    request = remote.requests[0]
    assert (request.cwd, request.outputs) == ("src", ("build/m.o",))


def test_an_edit_is_a_miss_and_an_edit_back_a_hit(
    launcher: FakeLauncher, remote: FakeRemote, project: Any
) -> None:
    launcher.compile(*_ARGV)
    project.write("inc/conf.h", "#define CONF 70\n")
    project.settle()
    launcher.compile(*_ARGV)
    project.write("inc/conf.h", "#define CONF 7\n")
    project.settle()
    launcher.compile(*_ARGV)
    project.write("early/conf.h", "#define CONF 71\n")
    project.settle()
    launcher.compile(*_ARGV)
    assert len(remote.requests) == 3


@pytest.mark.parametrize("what", ["image", "isolation", "tenant"])
def test_another_image_isolation_or_tenant_is_another_key(
    what: str, launcher: FakeLauncher, remote: FakeRemote
) -> None:
    launcher.compile(*_ARGV)
    other = {
        "image": "toolchain@sha256:" + "b" * 64,
        "isolation": "qemu/tcg",
        "tenant": "other",
    }[what]
    remote.current = dataclasses.replace(FARM, **{what: other})
    launcher.compile(*_ARGV)
    assert len(remote.requests) == 2


def test_remote_and_local_results_never_answer_for_each_other(
    launcher: FakeLauncher, remote: FakeRemote, cache: Cache
) -> None:
    remote.current = None
    assert launcher.compile(*_ARGV).answer == "run"
    remote.current = FARM
    assert launcher.compile(*_ARGV).answer == "done"
    assert len(remote.requests) == 1
    remote.current = None
    assert launcher.compile(*_ARGV).answer == "done"
    counters = cache.counters()
    assert (counters["hit.local"], counters["miss.local"]) == (1, 1)
    assert counters["miss.remote.executed"] == 1


def test_a_failure_falls_back_to_the_local_compiler_and_is_counted(
    launcher: FakeLauncher, remote: FakeRemote, cache: Cache
) -> None:
    remote.failure = RemoteFailure("guest-lost", "the guest died")
    first = launcher.compile(*_ARGV)
    assert (first.answer, first.exit_code) == ("run", 0)
    assert b"hpcc" not in first.stderr
    assert launcher.compile(*_ARGV).answer == "done"
    assert cache.counters()["fallback.guest-lost"] == 2


def test_a_farm_that_keeps_failing_is_left_alone_for_a_while(
    launcher: FakeLauncher, remote: FakeRemote, cache: Cache
) -> None:
    remote.failure = RemoteFailure("unreachable", "nobody listens")
    for _ in range(5):
        launcher.compile(*_ARGV)
    assert len(remote.requests) == 3
    assert cache.counters()["fallback.breaker"] == 2


def test_a_compile_that_fails_there_is_tried_by_the_users_own_compiler(
    launcher: FakeLauncher, remote: FakeRemote, cache: Cache
) -> None:
    remote.exit_code = 1
    ended = launcher.compile(*_ARGV)
    assert (ended.answer, ended.exit_code) == ("run", 0)
    assert cache.counters()["fallback.exit-code"] == 1


def test_without_permission_to_fall_back_the_build_is_told_why(
    make_cache: Callable[..., Cache], launcher: FakeLauncher, remote: FakeRemote
) -> None:
    launcher.handler = make_cache(remote, Settings(remote=RemoteSettings(fallback="never")))
    remote.failure = RemoteFailure("quota", "come back later")
    ended = launcher.compile(*_ARGV)
    assert (ended.answer, ended.exit_code) == ("done", 1)
    assert b"come back later" in ended.stderr
    assert b"quota" in ended.stderr
    assert not (launcher.cwd / "out.o").exists()


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("gcc", "-march=native", *_ARGV[1:]), "native"),
        (("gcc", *_ARGV[1:-1], "/tmp/elsewhere.o"), "outside-root"),
        (("gcc", "--sysroot=/", *_ARGV[1:]), "sysroot"),
    ],
)
def test_what_cannot_leave_this_machine_stays_here(
    argv: tuple[str, ...], reason: str, launcher: FakeLauncher, remote: FakeRemote, cache: Cache
) -> None:
    assert launcher.compile(*argv).answer == "run"
    assert launcher.compile(*argv).answer == "done"
    assert remote.requests == []
    assert cache.counters()[f"fallback.{reason}"] == 2
    Path("/tmp/elsewhere.o").unlink(missing_ok=True)
    Path("/tmp/elsewhere.d").unlink(missing_ok=True)


def test_a_header_outside_the_root_stays_here(
    launcher: FakeLauncher, remote: FakeRemote, cache: Cache
) -> None:
    (launcher.cwd.parent / "secret.h").write_text("#define SECRET 1\n")
    (launcher.cwd / "src/up.c").write_text('#include "../../secret.h"\nint i;\n')
    launcher.compile("gcc", "-c", "src/up.c")
    assert remote.requests == []
    assert cache.counters()["fallback.outside-root"] == 1


def test_a_link_out_of_the_root_stays_here(
    launcher: FakeLauncher, remote: FakeRemote, cache: Cache, project: Any
) -> None:
    outside = launcher.cwd.parent / "secret.h"
    outside.write_text("#define SECRET 1\n")
    (launcher.cwd / "src/link.h").symlink_to(outside)
    project.write("src/up.c", '#include "link.h"\nint i;\n')
    project.settle()
    launcher.compile("gcc", "-c", "src/up.c")
    assert remote.requests == []
    assert cache.counters()["fallback.symlink-outside-root"] == 1


def test_a_link_inside_the_root_travels_as_a_file(
    launcher: FakeLauncher, remote: FakeRemote, project: Any
) -> None:
    (launcher.cwd / "src/link.h").symlink_to("deep/inner.h")
    project.write("src/in.c", '#include "link.h"\nconst char *n = NAME;\n')
    project.settle()
    assert launcher.compile("gcc", "-c", "src/in.c").answer == "done"
    assert [i.path for i in remote.requests[0].inputs] == ["src/in.c", "src/link.h"]


def test_diagnostics_of_the_guest_name_this_machines_files(launcher: FakeLauncher) -> None:
    path = f"{launcher.cwd}/src/main.c"
    ended = launcher.compile("gcc", "-Wall", "-Iinc", "-c", path)
    assert ended.answer == "done"
    assert path.encode() + b":" in ended.stderr


def test_the_root_is_found_by_a_marker_one_can_trust(tmp_path: Path) -> None:
    deep = tmp_path / "a/b/c"
    deep.mkdir(parents=True)
    (tmp_path / "a/.hpcc").write_text("")
    start, home = os.fsencode(deep), os.fsencode(tmp_path / "nobody")
    assert find_root(start, home) == os.fsencode(tmp_path / "a")
    assert find_root(start, os.fsencode(tmp_path / "a/b")) == start  # not beyond home
    (tmp_path / "a/b").chmod(0o777)
    assert find_root(start, home) == start  # not through a world-writable directory
    (tmp_path / "a/b").chmod(0o755)
    (tmp_path / "a/.hpcc").chmod(0o666)
    assert find_root(start, home) == start


def test_a_cancel_during_planning_leaves_no_request(
    launcher: FakeLauncher, remote: FakeRemote, cache: Cache
) -> None:
    cache.begin(launcher.request(_ARGV), lambda: True)
    assert remote.requests == []


@pytest.mark.parametrize("argv", [("gcc", "-c", "src/low.S"), ("g++", "-c", "src/tool.cc")])
def test_assembler_and_cxx_go_remote_too(
    argv: tuple[str, ...], launcher: FakeLauncher, cache: Cache
) -> None:
    assert launcher.compile(*argv).answer == "done"
    assert launcher.compile(*argv).answer == "done"
    counters = cache.counters()
    assert (counters["miss.remote.executed"], counters["hit.remote"]) == (1, 1)


def test_each_input_travels_with_the_digest_it_was_planned_with(
    launcher: FakeLauncher, remote: FakeRemote
) -> None:
    assert launcher.compile(*_ARGV).answer == "done"
    for item in remote.requests[0].inputs:
        assert item.sha256 == hashlib.sha256(Path(item.host_path).read_bytes()).hexdigest()


def test_a_file_edited_this_instant_is_compiled_on_the_farm_as_it_is(
    launcher: FakeLauncher, remote: FakeRemote, cache: Cache
) -> None:
    source = launcher.cwd / "src/main.c"
    for number in range(3):
        text = source.read_text()
        source.write_text(f"{text}int added_{number};\n")
        assert launcher.compile(*_ARGV).answer == "done"
        assert f"added_{number}".encode() in (launcher.cwd / "out.o").read_bytes()
    counters = cache.counters()
    assert counters["miss.remote.executed"] == len(remote.requests) == 3
    assert not [name for name in counters if name.startswith("fallback.")]


def test_inputs_that_change_under_the_plan_do_not_close_the_farm(
    launcher: FakeLauncher, remote: FakeRemote, cache: Cache
) -> None:
    remote.failure = RemoteFailure("input-changed", "an input changed since it was read")
    for number in range(4):
        assert launcher.compile(*_ARGV, f"-DN={number}").answer == "run"
    assert cache.counters()["fallback.input-changed"] == 4
    remote.failure = None
    assert launcher.compile(*_ARGV, "-DN=9").answer == "done"
