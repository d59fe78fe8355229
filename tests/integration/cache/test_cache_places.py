"""A name resolves differently while a compile runs: the result must not be stored.

All files are old, so their times do not show the change.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcc.cache.cache import Cache
from hpcc.cache.results.records_read import read_records
from hpcc.config.paths import Paths
from hpcc_testkit.cache.compiles import FakeLauncher, counted, run_bare

_ARGV = ("gcc", "-Ifirst", "-Ilink", "-Itop/inc", "-c", "src/main.c", "-o", "main.o")


def _rename(root: Path, old: str, new: str) -> None:
    os.rename(root / old, root / new)


def _swap(root: Path, one: str, two: str) -> None:
    _rename(root, one, "aside")
    _rename(root, two, one)
    _rename(root, "aside", two)


def _lead(root: Path, name: str, target: str) -> None:
    (root / "new-link").symlink_to(target)
    os.replace(root / "new-link", root / name)


_CHANGES: dict[str, Callable[[Path], None]] = {
    "a-directory-of-headers": lambda root: _swap(root, "top/inc", "other"),
    "the-directory-above": lambda root: _swap(root, "top", "top2"),
    "the-sources": lambda root: _swap(root, "src", "src2"),
    "a-link-to-a-directory": lambda root: _lead(root, "link", "far/two"),
    "a-link-to-a-file": lambda root: _lead(root, "top/inc/c.h", f"{root}/far/c2.h"),
    "what-a-link-leads-through": lambda root: _swap(root, "far", "far2"),
    "a-link-behind-a-link": lambda root: _lead(root, "far/one", "../far2/one"),
    "a-directory-that-lacked-the-header": lambda root: _swap(root, "first", "other"),
}


@pytest.fixture
def tree(project: Any) -> Path:
    project.write(
        "src/main.c",
        '#include <a.h>\n#include <b.h>\n#include <c.h>\n#include "d.h"\nint v = A + B + C;\n',
    )
    project.write("src2/main.c", "int other;\n")
    project.write("top/inc/a.h", "#define A 1\n")
    project.write("top2/inc/a.h", "#define A 10\n")
    project.write("other/a.h", "#define A 20\n")
    for number, where in ((1, "far/real"), (2, "far/two"), (3, "far2/real"), (4, "far2/one")):
        project.write(f"{where}/b.h", f"#define B {100 * number}\n")
    project.write("far/c1.h", "#define C 1000\n")
    project.write("far/c2.h", "#define C 2000\n")
    root: Path = project.directory
    for name in ("top", "top2"):
        (root / name / "inc/c.h").symlink_to(root / "far/c1.h")
    (root / "other/c.h").symlink_to(root / "far/c1.h")
    (root / "far2/c1.h").write_text("#define C 3000\n")
    (root / "first").mkdir()
    (root / "far/one").symlink_to("real")
    (root / "link").symlink_to("far/one")
    (root / "src/d.h").symlink_to("../top/inc/../../far/d.h")
    for name in ("far", "far2"):
        project.write(f"{name}/d.h", "enum { d };\n")
    project.settle()
    return root


@pytest.mark.parametrize("moment", ["after", "there-and-back", "before"])
@pytest.mark.parametrize("name", _CHANGES)
def test_what_moved_during_a_compile_is_not_kept(
    name: str, moment: str, tree: Path, launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    change = _CHANGES[name]
    undo = {
        "a-link-to-a-directory": lambda root: _lead(root, "link", "far/one"),
        "a-link-to-a-file": lambda root: _lead(root, "top/inc/c.h", f"{root}/far/c1.h"),
        "a-link-behind-a-link": lambda root: _lead(root, "far/one", "real"),
    }.get(name, change)
    if moment != "after":
        launcher.before_run = lambda _run: change(tree)
    if moment != "before":
        launcher.after_run = lambda _run: (change if moment == "after" else undo)(tree)
    launcher.compile(*_ARGV)
    launcher.before_run = launcher.after_run = lambda _run: None
    assert cache.counters().get("bytes.stored", 0) == 0
    project.settle()
    for _ in range(2):
        launcher.compile(*_ARGV)
        through = (tree / "main.o").read_bytes()
        run_bare(_ARGV, cwd=tree)
        assert (tree / "main.o").read_bytes() == through


@pytest.fixture
def mount(tree: Path) -> Iterator[Callable[[], None]]:
    """Yield a function that mounts `other` over `top/inc`; unmount at the end."""

    def run(*argv: str | Path) -> bool:
        return subprocess.run(argv, check=False, capture_output=True).returncode == 0

    def put() -> None:
        assert run("mount", "--bind", tree / "other", tree / "top/inc")

    if not run("mount", "--bind", tree / "other", tree / "top/inc"):
        pytest.skip("needs the right to mount")
    assert run("umount", tree / "top/inc")
    yield put
    run("umount", tree / "top/inc")


def test_a_mount_during_a_compile_is_noticed(
    mount: Callable[[], None], tree: Path, launcher: FakeLauncher, cache: Cache
) -> None:
    launcher.after_run = lambda _run: mount()
    assert launcher.compile(*_ARGV).answer == "run"
    assert cache.counters().get("bytes.stored", 0) == 0


def test_a_mount_since_is_noticed(
    mount: Callable[[], None], tree: Path, launcher: FakeLauncher
) -> None:
    assert launcher.compile(*_ARGV).answer == "run"
    assert launcher.compile(*_ARGV).answer == "done"
    mount()
    assert launcher.compile(*_ARGV).answer == "run"
    through = (tree / "main.o").read_bytes()
    run_bare(_ARGV, cwd=tree)
    assert (tree / "main.o").read_bytes() == through


@pytest.mark.parametrize("argv", [_ARGV, (*_ARGV[:-1], "src/main.o"), (*_ARGV[:-1], "top/inc/x.o")])
def test_objects_beside_sources_and_headers_disturb_nothing(
    argv: tuple[str, ...], tree: Path, launcher: FakeLauncher
) -> None:
    launcher.after_run = lambda _run: [(tree / d / "y.o").touch() for d in (".", "src", "top")]
    assert launcher.compile(*argv).answer == "run"
    assert launcher.compile(*argv).answer == "done"


@pytest.mark.parametrize("line", ['#include "sub/e.h"', "#include <sub/e.h>"])
def test_objects_in_a_directory_that_the_source_names_disturb_nothing(
    line: str, tree: Path, launcher: FakeLauncher, project: Any
) -> None:
    project.write("src/sub/e.h", "enum { e };\n")
    project.write("src/main.c", f"{line}\nint v = e;\n")
    project.settle()
    argv = ("gcc", "-Isrc", "-c", "src/main.c", "-o", "main.o")
    # Another compile of the same build writes beside the source and beside the header.
    launcher.after_run = lambda _run: [(tree / d / "y.o").touch() for d in ("src", "src/sub")]
    assert launcher.compile(*argv).answer == "run"
    assert launcher.compile(*argv).answer == "done"


def test_objects_in_a_directory_that_only_a_header_names_disturb_nothing(
    tree: Path, launcher: FakeLauncher, project: Any
) -> None:
    project.write("src/sub/e.h", "enum { e };\n")
    project.write("src/all.h", '#include "sub/e.h"\n')
    for name in ("first", "second"):
        project.write(f"src/{name}.c", '#include "all.h"\nint v = e;\n')
    project.settle()
    assert launcher.compile("gcc", "-c", "src/first.c", "-o", "first.o").answer == "run"
    argv = ("gcc", "-c", "src/second.c", "-o", "second.o")
    launcher.after_run = lambda _run: [(tree / d / "y.o").touch() for d in ("src", "src/sub")]
    assert launcher.compile(*argv).answer == "run"
    assert launcher.compile(*argv).answer == "done"


def test_a_directory_that_nothing_named_before_is_refused_by_its_name(
    tree: Path, launcher: FakeLauncher, cache: Cache, paths: Paths, project: Any
) -> None:
    project.write("src/sub/e.h", "enum { e };\n")
    project.write("src/all.h", '#include "sub/e.h"\n')
    project.write("src/main.c", '#include "all.h"\nint v = e;\n')
    project.settle()
    launcher.after_run = lambda _run: [(tree / d / "y.o").touch() for d in ("src", "src/sub")]
    assert launcher.compile("gcc", "-c", "src/main.c", "-o", "main.o").answer == "run"
    assert cache.counters().get("uncacheable.modified-during-compile") == 1
    assert (
        read_records(os.fspath(paths.cache))[-1].culprit
        == f"{tree}/src/sub: it changed, or was put there"
    )


def test_a_named_directory_that_was_replaced_and_filled_is_not_kept(
    tree: Path, launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    for name, value in (("sub", 1), ("sub2", 2)):
        project.write(f"src/{name}/e.h", f"enum {{ e = {value} }};\n")
    project.write("src/main.c", '#include "sub/e.h"\nint v = e;\n')
    project.settle()

    def replace(_run: object) -> None:
        _swap(tree, "src/sub", "src/sub2")
        (tree / "src/sub/y.o").touch()

    launcher.after_run = replace
    assert launcher.compile("gcc", "-c", "src/main.c", "-o", "main.o").answer == "run"
    assert cache.counters().get("bytes.stored", 0) == 0


@pytest.mark.parametrize("name", [n for n in _CHANGES if n != "the-sources"])
def test_what_moved_since_is_seen(name: str, tree: Path, launcher: FakeLauncher) -> None:
    assert launcher.compile(*_ARGV).answer == "run"
    assert launcher.compile(*_ARGV).answer == "done"
    _CHANGES[name](tree)
    assert launcher.compile(*_ARGV).answer == "run"
    through = (tree / "main.o").read_bytes()
    run_bare(_ARGV, cwd=tree)
    assert (tree / "main.o").read_bytes() == through


@pytest.mark.parametrize(
    ("flag", "text", "link", "is_undone"),
    [
        ("-specs={}/way/flags", "*self_spec:\n+ {}\n", "way", False),
        ("-specs={}/way/flags", "*self_spec:\n+ {}\n", "way/flags", True),
        ("@{}/way/flags", "{}\n", "way", True),
        ("@{}/way/flags", "{}\n", "way/flags", True),
    ],
)
def test_a_link_to_what_a_flag_names_moved_during_a_compile(
    flag: str,
    text: str,
    link: str,
    *,
    is_undone: bool,
    tree: Path,
    launcher: FakeLauncher,
    cache: Cache,
    project: Any,
) -> None:
    old, new = ("one", "two") if link == "way" else ("../one/flags", "../two/flags")
    project.write("one/flags", text.format("-O1"))
    project.write("two/flags", text.format("-O2"))
    (tree / link).parent.mkdir(exist_ok=True)
    (tree / link).symlink_to(old)
    project.settle()
    argv = ("gcc", flag.format(tree), *_ARGV[1:])
    if is_undone:
        launcher.before_run = lambda _run: _lead(tree, link, new)
    launcher.after_run = lambda _run: _lead(tree, link, old if is_undone else new)
    assert launcher.compile(*argv).answer == "run"
    assert counted(cache, "uncacheable.modified-during-compile", "bytes.stored") == (1, 0)
    launcher.before_run = launcher.after_run = lambda _run: None
    project.settle()
    assert [launcher.compile(*argv).answer for _ in range(2)] == ["run", "done"]
