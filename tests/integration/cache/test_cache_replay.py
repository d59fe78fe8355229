"""Replayed hits of a real daemon equal the bare compile, whatever changes in between.

Each case establishes a replay, which the daemon's counter confirms, changes one thing, and compiles
through hpcc and bare.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcc_testkit.cache.launcher import build_launcher, paths_of
from hpcc_testkit.cache.replayed import Build, ReplayDaemon, clear, fill, rewrite_unseen, settle

ENGINES = {"native": ("native", 1), "python": ("python", 1), "processes": ("native", 3)}
ARGV = [
    "gcc",
    "-O1",
    "-Iearly",
    "-Ilate",
    "-Ilink",
    "-Iinc",
    "-MD",
    "-MF",
    "out/a.d",
    "-c",
    "src/a.c",
    "-o",
    "out/a.o",
]


@dataclass
class World:
    daemon: ReplayDaemon
    root: Path

    def build(self, name: str, argv: list[str] | None = None, **options: object) -> Build:
        work = self.root / name
        return Build(self.daemon, work, argv or ARGV, **options)  # type: ignore[arg-type]  # by name


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_launcher(tmp_path_factory.mktemp("launcher"))


# Each helper process learns by itself, so establishing takes some compiles: a few cases will do.
two = pytest.mark.parametrize("world", ["native", "python"], indirect=True)
three = pytest.mark.parametrize("world", ENGINES, indirect=True)


@pytest.fixture(scope="module")
def world(
    request: pytest.FixtureRequest, launcher: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    engine, processes = ENGINES[request.param]
    root = tmp_path_factory.mktemp(request.param)
    (root / "h").mkdir()
    daemon = ReplayDaemon(launcher, root / "h", engine, processes)
    for name in [*CHANGES, *OUTPUT_STATES, *COMMANDS, *ENVIRONMENTS, *OTHERS]:
        fill(root / name)
    daemon.start()
    settle()
    yield World(daemon, root)
    daemon.stop()


# ---- nothing changes ----

COMMANDS = {
    "plain": "gcc -c src/a.c -Iinc -o out/a.o",
    "debug-all-deps": "gcc -g -O2 -Wall -Iinc -MMD -MP -MF out/a.d -c src/a.c -o out/a.o",
    "further-outputs": "gcc -Iinc -g -gsplit-dwarf -fstack-usage -c src/a.c -o out/a.o",
    "clang": "clang -O1 -Wall -Iinc -MD -MF out/a.d -c src/a.c -o out/a.o",
    "more-to-say-than-fits": "gcc -Wall -c src/loud.c -o out/a.o",
    "clang-more-to-say": "clang -Wall -c src/loud.c -o out/a.o",
    "check": "gcc -Wall -Iinc -fsyntax-only src/a.c",
    "text": "gcc -E -g -C -Iinc src/a.c -o out/a.i",
}


@two
@pytest.mark.parametrize("command", COMMANDS)
def test_a_replayed_hit_is_the_bare_compile(world: World, command: str) -> None:
    build = world.build(command, COMMANDS[command].split())
    build.establish()
    seen = build.same()
    assert seen.exit_code == 0
    if "more" in command:
        assert len(seen.stderr) > 4096
    # Over what is there, as well.
    build.prepare = lambda _work: None
    assert build.replays() or build.replays()


# ---- something changes ----


def appear(name: str, text: str) -> Callable[[Path], None]:
    def change(work: Path) -> None:
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_text(text)

    return change


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    return lambda work: rewrite_unseen(work / name, old, new)


def rename_over(work: Path) -> None:
    old = (work / "src/util.h").stat()
    new = work / "src/new.h"
    new.write_text("#define UTIL 2\n")
    os.utime(new, ns=(old.st_atime_ns, old.st_mtime_ns))
    new.replace(work / "src/util.h")


def link_over(work: Path) -> None:
    (work / "src/util.h").unlink()
    (work / "src/util.h").symlink_to("../two/linked.h")


def other_directory(work: Path) -> None:
    old = work.with_name(work.name + "-old")
    work.rename(old)
    shutil.copytree(old, work, symlinks=True)
    rewrite_unseen(work / "src/util.h", "UTIL 1", "UTIL 2")


def other_include_directory(work: Path) -> None:
    (work / "inc").rename(work / "old-inc")
    (work / "inc").mkdir()
    (work / "inc/conf.h").write_text("#define CONF 2\n")


CHANGES = {
    "header-of-same-size-and-mtime": edit("src/util.h", "UTIL 1", "UTIL 2"),
    "source-of-same-size-and-mtime": edit("src/a.c", "100", "200"),
    "header-renamed-over": rename_over,
    "header-becomes-a-link": link_over,
    "header-deleted": lambda work: (work / "src/util.h").unlink(),
    "header-becomes-a-directory": lambda work: (
        (work / "src/util.h").unlink(),
        (work / "src/util.h").mkdir(),
    ),
    "header-earlier": appear("early/conf.h", "#define CONF 3\n"),
    "header-earlier-in-a-new-directory": appear("late/conf.h", "#define CONF 3\n"),
    "search-directory-becomes-a-file": lambda work: (
        (work / "early").rmdir(),
        appear("early", "")(work),
    ),
    "has-include-becomes-a-directory": lambda work: (
        (work / "src/asked-for.h").unlink(),
        (work / "src/asked-for.h").mkdir(),
    ),
    "has-include-appears": appear("src/extra.h", "#define EXTRA 5\n"),
    "include-directory-replaced": other_include_directory,
    "working-directory-replaced": other_directory,
    "source-deleted": lambda work: (work / "src/a.c").unlink(),
}


@two
@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_the_next_compile_is_right(world: World, change: str) -> None:
    build = world.build(change)
    build.establish()
    CHANGES[change](build.work)
    assert not build.replays()
    for _ in range(3):
        build.same()


@two
def test_a_search_directory_behind_a_link_may_lead_elsewhere(world: World) -> None:
    build = world.build("link", ["gcc", "-Ilink", "-c", "src/linked.c", "-o", "out/a.o"])
    build.establish()
    (build.work / "link").unlink()
    (build.work / "link").symlink_to("two")
    assert not build.replays()


@two
def test_a_precompiled_header_is_looked_up_each_time(world: World) -> None:
    """A replay would put one in place whose record was evicted."""
    words = "clang-19 -Xclang -fno-pch-timestamp -x c-header src/util.h -o out/util.h.pch"
    build = world.build("header", words.split())
    assert not any(build.replays() for _ in range(4))


@three
def test_a_name_that_appears_where_every_compile_leaves_something_is_seen(world: World) -> None:
    build = world.build("busy", ["gcc", "-Iout", "-Iinc", "-c", "src/a.c", "-o", "out/a.o"])
    build.establish()

    def prepare(work: Path) -> None:
        clear(work)
        (work / "out/conf.h").write_text("#define CONF 8\n")

    before = build.same()
    build.prepare = prepare
    assert not build.replays()
    assert build.same().files["a.o"] != before.files["a.o"]


@two
def test_a_compiler_that_is_replaced_behind_its_name_is_another(world: World) -> None:
    build = world.build("compiler")
    build.extra_env = {"PATH": f"{build.work}/current:{os.environ['PATH']}"}
    build.establish()
    before = build.same()
    (build.work / "current").unlink()
    (build.work / "current").symlink_to("v2")
    assert not build.replays()
    assert build.same() != before


@two
def test_a_driver_that_is_overwritten_is_another(world: World) -> None:
    # Clang, since it holds its compiler proper: a copy of GCC's driver would not find its cc1.
    build = world.build("driver", ["clang", "-Iinc", "-c", "src/a.c", "-o", "out/a.o"])
    driver = build.work / "bin" / "clang"
    shutil.copy(os.path.realpath("/usr/bin/clang"), driver)
    build.extra_env = {"PATH": f"{build.work}/bin:{os.environ['PATH']}"}
    settle()
    build.establish()
    before = build.same()
    # Into the same file: its directory, where programs are looked for, stays as it is.
    shutil.copy(os.path.realpath("/usr/bin/clang-19"), driver)
    assert not build.replays()
    assert build.same() != before


@two
def test_an_assembler_that_appears_earlier_on_the_path_is_used(world: World) -> None:
    build = world.build("assembler")
    build.extra_env = {"PATH": f"{build.work}/bin:{os.environ['PATH']}"}
    build.establish()
    before = build.same()
    other = build.work / "bin" / "as"
    other.write_text('#!/bin/sh\nexec /usr/bin/as --defsym another=1 "$@"\n')
    other.chmod(0o755)
    assert not build.replays()
    assert build.same() != before


@two
def test_a_response_file_is_read_each_time(world: World) -> None:
    build = world.build("response-file", ["gcc", "-Iinc", "@args"])
    for _ in range(4):
        assert not build.replays()
    (build.work / "args").write_text("-DUTIL=9 -c src/a.c -o out/a.o\n")
    build.same()


@two
def test_files_younger_than_two_seconds_are_not_remembered(world: World) -> None:
    build = world.build("young")
    (build.work / "src/util.h").write_text("#define UTIL 7\n")
    for _ in range(2):
        build.same()
    rewrite_unseen(build.work / "src/util.h", "UTIL 7", "UTIL 8")
    build.same()


# ---- the outputs are in another state ----


def hard_link(path: Path) -> None:
    path.with_name("other").write_text("kept")
    path.hardlink_to(path.with_name("other"))


def link(path: Path) -> None:
    path.with_name("other").write_text("kept")
    path.symlink_to("other")


def longer(path: Path) -> None:
    path.write_bytes(b"x" * 100_000)
    path.chmod(0o600)


OUTPUT_STATES: dict[str, Callable[[Path], object]] = {
    "hard-link": hard_link,
    "symlink": link,
    "dangling-link": lambda path: path.symlink_to("nothing"),
    "directory": lambda path: path.mkdir(),
    "longer-file": longer,
    "read-only": lambda path: (path.write_text("old"), path.chmod(0o444)),
    "no-place": lambda path: path.parent.rmdir(),
}


@two
@pytest.mark.parametrize("output", ["a.o", "a.d"])
@pytest.mark.parametrize("state", OUTPUT_STATES)
def test_whatever_is_in_the_way_of_an_output_the_end_is_the_bare_one(
    world: World, state: str, output: str
) -> None:
    build = world.build(state)
    build.establish()

    def prepare(work: Path) -> None:
        clear(work)
        OUTPUT_STATES[state](work / "out" / output)

    build.prepare = prepare
    build.same()
    build.same()
    build.prepare = clear
    build.establish()


@two
@pytest.mark.timeout(60)
def test_a_fifo_in_the_way_is_left_to_the_compiler(world: World) -> None:
    build = world.build("fifo")
    build.establish()
    readers: list[int] = []

    def prepare(work: Path) -> None:
        clear(work)
        os.mkfifo(work / "out/a.d")
        readers.append(os.open(work / "out/a.d", os.O_RDWR | os.O_NONBLOCK))

    build.prepare = prepare
    assert not build.replays()
    contents = {os.read(reader, 1 << 16) for reader in readers}
    for reader in readers:
        os.close(reader)
    assert len(contents) == 1


# ---- the surroundings change ----

ENVIRONMENTS = {
    "cpath": {"CPATH": "early"},
    "locale": {"LC_ALL": "C.UTF-8"},
    "epoch": {"SOURCE_DATE_EPOCH": "1"},
    "temporary": {"TMPDIR": "/var/tmp"},
}


@two
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_another_environment_is_another_request(world: World, name: str) -> None:
    build = world.build(name)
    (build.work / "early/conf.h").write_text("#define CONF 4\n") if name == "cpath" else None
    build.argv = [arg for arg in build.argv if arg != "-Iearly"]
    if name == "cpath":
        settle()
    build.establish()
    build.extra_env = ENVIRONMENTS[name]
    assert not build.replays()


@three
def test_another_umask_is_another_request(world: World) -> None:
    build = world.build("umask")
    build.establish()
    build.umask = 0o077
    assert not build.replays()
    build.establish()
    build.umask = 0o022
    assert build.same().files["a.o"][0] & 0o777 == 0o644


OTHERS = [
    "link",
    "header",
    "busy",
    "compiler",
    "driver",
    "assembler",
    "response-file",
    "young",
    "fifo",
    "umask",
    "store",
    "several",
]


@three
@pytest.mark.timeout(240)
def test_what_happens_to_the_store_and_the_daemon(world: World, launcher: Path) -> None:
    build, daemon = world.build("store"), world.daemon
    paths = paths_of(daemon.env)
    build.establish()
    cli = launcher.with_name("hpcc-cli")
    subprocess.run([cli, "clean"], env=daemon.env, check=True, capture_output=True, timeout=60)
    assert not build.replays()
    build.establish()
    # Renamed first: the daemon may write while it is deleted.
    shutil.rmtree(paths.cache.rename(paths.cache.with_name("gone")))
    for _ in range(3):
        build.same()
    daemon.stop()
    daemon.start()
    assert not build.replays()
    build.establish()
    paths.farm_file.parent.mkdir(parents=True, exist_ok=True)
    paths.farm_file.write_text("{}")
    assert not build.replays()
    paths.farm_file.unlink()
    build.same()


@two
def test_a_command_with_several_sources_is_one_replay(world: World) -> None:
    def prepare(work: Path) -> None:
        for path in (work / "out").iterdir():
            path.unlink()

    build = world.build(
        "several",
        ["gcc", "-O1", "-I../inc", "-I../one", "-MMD", "-c", "../src/a.c", "../src/linked.c"],
        prepare=prepare,
        cwd="out",
    )
    build.establish()
    assert {*build.same().files} == {"a.o", "a.d", "linked.o", "linked.d"}
    rewrite_unseen(build.work / "src/util.h", "UTIL 1", "UTIL 2")
    assert not build.replays()
    settle()
    build.establish()
    (build.work / "one/linked.h").unlink()
    assert not build.replays()
