"""Which directory becomes the root of a project, and which never does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hpcc.cache.root.build_data import MAX_BYTES, commands_root
from hpcc.cache.root.project_root import RootWay, find_project_root, may_be_root, search_unmarked

NOBODY = 65534


class World:
    """A fake home directory with a project."""

    def __init__(self, base: Path) -> None:
        self.home = base / "home"
        self.project = self.home / "proj"
        for name in ("src", "build/sub"):
            (self.project / name).mkdir(parents=True)
        (self.project / "src/a.c").write_text("int a;\n")

    def found(self, cwd: str = "build", source: str = "src/a.c") -> tuple[str, str] | None:
        """Return root and way of a compile, relative to the home directory."""
        root = find_project_root(*self.places(cwd, source))
        return (
            None if root is None else (os.path.relpath(os.fsdecode(root.path), self.home), root.way)
        )

    def places(self, cwd: str, source: str) -> tuple[bytes, bytes, bytes]:
        return (
            os.fsencode(self.project / source),
            os.fsencode(self.project / cwd),
            os.fsencode(self.home),
        )

    def cmake(self, directory: str = "build", home: str = "") -> Path:
        place = self.project / directory
        path = place / "CMakeCache.txt"
        path.write_text(
            f"# a comment\nCMAKE_CACHEFILE_DIR:INTERNAL={place}\n"
            f"CMAKE_HOME_DIRECTORY:INTERNAL={home or self.project}\n"
        )
        return path


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("name", [".git", ".hg", ".jj"])
def test_version_control_names_the_root(world: World, name: str) -> None:
    assert world.found() is None
    (world.project / name).mkdir()
    assert world.found() == ("proj", name)
    assert world.found(cwd="build/sub") == ("proj", name)
    assert world.found(cwd=".") == ("proj", name)


def test_a_marker_comes_first_and_a_build_system_last(world: World) -> None:
    world.cmake()
    assert world.found() == ("proj", RootWay.CMAKE)
    (world.project / ".git").mkdir()
    assert world.found() == ("proj", RootWay.GIT)
    (world.home / ".hpcc").touch()
    assert world.found() == (".", RootWay.MARKER)


def test_the_nearest_repository_decides(world: World) -> None:
    (world.project / ".git").mkdir()
    (world.project / "src/.hg").mkdir()
    assert world.found(cwd="src") == ("proj/src", RootWay.MERCURIAL)


def test_a_worktree_is_a_root_and_a_submodule_is_not(world: World) -> None:
    (world.project / ".git").mkdir()
    sub = world.project / "third/lib"
    sub.mkdir(parents=True)
    (sub / "x.c").touch()
    (sub / ".git").write_text("gitdir: ../../.git/modules/third/lib\n")
    assert world.found(source="third/lib/x.c") == ("proj", RootWay.GIT)
    (sub / ".git").write_text(f"gitdir: {world.project}/.git/worktrees/lib\n")
    assert world.found(source="third/lib/x.c", cwd="third/lib") == ("proj/third/lib", RootWay.GIT)
    assert world.found(source="third/lib/x.c") is None  # the build is in the outer repository


def test_a_submodule_without_a_superproject_is_a_root(world: World) -> None:
    (world.project / ".git").write_text("gitdir: ../.git/modules/proj\n")
    assert world.found() == ("proj", RootWay.GIT)


def test_a_submodule_of_a_worktree_belongs_to_the_worktree(world: World) -> None:
    (world.project / ".git").write_text("gitdir: /repo/.git/worktrees/proj\n")
    (world.project / "src/.git").write_text("gitdir: /repo/.git/worktrees/proj/modules/src\n")
    assert world.found() == ("proj", RootWay.GIT)


def test_a_git_file_is_not_followed(world: World, tmp_path: Path) -> None:
    (world.project / ".git").write_text(f"gitdir: {tmp_path}/elsewhere\n")
    search = search_unmarked(*world.places("build", "src/a.c"))
    assert search.root is not None
    assert not any(b"elsewhere" in path for path in (*search.read, *search.places, *search.absent))


def test_a_git_file_that_is_a_pipe_blocks_nothing(world: World) -> None:
    os.mkfifo(world.project / ".git")
    assert world.found() is None


def test_searches_that_disagree_find_no_root(world: World) -> None:
    """CMake's FetchContent clones a repository below the build directory."""
    (world.project / ".git").mkdir()
    fetched = world.project / "build/_deps/fmt"
    (fetched / ".git").mkdir(parents=True)
    (fetched / "f.c").touch()
    assert world.found(source="build/_deps/fmt/f.c") is None
    world.cmake()
    assert world.found(source="build/_deps/fmt/f.c") is None


def test_the_root_of_the_source_counts_if_it_contains_the_working_directory(world: World) -> None:
    (world.project / ".git").mkdir()
    (world.project / "build/.git").mkdir()
    assert world.found() == ("proj", RootWay.GIT)


def test_a_build_directory_outside_the_repository_has_no_root(world: World) -> None:
    (world.project / "src/.git").mkdir()
    assert world.found() is None


def test_dotfiles_in_the_home_directory_make_no_root(world: World) -> None:
    (world.home / ".git").mkdir()
    assert world.found() is None
    world.cmake()
    assert world.found() == ("proj", RootWay.CMAKE)
    world.cmake(home=str(world.home))
    assert world.found() is None


def test_nothing_above_the_home_directory_counts(world: World) -> None:
    (world.home.parent / ".git").mkdir()
    assert world.found() is None


@pytest.mark.parametrize("name", [".git", ".hg", "CMakeCache.txt"])
def test_a_link_is_refused(world: World, name: str) -> None:
    if name == "CMakeCache.txt":
        world.cmake().rename(world.project / "real")
        (world.project / "build" / name).symlink_to(world.project / "real")
    else:
        (world.project / "real").mkdir()
        (world.project / name).symlink_to("real")
    assert world.found() is None


@pytest.mark.parametrize("name", [".git", "CMakeCache.txt"])
@pytest.mark.parametrize("attack", ["owner", "mode"])
def test_an_entry_of_another_user_or_for_everybody_is_refused(
    world: World, name: str, attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == ".git":
        path = world.project / name
        path.mkdir()
    else:
        path = world.cmake()
    assert world.found() is not None
    if attack == "mode":
        path.chmod(0o777)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
        if os.geteuid() == NOBODY and path.stat().st_uid == 0:
            os.chown(path, 12345, -1)
    assert world.found() is None


def test_a_directory_for_everybody_ends_the_search(world: World) -> None:
    (world.project / ".git").mkdir()
    (world.project / "build").chmod(0o777)
    assert world.found() is None
    assert world.found(cwd="src") == ("proj", RootWay.GIT)


def test_the_root_of_a_mount_and_a_boundary_are_no_root(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world.project / ".git").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == os.fsencode(world.project))
    assert world.found() is None
    monkeypatch.undo()
    true_stat = os.stat
    inside = os.fsencode(world.project) + b"/"

    def other_device(path: bytes) -> os.stat_result:
        found = true_stat(path)
        if isinstance(path, bytes) and (path + b"/").startswith(inside) and path + b"/" != inside:
            return os.stat_result((*found[:2], found.st_dev + 1, *found[3:]))
        return found

    monkeypatch.setattr(os, "stat", other_device)
    assert world.found() is None


@pytest.mark.parametrize(
    "path", [b"/", b"/usr", b"/usr/src", b"/etc", b"/etc/x", b"/home", b"/tmp", b"/proc/1"]
)
def test_directories_of_the_system_are_no_root(path: bytes) -> None:
    assert not may_be_root(path, b"/home/me")


def test_a_moved_or_copied_cmake_cache_is_ignored(world: World) -> None:
    path = world.cmake()
    path.write_text(path.read_text().replace("/build", "/other"))
    assert world.found() is None


def test_build_data_may_only_name_a_directory_around_source_and_build(world: World) -> None:
    world.cmake(home=str(world.project / "src"))
    assert world.found() is None  # it does not contain the working directory
    world.cmake(home=str(world.home / "other"))
    assert world.found() is None
    world.cmake(home="/")
    assert world.found() is None


def test_a_project_of_another_user_is_no_root_for_build_data(world: World) -> None:
    world.cmake()
    os.chown(world.project, NOBODY, -1)
    assert world.found() is None


def test_a_compile_database_names_the_directory_around_its_sources(world: World) -> None:
    path = world.project / "build/compile_commands.json"
    entries = [
        {"directory": str(world.project / "build"), "file": "../src/a.c"},
        {"directory": str(world.project / "build"), "file": "/usr/src/googletest/g.cc"},
    ]
    path.write_text(json.dumps(entries))
    assert world.found() == ("proj", RootWay.COMMANDS)
    path.write_text(json.dumps([*entries, {"directory": "/", "file": "etc/x.c"}]))
    assert world.found() is None


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b"[1]", b'[{"directory": "x", "file": "y"}]', b"[" * 10_000]
)
def test_a_bad_compile_database_is_ignored(world: World, data: bytes) -> None:
    (world.project / "build/compile_commands.json").write_bytes(data)
    assert world.found() is None


def test_a_database_for_files_of_the_whole_machine_has_a_root_that_is_refused() -> None:
    entries = [{"directory": "/a/b", "file": "x.c"}, {"directory": "/c", "file": "y.c"}]
    assert commands_root(json.dumps(entries).encode(), b"/a/b") == b"/"


def test_endless_build_data_is_ignored(world: World) -> None:
    path = world.cmake()
    with path.open("ab") as file:
        file.truncate(MAX_BYTES + 1)
    assert world.found() is None


def test_a_link_to_the_source_is_resolved(world: World) -> None:
    (world.project / ".git").mkdir()
    (world.project / "build/alias").symlink_to("../src")
    assert world.found(source="build/alias/a.c") == ("proj", RootWay.GIT)


def test_variables_of_git_do_not_matter(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(world.home))
    monkeypatch.setenv("GIT_WORK_TREE", str(world.home))
    assert world.found() is None


def test_a_search_notes_what_it_depended_on(world: World) -> None:
    (world.project / ".git").mkdir()
    search = search_unmarked(*world.places("build", "src/a.c"))
    place = os.fsencode(world.project)
    assert {place + b"/build/.git", place + b"/src/.git", place + b"/build/.hg"} <= set(
        search.absent
    )
    assert {place, place + b"/.git", place + b"/build"} <= set(search.places)
    assert not search.is_odd
