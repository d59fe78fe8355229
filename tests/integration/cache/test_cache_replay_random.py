"""Random edits between replayed hits: each compile through a real daemon equals the bare compile.

Many trees are edited at once, so that all age in one wait. HPCC_TEST_SEED and HPCC_TEST_ROUNDS give
other and longer runs. A failure names its seed.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc_testkit.cache.launcher import build_launcher
from hpcc_testkit.cache.replayed import Build, ReplayDaemon, clear, rewrite_unseen, settle

SEED = int(os.environ.get("HPCC_TEST_SEED", "1"))
ROUNDS = int(os.environ.get("HPCC_TEST_ROUNDS", "2"))
TREES = 12
HEADERS = ("h0.h", "h1.h", "sub/h2.h", "h3.h")
SEARCHED = ("i1", "i2", "i3")
DIRECTORIES = ("src", *SEARCHED)
COMMANDS = (
    "gcc -Ii1 -Ii2 -isystem i3 -MD -MF out/a.d -c src/a.c -o out/a.o",
    "clang -Ii1 -isystem i2 -Ii3 -MMD -MF out/a.d -c src/a.c -o out/a.o",
    "gcc -iquote i1 -Ii2 -Ii2 -idirafter i3 -g -c src/a.c -o out/a.o",
)
ASKED = "#if __has_include({0})\n#include {0}\nint {1};\n#endif\n"
SOURCE = "".join(
    ASKED.format(name, f"v{i}")
    for i, name in enumerate(('"h0.h"', "<h1.h>", '"sub/h2.h"', "<h3.h>"))
)
LINES = (
    "#define Y%d 1\n",
    "extern int e%d;\n",
    "#pragma once\nextern int w%d;\n",
    "#if __has_include(<h3.h>) && !defined S%d\n#define S%d\n#include <h3.h>\n#endif\n",
)

Edit = Callable[[random.Random, Path, Path], None]


def text_of(rnd: random.Random) -> str:
    return rnd.choice(LINES).replace("%d", str(rnd.randrange(10)))


def write(rnd: random.Random, header: Path, _tree: Path) -> None:
    header.parent.mkdir(parents=True, exist_ok=True)
    header.write_text(text_of(rnd))


def write_unseen(_rnd: random.Random, header: Path, _tree: Path) -> None:
    text = header.read_text()
    rewrite_unseen(header, text, text.replace("1", "7").replace("0", "6"))


def replace(rnd: random.Random, header: Path, _tree: Path) -> None:
    header.with_name("new").write_text(text_of(rnd))
    header.with_name("new").replace(header)


def move(rnd: random.Random, header: Path, tree: Path) -> None:
    header.rename(tree / rnd.choice(DIRECTORIES) / rnd.choice(HEADERS))


def make_directory(_rnd: random.Random, header: Path, _tree: Path) -> None:
    header.unlink(missing_ok=True)
    header.mkdir()


def make_link(rnd: random.Random, header: Path, tree: Path) -> None:
    header.unlink(missing_ok=True)
    header.symlink_to(tree / rnd.choice(DIRECTORIES) / rnd.choice(HEADERS))


def swap_directories(rnd: random.Random, _header: Path, tree: Path) -> None:
    one, other = rnd.sample(SEARCHED, 2)
    (tree / one).rename(tree / "aside")
    (tree / other).rename(tree / one)
    (tree / "aside").rename(tree / other)


def link_directory(rnd: random.Random, _header: Path, tree: Path) -> None:
    directory = tree / rnd.choice(SEARCHED)
    directory.rename(tree / f"old-{rnd.randrange(10**9)}")
    directory.symlink_to(rnd.choice(DIRECTORIES))


EDITS: tuple[Edit, ...] = (
    write,
    write,
    write_unseen,
    replace,
    move,
    lambda _rnd, header, _tree: header.unlink(),
    make_directory,
    make_link,
    swap_directories,
    link_directory,
)


def plant(rnd: random.Random, tree: Path) -> None:
    for directory in DIRECTORIES:
        (tree / directory / "sub").mkdir(parents=True)
    for header in HEADERS:
        (tree / rnd.choice(DIRECTORIES) / header).write_text(text_of(rnd))
    (tree / "src/a.c").write_text(SOURCE)
    clear(tree)


@pytest.mark.timeout(300 + 100 * ROUNDS)
@pytest.mark.parametrize("engine", ["native", "python"])
def test_after_any_edits_a_compile_is_the_bare_one(engine: str, tmp_path: Path) -> None:
    rnd = random.Random(f"{SEED}-{engine}")
    daemon = ReplayDaemon(build_launcher(tmp_path / "launcher"), tmp_path / "h", engine)
    daemon.directory.mkdir()
    daemon.start()
    builds = [Build(daemon, tmp_path / f"t{i}", rnd.choice(COMMANDS).split()) for i in range(TREES)]
    for build in builds:
        plant(rnd, build.work)
    try:
        for turn in range(ROUNDS):
            settle()
            for build in builds:
                edit_under_replays(rnd, build, f"seed {SEED}, turn {turn}")
        # Without replays the test would say nothing of them: two in three compiles before an edit.
        assert daemon.replayed() > TREES * ROUNDS / 2
    finally:
        daemon.stop()


def edit_under_replays(rnd: random.Random, build: Build, where: str) -> None:
    for _ in range(3):
        build.same()
    edit = rnd.choice(EDITS)
    header = build.work / rnd.choice(DIRECTORIES) / rnd.choice(HEADERS)
    with contextlib.suppress(OSError):  # it does not fit this tree
        edit(rnd, header, build.work)
    for _ in range(rnd.choice([1, 2])):
        try:
            build.same()
        except AssertionError as error:
            error.add_note(f"{where}, {build.work.name}: {edit} {header}")
            raise
