"""A build directory above the working directory, and system headers with real names."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Project, age

FILES = {
    "src/a.c": '#include "gen.h"\nint value = V;\n',
    "b/gen/gen.h": "#define V 1\n",
    "b/CMakeCache.txt": "CMAKE_HOME_DIRECTORY:INTERNAL=/nowhere\n",
}


@pytest.fixture(params=["gcc", "clang-19"])
def cc(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _words(cc: str, build: str, *more: str) -> list[str]:
    return [cc, *more, f"-I{{root}}/{build}/gen", "-c", "{root}/src/a.c", "-o", "a.o"]


@pytest.mark.parametrize("root_name", [".git", ".hpcc", ""])
def test_a_new_build_directory_of_makefiles_hits(
    cc: str, root_name: str, make: Callable[..., Project]
) -> None:
    project = make("p", FILES, root_name=root_name)
    assert project.compile(_words(cc, "b", "-O2"), cwd="b/sub") == "miss"
    shutil.copytree(project.root / "b", project.root / "c")
    age(project.root)
    assert project.compile(_words(cc, "c", "-O2"), cwd="c/sub") == "hit"
    project.write("c/gen/gen.h", "#define V 2\n")
    age(project.root)
    assert project.compile([*_words(cc, "c", "-O2")[:-1], "b.o"], cwd="c/sub") == "miss"


def test_two_subdirectories_of_a_build_share_results(cc: str, make: Callable[..., Project]) -> None:
    project = make("p", FILES)
    assert project.compile(_words(cc, "b", "-O2"), cwd="b/lib") == "miss"
    assert project.compile(_words(cc, "b", "-O2"), cwd="b/tests/unit") == "hit"
    assert project.compile(_words(cc, "b", "-O2"), cwd="b") == "miss"


def _nested(project: Project) -> None:
    """Make the working directory's parent the build directory."""
    (project.root / "b/s/gen").mkdir(parents=True)
    shutil.move(project.root / "b/CMakeCache.txt", project.root / "b/s/CMakeCache.txt")
    shutil.copy2(project.root / "b/gen/gen.h", project.root / "b/s/gen/gen.h")
    age(project.root)


@pytest.mark.parametrize("root_name", [".git", ".hpcc"])
@pytest.mark.parametrize("debug", ["-g", "-g3"])
def test_debug_information_names_the_build_directory_below_the_root(
    cc: str, debug: str, root_name: str, make: Callable[..., Project]
) -> None:
    project = make("p", FILES, root_name=root_name)
    project.write("b/gen/gen.h", "struct s { int member; };\n#define V sizeof(struct s)\n")
    age(project.root)
    assert project.compile(_words(cc, "b", debug), cwd="b/s/t") == "miss"
    _nested(project)
    assert project.compile(_words(cc, "b/s", debug), cwd="b/s/t") == "miss"


@pytest.mark.parametrize("root_name", [".git", ".hpcc"])
def test_a_name_that_shows_the_build_directory_below_the_root(
    cc: str, root_name: str, make: Callable[..., Project]
) -> None:
    project = make("p", FILES, root_name=root_name)
    project.write("b/gen/gen.h", "#define V 1\nconst char *name = __FILE__;\n")
    age(project.root)
    assert project.compile(_words(cc, "b", "-O2"), cwd="b/s/t") == "miss"
    _nested(project)
    assert project.compile(_words(cc, "b/s", "-O2"), cwd="b/s/t") == "miss"


def test_system_headers_behind_a_link_hit_for_another_target(
    cc: str, make: Callable[..., Project], tmp_path: Path
) -> None:
    text = "#define V 1\nstatic inline const char *name(void) { return __FILE__; }\n"
    project = make("p", {"src/a.c": "#include <v.h>\nconst char *n(void) { return name(); }\n"})
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "v.h").write_text(text)
        age(tmp_path / name)
    link = project.root / "third_party"
    link.symlink_to(tmp_path / "x")
    words = [cc, "-O2", "-isystem", "{root}/third_party", "-c", "{root}/src/a.c", "-MD", "-o"]
    assert project.compile([*words, "a.o"]) == "miss"
    assert project.compile([*words, "b.o"]) == "hit"
    assert project.compile([*words, "c.o"], cwd="build-2") == "hit"
    link.unlink()
    link.symlink_to(tmp_path / "y")
    assert project.compile([*words, "d.o"]) == "miss"


def test_a_miss_says_that_another_directory_has_the_result_and_shows_a_name(
    cc: str, make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    """Only where the same text would have hit; not for other text, and not twice."""
    project = make("p", {"src/a.c": "const char *n = __FILE__;\n", "src/b.c": "int b;\n"})
    words = [cc, "-O2", "-c", "{root}/src/a.c", "-o", "a.o"]
    assert project.compile(words) == "miss"
    moved = move(project, "longer/q")
    assert moved.compile(words) == "miss"
    assert moved.compile([cc, "-O2", "-c", "{root}/src/b.c", "-o", "b.o"]) == "miss"
    counted = moved.cache.counters()
    assert (counted["missed.names-elsewhere"], counted["missed.new-command"]) == (1, 2)
    assert moved.compile(words) == "hit"


@pytest.mark.parametrize(("debug", "count"), [("-g", 1), ("-fsanitize=undefined", 0)])
def test_a_miss_says_that_the_object_holds_another_directory(
    cc: str,
    debug: str,
    count: int,
    make: Callable[..., Project],
    move: Callable[[Project, str], Project],
) -> None:
    """Of the same source only, with the same flags, and where a `.hpcc` would help."""
    project = make("p", {"src/a.c": "int a;\n", "src/b.c": "int b;\n"})
    words = [cc, "-O2", debug, "-I../src", "-c", "../src/a.c", "-o", "a.o"]
    assert project.compile(words) == "miss"
    moved = move(project, "longer/q")
    moved.write("src/b.c", "int b, other;\n")
    age(moved.root)
    for other in (
        [cc, "-O2", debug, "-I../src", "-c", "../src/b.c", "-o", "b.o"],  # new to both
        [cc, "-O1", debug, "-I../src", "-c", "../src/a.c", "-o", "a.o"],
        words,  # this one
    ):
        assert moved.compile(other) == "miss"
    counted = moved.cache.counters()
    assert counted.get("missed.directory-elsewhere", 0) == count
    assert counted["missed.new-command"] == 4 - count
    moved.write("src/a.c", "int a, edited;\n")
    age(moved.root)
    assert moved.compile(words) == "miss"
    assert moved.cache.counters().get("missed.directory-elsewhere", 0) == count


def test_a_second_build_directory_below_a_marker_is_not_told_to_make_one(
    cc: str, make: Callable[..., Project]
) -> None:
    project = make("p", {"src/a.c": "int a;\n"}, root_name=".hpcc")
    words = [cc, "-g", "-c", "{root}/src/a.c", "-o", "a.o"]
    assert project.compile(words, cwd="b1") == "miss"
    assert project.compile(words, cwd="b2") == "miss"
    assert "missed.directory-elsewhere" not in project.cache.counters()
