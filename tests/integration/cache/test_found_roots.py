"""Projects without a marker travel below the root that is found for them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache
from hpcc.cache.replay.engine import Outcome
from hpcc.cache.results.records_read import read_records
from hpcc.config.paths import Paths
from hpcc.core import RemoteOutcome, RemoteRequest, RemoteResult
from hpcc_testkit.cache.compiles import Compiled, FakeLauncher, FakeRemote, run_bare

CMAKE = """
cmake_minimum_required(VERSION 3.18)
project(tiny C CXX)
file(WRITE ${CMAKE_BINARY_DIR}/gen/gen.h "#define GEN 4\\n")
add_library(one src/one.c src/two.cc)
target_include_directories(one PUBLIC include ${CMAKE_BINARY_DIR}/gen)
add_library(two SHARED src/one.c)
target_include_directories(two PUBLIC include ${CMAKE_BINARY_DIR}/gen)
"""
FILES = {
    "CMakeLists.txt": CMAKE,
    "src/one.c": '#include <assert.h>\n#include "pub.h"\n#include "gen.h"\n'
    "int one(int x) { assert(x); return PUB + GEN; }\n",
    "src/two.cc": '#include <string>\n#include "pub.h"\nstd::string two() { return __FILE__; }\n',
    "include/pub.h": "#define PUB 1\n",
}
FRAME = b"the bytes of a request"
QUIET_SECONDS = 2.1
ARGV = ("gcc", "-g", "-I../include", "-Igen", "-c", "../src/one.c", "-o", "one.o")


@pytest.fixture
def remote() -> FakeRemote:
    return FakeRemote()


@pytest.fixture
def cache(make_cache: Callable[..., Cache], remote: FakeRemote, paths: Paths) -> Cache:
    paths.farm_file.parent.mkdir(parents=True, exist_ok=True)
    paths.farm_file.write_text("{}")  # FakeRemote has the farm; only the file's state counts here
    return make_cache(remote)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tiny"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "build/gen").mkdir(parents=True)
    (root / "build/gen/gen.h").write_text("#define GEN 4\n")
    _age(root)
    return root


@pytest.fixture
def launcher(cache: Cache, tree: Path) -> FakeLauncher:
    return FakeLauncher(handler=cache, cwd=tree / "build")


def _age(root: Path) -> None:
    old = time.time() - 3600
    for path in root.rglob("*"):
        os.utime(path, (old, old), follow_symlinks=False)
    time.sleep(0.08)


def _where(remote: FakeRemote) -> tuple[str, ...]:
    """Return the working directory of each request, relative to the root that was sent."""
    return tuple(request.cwd for request in remote.requests)


@pytest.mark.parametrize("generator", ["Ninja", "Unix Makefiles"])
@pytest.mark.parametrize("way", [".git", "CMakeCache.txt"])
def test_a_cmake_build_without_a_marker_travels_with_the_bytes_of_a_build_here(
    generator: str, way: str, tree: Path, cache: Cache, remote: FakeRemote, paths: Paths
) -> None:
    if way == ".git":
        subprocess.run(["git", "init", "-q", tree], check=True)
        (tree / ".gitignore").write_text("/build*/\n")
    build = tree / "build-it"
    subprocess.run(
        ["cmake", "-S", tree, "-B", build, "-G", generator, "-DCMAKE_BUILD_TYPE=Debug",
         "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"],
        check=True, capture_output=True,
    )  # fmt: skip
    _age(tree)
    commands = json.loads((build / "compile_commands.json").read_text())
    assert len(commands) == 3
    for command in commands:
        argv = shlex.split(command["command"])
        output = Path(command["directory"]) / argv[argv.index("-o") + 1]
        output.parent.mkdir(parents=True, exist_ok=True)
        launcher = FakeLauncher(handler=cache, cwd=Path(command["directory"]))
        assert run_bare(argv, cwd=launcher.cwd)[0] == 0
        bare = output.read_bytes()
        output.unlink()
        assert launcher.compile(*argv).answer == "done", cache.counters()
        assert output.read_bytes() == bare
        output.unlink()
        assert launcher.compile(*argv).answer == "done"
        assert output.read_bytes() == bare
    counters = cache.counters()
    assert (counters["miss.remote.executed"], counters["hit.remote"]) == (3, 3)
    cache.close()
    roots = {record.root for record in read_records(os.fspath(paths.cache)) if record.root}
    assert roots == {f"{tree} ({way}), called {tree} in objects"}


def test_without_a_root_the_working_directory_is_too_small(
    launcher: FakeLauncher, cache: Cache, remote: FakeRemote
) -> None:
    assert launcher.compile(*ARGV).answer == "run"
    assert (remote.requests, cache.counters()["fallback.outside-root"]) == ([], 1)


def test_a_found_root_changes_no_compile_of_this_machine(
    launcher: FakeLauncher, tree: Path, remote: FakeRemote
) -> None:
    remote.current = None
    (tree / ".git").mkdir()
    seen: list[tuple[bytes, ...]] = []
    launcher.before_run = lambda run: seen.append(run.argv)
    assert launcher.compile(*ARGV).answer == "run"
    data = (launcher.cwd / "one.o").read_bytes()
    run_bare(ARGV, cwd=launcher.cwd)
    assert (launcher.cwd / "one.o").read_bytes() == data
    assert not any(b"prefix-map" in argument for argument in seen[0])


def _change(tree: Path, what: str) -> None:
    match what:
        case "git-goes":
            (tree / ".git").rmdir()
        case "git-init-in-the-build":
            (tree / "build/.git").mkdir()
        case "git-init-beside-the-source":
            (tree / "src/.git").mkdir()
        case "marker":
            (tree / ".hpcc").touch()
        case "owner":
            os.chown(tree / ".git", 12345, -1)
        case "mode":
            (tree / ".git").chmod(0o777)
        case "git-init-at-the-root":
            (tree / ".git").mkdir()
        case "cache-changes":
            path = tree / "build/CMakeCache.txt"
            path.write_text(path.read_text().replace("tiny\n", "tiny/src\n", 1))
        case _:
            raise AssertionError(what)


def _cmake_cache(tree: Path) -> None:
    (tree / "build/CMakeCache.txt").write_text(
        f"CMAKE_HOME_DIRECTORY:INTERNAL={tree}\nCMAKE_CACHEFILE_DIR:INTERNAL={tree}/build\n"
    )


def _compile(launcher: FakeLauncher) -> None:
    launcher.handler.begin(launcher.request(ARGV)._replace(frame=FRAME), lambda: False)


def _replay(cache: Cache) -> int:
    found = cache.replays.find(FRAME)
    if found is None:
        return -1
    ours, theirs = socket.socketpair()
    with ours, theirs:
        return cache.replays.engine.replay(found.prepared, theirs.fileno())


@pytest.mark.parametrize(
    ("before", "what", "after"),
    [
        ("git", "git-goes", None),
        ("git", "git-init-in-the-build", "build"),
        ("git", "git-init-beside-the-source", None),
        ("git", "marker", "build"),
        ("git", "owner", None),
        ("git", "mode", None),
        ("cmake", "git-init-at-the-root", "build"),
        ("cmake", "cache-changes", None),
        ("cmake", "marker", "build"),
    ],
)
def test_a_root_that_moves_is_noticed_by_replay_and_lookup(
    before: str,
    what: str,
    after: str | None,
    launcher: FakeLauncher,
    tree: Path,
    cache: Cache,
    remote: FakeRemote,
) -> None:
    if before == "git":
        (tree / ".git").mkdir()
    else:
        _cmake_cache(tree)
    _age(tree)
    _compile(launcher)
    time.sleep(QUIET_SECONDS)
    _compile(launcher)
    assert _replay(cache) == Outcome.DONE
    assert _where(remote) == ("build",)
    _change(tree, what)
    assert _replay(cache) == Outcome.CHANGED
    before_counts = cache.counters()
    ended = launcher.compile(*ARGV)
    if after is None:
        assert (ended.answer, _where(remote)) == ("run", ("build",))
        return
    assert ended.answer == "done"
    # The same root leads to the same result; a marker's object has relative names.
    is_same = what in {"git-init-in-the-build", "git-init-at-the-root"}
    assert cache.counters()["hit.remote"] - before_counts["hit.remote"] == int(is_same)
    assert _where(remote) == (("build",) if is_same else ("build", after))


def test_a_commit_does_not_end_a_replay(launcher: FakeLauncher, tree: Path, cache: Cache) -> None:
    (tree / ".git").mkdir()
    _age(tree)
    _compile(launcher)
    time.sleep(QUIET_SECONDS)
    _compile(launcher)
    (tree / ".git/index").touch()
    assert _replay(cache) == Outcome.DONE


def _stays(
    ended: Compiled, remote: FakeRemote, reason: str, name: str, paths: Paths, cache: Cache
) -> None:
    assert (ended.answer, ended.exit_code, remote.requests) == ("run", 0, [])
    assert cache.counters()[f"fallback.{reason}"] == 1
    cache.close()
    (record,) = read_records(os.fspath(paths.cache))
    assert record.fallback.startswith(f"{reason}: ")
    assert name in record.fallback


@pytest.mark.parametrize(
    ("name", "patterns", "reason"),
    [
        ("include/secret.h", "secret.h\n", "ignored-input"),
        ("keys/secret.h", "/keys/\n", "ignored-input"),
        (".private/secret.h", "", "hidden-input"),
    ],
)
def test_a_file_that_git_ignores_or_that_is_hidden_is_never_sent(
    name: str,
    patterns: str,
    reason: str,
    launcher: FakeLauncher,
    tree: Path,
    cache: Cache,
    remote: FakeRemote,
    paths: Paths,
) -> None:
    subprocess.run(["git", "init", "-q", tree], check=True)
    (tree / ".gitignore").write_text(patterns)
    (tree / name).parent.mkdir(exist_ok=True)
    (tree / name).write_text("#define SECRET 1\n")
    (tree / "src/one.c").write_text(f'#include "../{name}"\nint x = SECRET;\n')
    _age(tree)
    _stays(launcher.compile(*ARGV), remote, reason, f"{tree}/{name}", paths, cache)


def _lack(remote: FakeRemote, line: bytes, header: bytes) -> None:
    """Let each compile on the farm end with the message that a header is missing."""
    compile_there = remote.compile
    told = line + b": fatal error: " + header + b": No such file or directory\n"

    def compile_without(request: RemoteRequest, is_cancelled: Callable[[], bool]) -> RemoteOutcome:
        outcome = compile_there(request, is_cancelled)
        assert isinstance(outcome, RemoteResult)
        return replace(outcome, exit_code=1, stderr=told, outputs=())

    remote.compile = compile_without


def test_a_guest_cannot_ask_for_an_ignored_file(
    launcher: FakeLauncher, tree: Path, remote: FakeRemote
) -> None:
    """The scan does not see the name behind the macro of a header that only the guest has."""
    subprocess.run(["git", "init", "-q", tree], check=True)
    (tree / ".gitignore").write_text("secret.h\n")
    (tree / "include/secret.h").write_text("#define SECRET 1\n")
    _age(tree)
    _lack(remote, b"/src/src/one.c:1:10", b"secret.h")
    assert launcher.compile(*ARGV).answer == "run"
    assert len(remote.requests) == 1
    assert not any("secret" in item.path for item in remote.requests[0].inputs)


def test_a_link_in_the_shells_spelling_of_the_directory_is_what_the_object_says(
    launcher: FakeLauncher, tree: Path, tmp_path: Path, remote: FakeRemote
) -> None:
    (tree / ".git").mkdir()
    (tmp_path / "link").symlink_to(tree)
    launcher.env = {"PWD": f"{tmp_path}/link/build"}
    assert run_bare(ARGV, cwd=launcher.cwd, env=launcher.env)[0] == 0
    bare = (launcher.cwd / "one.o").read_bytes()
    assert b"/link/build" in bare
    assert launcher.compile(*ARGV).answer == "done"
    assert (launcher.cwd / "one.o").read_bytes() == bare
    mixed = (*ARGV[:-1], f"{tree}/build/two.o")
    assert launcher.compile(*mixed).answer == "run"
    assert len(remote.requests) == 1


def _travels(launcher: FakeLauncher, remote: FakeRemote, *flags: str) -> None:
    """Compile bare and for the farm, and compare."""
    argv = (*ARGV[:2], *flags, *ARGV[2:])
    assert run_bare(argv, cwd=launcher.cwd)[0] == 0
    bare = (launcher.cwd / "one.o").read_bytes()
    count = len(remote.requests)
    assert launcher.compile(*argv).answer == "done", launcher.handler.counters()
    assert (launcher.cwd / "one.o").read_bytes() == bare
    assert len(remote.requests) == count + 1


def test_an_inactive_include_that_leaves_the_root_travels_until_the_file_appears(
    launcher: FakeLauncher, tree: Path, tmp_path: Path, remote: FakeRemote
) -> None:
    (tree / ".git").mkdir()
    text = '#ifdef NEVER\n#include "../../away/check.h"\n#endif\n#include "../../near.h"\n'
    (tree / "src/deep/er").mkdir(parents=True)
    (tree / "src/deep/er/own.h").write_text(text)
    (tree / "src/near.h").write_text("#define NEAR 1\n")
    (tree / "src/one.c").write_text('#include "deep/er/own.h"\nint x = NEAR;\n')
    _age(tree)
    _travels(launcher, remote, "-I..", f"-I{tree}")
    argv = (*ARGV[:2], "-I..", f"-I{tree}", *ARGV[2:])
    assert launcher.compile(*argv).answer == "done"
    assert len(remote.requests) == 1  # a hit
    # From `-I<root>` the name leads to the directory above.
    away = tree.parent.parent / "away"
    away.mkdir()
    (away / "check.h").write_text("#define NEAR 5\n")
    try:
        assert launcher.compile(*argv).exit_code == 0
    finally:
        (away / "check.h").unlink()
        away.rmdir()
    assert launcher.handler.counters()["hit.remote"] == 1


@pytest.mark.parametrize("flag", ["-I", "-isystem", "-idirafter"])
def test_a_directory_outside_the_root_travels_while_it_gives_no_header(
    flag: str, launcher: FakeLauncher, tree: Path, tmp_path: Path, remote: FakeRemote
) -> None:
    (tree / ".git").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/unrelated.h").touch()
    _age(tree)
    flags = (flag, f"{tmp_path}/none/at/all", flag, f"{tmp_path}/other")
    _travels(launcher, remote, *flags)
    assert not any("other" in word or "none" in word for word in remote.requests[0].argv)
    argv = (*ARGV[:2], *flags, *ARGV[2:])
    assert launcher.compile(*argv).answer == "done"
    (tmp_path / "none/at/all").mkdir(parents=True)
    (tmp_path / "none/at/all/assert.h").write_text("#define assert(x) (void)7\n")
    time.sleep(0.08)
    assert launcher.compile(*argv).answer == "run"
    assert len(remote.requests) == 1


def test_a_header_outside_the_root_is_named(
    launcher: FakeLauncher,
    tree: Path,
    tmp_path: Path,
    remote: FakeRemote,
    cache: Cache,
    paths: Paths,
) -> None:
    (tree / ".git").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/far.h").write_text("#define FAR 1\n")
    (tree / "src/one.c").write_text("#include <far.h>\nint x = FAR;\n")
    _age(tree)
    argv = (*ARGV[:2], "-isystem", f"{tmp_path}/other", *ARGV[2:])
    assert launcher.compile(*argv).answer == "run"
    cache.close()
    (record,) = read_records(os.fspath(paths.cache))
    assert record.fallback == f"outside-root: {tmp_path}/other"


def test_a_header_that_the_image_lacks_is_named_with_file_and_line(
    launcher: FakeLauncher, tree: Path, remote: FakeRemote, cache: Cache, paths: Paths
) -> None:
    (tree / ".git").mkdir()
    _age(tree)
    _lack(remote, b"/src/src/one.c:12:10", b"zlib.h")
    assert launcher.compile(*ARGV).answer == "run"
    cache.close()
    (record,) = read_records(os.fspath(paths.cache))
    assert record.fallback == f"exit-code: {tree}/src/one.c:12: the image has no zlib.h"


def test_two_clones_send_one_request_where_no_name_shows(
    tree: Path, make_cache: Callable[..., Cache], remote: FakeRemote
) -> None:
    """`assert` shows the name of its file, unless NDEBUG takes it away."""
    (tree / ".git").mkdir()
    _age(tree)
    clone = tree.parent / "another-clone"
    shutil.copytree(tree, clone, symlinks=True)
    for place in (tree, clone):
        launcher = FakeLauncher(handler=make_cache(remote), cwd=place / "build")
        for flags in (("-O2", "-DNDEBUG"), ("-O2",), ("-g", "-DNDEBUG")):
            argv = ("gcc", *flags, *ARGV[2:-4], "-c", f"{place}/src/one.c", "-o", "one.o")
            assert run_bare(argv, cwd=launcher.cwd)[0] == 0
            bare = (launcher.cwd / "one.o").read_bytes()
            assert launcher.compile(*argv).answer == "done"
            assert (launcher.cwd / "one.o").read_bytes() == bare
    asked = [(r.argv, r.cwd, [(i.path, i.sha256) for i in r.inputs]) for r in remote.requests]
    assert [one == other for one, other in zip(asked[:3], asked[3:], strict=True)] == [
        True,
        False,
        False,
    ]


def test_a_precompiled_header_in_a_directory_outside_the_root_is_noticed(
    launcher: FakeLauncher, tree: Path, tmp_path: Path, remote: FakeRemote
) -> None:
    (tree / ".git").mkdir()
    (tmp_path / "other").mkdir()
    _age(tree)
    argv = (*ARGV[:2], f"-I{tmp_path}/other", *ARGV[2:])
    assert launcher.compile(*argv).answer == "done"
    (tmp_path / "other/pub.h.gch").touch()
    time.sleep(0.08)
    assert launcher.compile(*argv).answer != "done"
    assert len(remote.requests) == 1
