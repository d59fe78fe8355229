"""Another output, build directory or place hits where the compiler writes the same bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Project, age

FILES = {
    "src/a.c": '#include <assert.h>\n#include <stdio.h>\n#include "a.h"\n#include "../src/near.h"\n'
    "int f(int x) { return x + A + NEAR; }\n",
    "src/near.h": "#define NEAR 1\n",
    "inc/a.h": '#pragma once\n#include "deep/b.h"\n#define A (B + 1)\n',
    "inc/deep/b.h": "#ifndef B\n#define B 2\n#endif\n",
    "src/a.cc": "#include <cassert>\n#include <string>\n#include <vector>\n#include <a.h>\n"
    "std::string g(std::vector<int> v) { v.push_back(A); return std::string(v.size(), 'x'); }\n",
    "src/shows.c": '#include <assert.h>\n#include "a.h"\nint f(int x) { assert(x); return x + A; }\n',
    "inc/shows.h": "static inline const char *where(void) { return __FILE__; }\n",
    "src/header_shows.c": '#include "shows.h"\nconst char *f(void) { return where(); }\n',
}
DEPS = ["-MD", "-MT", "o/x.o", "-MF", "x.d"]
ABSOLUTE = ["-O2", "-I{root}/inc", "-c", "{root}/src/a.c"]
RELATIVE = ["-O2", "-I../inc", "-c", "../src/a.c"]


@pytest.fixture(params=["gcc", "clang-19"])
def cc(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("words", [ABSOLUTE, RELATIVE], ids=["absolute", "relative"])
def test_another_output_hits(cc: str, words: list[str], make: Callable[..., Project]) -> None:
    project = make("p", FILES)
    assert project.compile([cc, *words, "-o", "a.o"]) == "miss"
    assert project.compile([cc, *words, "-o", "b.o"]) == "hit"
    assert project.compile([cc, *words, "-o", "a.pic.o"]) == "hit"


@pytest.mark.parametrize("debug", ["-g", "-g3", "-gdwarf-4", "-ggdb"])
def test_another_output_hits_with_debug_information(
    cc: str, debug: str, make: Callable[..., Project]
) -> None:
    project = make("p", FILES)
    words = [cc, debug, *ABSOLUTE]
    assert project.compile([*words, "-o", "a.o"]) == "miss"
    assert project.compile([*words, "-o", "b.o"]) == "hit"


@pytest.mark.parametrize(
    "flags",
    [
        "-fsanitize=undefined",
        "-fsanitize=address -fno-sanitize-recover=all -g",
        "-fsanitize=thread -fsanitize-coverage=trace-pc",
        "-g -fdebug-prefix-map={root}/build=. -fmacro-prefix-map={root}/=",
        "-g -gz=zlib",
        "-Wa,--noexecstack -Wa,--fatal-warnings",
    ],
)
@pytest.mark.parametrize("root_name", [".git", ".hpcc"])
def test_another_output_hits_where_the_object_holds_names_of_files(
    cc: str,
    flags: str,
    root_name: str,
    make: Callable[..., Project],
    move: Callable[[Project, str], Project],
) -> None:
    """No name of an output is in the object. In another place there are other names."""
    project = make("p", FILES, root_name=root_name)
    project.gets_maps = False  # such flags are not shared between checkouts
    words = [cc, *flags.split(), "-O2", "-I{root}/inc", "-c", "{root}/src/shows.c", "-o"]
    assert project.compile([*words, "a.o"]) == "miss"
    assert project.compile([*words, "b.o"]) == "hit"
    assert move(project, "q").compile([*words, "b.o"]) == "miss"
    project.write("inc/deep/b.h", "#define B 7\n")
    assert project.compile([*words, "c.o"]) == "miss"


@pytest.mark.parametrize("option", ["-ffile-prefix-map={root}=/usr/p", "-fmacro-prefix-map=/=/x/"])
def test_prefix_maps_without_debug_information_need_no_directory(
    cc: str, option: str, make: Callable[..., Project]
) -> None:
    project = make("p", FILES)
    words = [cc, option, "-O1", "-I{root}/inc", "-c", "{root}/src/shows.c", "-o", "a.o"]
    assert project.compile(words, "build") == "miss"
    assert project.compile(words, "other") == "hit"
    # Here the name of a file in the build directory shows.
    for directory in ("build", "other"):
        project.write(f"{directory}/shows.h", FILES["inc/shows.h"])
    age(project.root)
    words = [cc, option, "-O1", "-I{root}/BUILD", "-c", "{root}/src/header_shows.c", "-o", "a.o"]
    build, other = ([w.replace("BUILD", d) for w in words] for d in ("build", "other"))
    assert project.compile(build, "build") == "miss"
    assert project.compile(other, "other") == "miss"


@pytest.mark.parametrize("words", [ABSOLUTE, RELATIVE], ids=["absolute", "relative"])
@pytest.mark.parametrize("root_name", [".git", ".hpcc", ""])
def test_a_new_build_directory_hits(
    cc: str, words: list[str], root_name: str, make: Callable[..., Project]
) -> None:
    project = make("p", FILES, root_name=root_name)
    assert project.compile([cc, *words, "-o", "a.o"], "build") == "miss"
    assert project.compile([cc, *words, "-o", "a.o"], "build2") == "hit"


def test_a_build_directory_at_another_depth_hits_with_absolute_names(
    cc: str, make: Callable[..., Project]
) -> None:
    project = make("p", FILES)
    assert project.compile([cc, *ABSOLUTE, "-o", "a.o"], "build") == "miss"
    assert project.compile([cc, *ABSOLUTE, "-o", "a.o"], "out/of/tree") == "hit"


@pytest.mark.parametrize("source", ["a.c", "a.cc"])
@pytest.mark.parametrize("root_name", [".git", ".hpcc", ".hg", ""])
def test_a_moved_project_hits(
    cc: str,
    source: str,
    root_name: str,
    make: Callable[..., Project],
    move: Callable[[Project, str], Project],
) -> None:
    project = make("p", FILES, root_name=root_name)
    compiler = cc if source == "a.c" else cc.replace("gcc", "g++").replace("clang", "clang++")
    words = [compiler, "-O2", "-I{root}/inc", "-Wall", *DEPS, "-c", f"{{root}}/src/{source}"]
    assert project.compile([*words, "-o", "x.o"]) == "miss"
    moved = move(project, "elsewhere/with a blank/p" if root_name == "" else "elsewhere/deeper/p")
    expected = "miss" if root_name == "" else "hit"  # make would need escapes for the blank
    assert moved.compile([*words, "-o", "x.o"]) in {"hit", expected}


def test_a_build_directory_that_cmake_made_elsewhere_hits(
    cc: str, make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    """Rule: the source directory is what CMake's cache names."""
    project = make("one/tree", FILES, root_name="")
    build = make(
        "out1", {"CMakeCache.txt": f"CMAKE_HOME_DIRECTORY:INTERNAL={project.root}\n"}, root_name=""
    )
    words = [cc, "-O2", f"-I{project.root}/inc", "-c", f"{project.root}/src/a.c", "-o", "a.o"]
    assert build.compile(words, ".") == "miss"
    moved = move(project, "two/deeper/tree")
    other = make(
        "out2", {"CMakeCache.txt": f"CMAKE_HOME_DIRECTORY:INTERNAL={moved.root}\n"}, root_name=""
    )
    words = [cc, "-O2", f"-I{moved.root}/inc", "-c", f"{moved.root}/src/a.c", "-o", "a.o"]
    assert other.compile(words, ".") == "hit"


@pytest.mark.parametrize(
    "deps",
    [["-MD"], ["-MMD"], ["-MD", "-MP"], [*DEPS, "-MP"], ["-MD", "-MF", "y.d"], ["-Wp,-MD,y.d"]],
    ids=" ".join,
)
def test_depfiles_have_the_names_of_the_asking_compile(
    cc: str, deps: list[str], make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    project = make("p", FILES)
    words = [cc, *deps, *ABSOLUTE]
    assert project.compile([*words, "-o", "x.o"]) == "miss"
    project.compile([*words, "-o", "longer-name-of-an-output.o"])
    moved = move(project, "somewhere/with-a-longer-name-than-before-so-that-lines-break/p")
    moved.compile([*words, "-o", "x.o"], "b")
    if "-Wp,-MD,y.d" not in deps:
        assert moved.compile([*words, "-o", "y.o"], "c") == "hit"


def test_flags_of_a_kernel_hit_for_another_output(make: Callable[..., Project]) -> None:
    project = make("p", FILES)
    words = ["gcc", "-Wa,-mtune=generic32", "-fno-stack-check", "-fconserve-stack"]
    words += ["--param", "max-inline-insns-single=70", *ABSOLUTE]
    assert project.compile([*words, "-o", "a.o"]) == "miss"
    assert project.compile([*words, "-o", "b.o"]) == "hit"


def test_a_stack_usage_file_gets_its_new_name(make: Callable[..., Project]) -> None:
    project = make("p", FILES)
    words = ["gcc", "-fstack-usage", *ABSOLUTE]
    assert project.compile([*words, "-o", "a.o"]) == "miss"
    assert project.compile([*words, "-o", "b.o"]) == "hit"


def test_a_shown_name_stays_where_it_is_the_same(
    cc: str, make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    """`assert` shows the source's name: the same in a new build directory, another one when moved."""
    project = make("p", FILES)
    words = [cc, "-O2", "-I{root}/inc", "-c", "{root}/src/shows.c", "-o", "a.o"]
    assert project.compile(words) == "miss"
    assert project.compile(words, "build2") == "hit"
    moved = move(project, "q")
    assert moved.compile(words) == "miss"
    relative = [cc, "-O2", "-I../inc", "-c", "../src/shows.c", "-o", "a.o"]
    assert project.compile(relative) == "miss"
    assert moved.compile(relative) == "hit"


def test_a_shown_name_of_a_header_counts(
    cc: str, make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    project = make("p", FILES)
    words = [cc, "-O2", "-I{root}/inc", "-c", "{root}/src/header_shows.c", "-o", "a.o"]
    assert project.compile(words) == "miss"
    assert project.compile(words, "build2") == "hit"
    assert move(project, "q").compile(words) == "miss"


def test_a_header_of_the_build_directory_that_shows_its_name_is_another_one(
    cc: str, make: Callable[..., Project]
) -> None:
    project = make("p", {**FILES, "b1/g.h": FILES["inc/shows.h"], "b2/g.h": FILES["inc/shows.h"]})
    project.write("src/g.c", '#include "g.h"\nconst char *f(void) { return where(); }\n')
    for directory in ("b1", "b2"):
        words = [cc, "-O2", f"-I{{root}}/{directory}", "-c", "{root}/src/g.c", "-o", "g.o"]
        assert project.compile(words, directory) == "miss"


def test_an_edit_in_the_new_place_is_a_miss(
    cc: str, make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    project = make("p", FILES)
    words = [cc, *ABSOLUTE, "-o", "a.o"]
    assert project.compile(words) == "miss"
    moved = move(project, "q")
    moved.write("inc/deep/b.h", "#define B 7\n")
    assert moved.compile(words) == "miss"
    moved.write("inc/deep/b.h", FILES["inc/deep/b.h"])
    assert moved.compile(words) == "hit"


def test_an_earlier_header_in_the_new_place_is_a_miss(
    cc: str, make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    project = make("p", FILES)
    words = [cc, *ABSOLUTE, "-o", "a.o"]
    assert project.compile(words) == "miss"
    moved = move(project, "q")
    moved.write("src/a.h", "#define A 9\n")
    assert moved.compile(words) == "miss"


def test_messages_get_the_names_of_another_place(
    cc: str, make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    project = make("p", {"src/a.c": "int f(void) { int unused; return 1; }\n"})
    words = [cc, "-Wall", "-c", "{root}/src/a.c", "-o", "a.o"]
    assert project.compile(words) == "miss"
    assert project.compile(words) == "hit"
    assert move(project, "longer/q").compile(words) == "hit"


def test_messages_that_quote_the_name_of_a_place_are_not_moved(
    cc: str, make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    project = make("p", {})
    quoted = f"int f(void) {{ int unused; return 1; }} // {project.root}/x\n"
    project.write("src/a.c", quoted)
    words = [cc, "-Wall", "-c", "{root}/src/a.c", "-o", "a.o"]
    assert project.compile(words) == "miss"
    assert project.compile(words) == "hit"
    assert move(project, "longer/q").compile(words) == "miss"


def test_results_with_a_marker_hit_for_another_output_with_debug_information(
    cc: str, make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    project = make("p", FILES, root_name=".hpcc")
    words = [cc, "-g", "-O2", "-I{root}/inc", *DEPS, "-c", "{root}/src/shows.c"]
    assert project.compile([*words, "-o", "a.o"]) == "miss"
    moved = move(project, "q/r")
    assert moved.compile([*words, "-o", "a.o"]) == "hit"
    assert moved.compile([*words, "-o", "b.o"]) == "hit"


@pytest.mark.parametrize(
    "other",
    [
        ["-I{root}/./inc", "{root}/src/header_shows.c"],
        ["-I{root}//inc", "{root}/src/header_shows.c"],
        ["-I{root}/inc", "{root}//src/header_shows.c"],
        ["-I{root}/inc", "{root}/src/./header_shows.c"],
        ["-I/{root}/inc", "/{root}/src/header_shows.c"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("debug", ["-g", "-O2"])
def test_another_spelling_of_an_absolute_name_is_another_key(
    debug: str, other: list[str], cc: str, make: Callable[..., Project]
) -> None:
    """`__FILE__` and debug information hold names as they are spelled."""
    project = make("p", FILES)
    for words in (["-I{root}/inc", "{root}/src/header_shows.c"], other):
        assert project.compile([cc, debug, "-c", *words, "-o", "a.o"]) == "miss"


def test_a_name_with_two_slashes_does_not_move(
    cc: str, make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    project = make("p", FILES)
    words = [cc, "-O2", "-I{root}/inc", "-c", "/{root}/src/shows.c", "-o", "a.o"]
    assert project.compile(words) == "miss"
    assert move(project, "longer/q").compile(words) == "miss"


def test_a_line_directive_that_names_the_file_itself_does_not_move(
    cc: str, make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    source = "#line 5 __FILE__\nconst int n = sizeof(__FILE__);\n"
    project = make("p", {"src/line.c": source})
    words = [cc, "-O2", "-c", "{root}/src/line.c", "-o", "a.o"]
    assert project.compile(words) == "miss"
    assert move(project, "longer/q").compile(words) == "miss"


def test_twins_move_with_their_relation(
    cc: str, make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    """GCC compares seconds, Clang inodes: a copy keeps the seconds and has other inodes."""
    header = "#pragma once\nstatic int twin; /* important */\n"
    source = (
        '#include "one.h"\n#ifdef BOTH\n#include "two.h"\n#endif\nint *f(void) { return &twin; }\n'
    )
    project = make("p", {"src/t.c": source, "inc/one.h": header, "inc/two.h": header})
    words = [cc, "-O2", "-I{root}/inc", "-DBOTH", "-c", "{root}/src/t.c", "-o", "a.o"]
    if cc != "gcc":
        (project.root / "inc/two.h").unlink()
        os.link(project.root / "inc/one.h", project.root / "inc/two.h")
    assert project.compile(words) == "miss"
    moved = move(project, "q")
    assert moved.compile(words) == ("hit" if cc == "gcc" else "miss")
    words.remove("-DBOTH")
    assert project.compile(words) == "miss"
    assert move(project, "r").compile(words) == ("hit" if cc == "gcc" else "miss")


def test_a_header_that_speaks_of_importance_is_not_read_once(
    cc: str, make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    text = "/* It is important to say this once. */\n"
    files = {"src/a.c": '#include "one.h"\n#include "two.h"\nint f(void) { return 1; }\n'}
    project = make("p", {**files, "inc/one.h": text, "inc/two.h": text})
    words = [cc, "-O2", "-I{root}/inc", "-c", "{root}/src/a.c", "-o", "a.o"]
    assert project.compile(words) == "miss"
    assert move(project, "q").compile(words) in {"hit", "hit" if cc == "gcc" else "miss"}


def test_an_assert_in_a_default_argument_shows_the_file_of_the_call(
    make: Callable[..., Project],
) -> None:
    header = "#include <cassert>\nbool g();\ninline int f(int n = (assert(g()), 3)) { return n; }\n"
    project = make("p", {"inc/d.h": header})
    for directory in ("b1", "b2"):
        project.write(f"{directory}/made.cc", '#include "d.h"\nint h() { return f(); }\n')
        words = ["g++", "-I{root}/inc", "-c", f"{{root}}/{directory}/made.cc", "-o", "a.o"]
        assert project.compile(words, directory) == "miss"


def test_an_assert_in_cxx_hits_in_a_new_build_directory(make: Callable[..., Project]) -> None:
    source = "#include <cassert>\nint f(int x) { assert(x > 2); return x; }\n"
    project = make("p", {"src/s.cc": source})
    words = ["g++", "-c", "{root}/src/s.cc", "-I{root}/build/generated", "-o", "a.o"]
    assert project.compile(words) == "miss"
    words[3] = "-I{root}/build2/generated"
    assert project.compile(words, "build2") == "hit"


def test_a_build_directory_that_is_reached_from_the_root_stays(
    cc: str, make: Callable[..., Project]
) -> None:
    """With -I of the root the compiler reads build/gen.h in each build directory."""
    project = make("p", {"src/g.c": '#include "build/gen.h"\nint f(void) { return G; }\n'})
    for directory in ("build", "b2"):
        project.write(f"{directory}/gen.h", "#define G 1\n")
    age(project.root)
    words = [cc, "-O2", "-I{root}", "-c", "{root}/src/g.c", "-o", "a.o"]
    assert project.compile(words, "build") == "miss"
    project.write("build/gen.h", "#define G 22\n")
    age(project.root)
    assert project.compile(words, "b2") == "miss"


def test_names_that_a_macro_puts_together_stay(
    cc: str, make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    source = (
        "#define S_(x) #x\n#define S(x) S_(x)\n#include S(BASE/x.h)\nint f(void) { return X; }\n"
    )
    project = make("p", {"src/m.c": source, "x.h": "#define X 1\n"})
    words = [cc, f"-DBASE={project.root}", "-O2", "-c", "{root}/src/m.c", "-o", "a.o"]
    assert project.compile(words) == "miss"
    moved = move(project, "q")
    project.write("x.h", "#define X 2\n")
    age(project.root)
    assert moved.compile(words) == "miss"


def test_a_name_whose_last_piece_is_a_macro_of_the_command_line_stays(
    cc: str, tmp_path: Path, make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    source = (
        f"#define S_(x) #x\n#define S(x) S_(x)\n#include S({tmp_path}/USER/x.h)\n"
        "int f(void) { return X; }\n"
    )
    project = make("alice", {"src/m.c": source, "x.h": "#define X 1\n"})
    words = [cc, "-DUSER=alice", "-O2", "-c", "{root}/src/m.c", "-o", "a.o"]
    assert project.compile(words) == "miss"
    moved = move(project, "bob")
    project.write("x.h", "#define X 2\n")
    age(project.root)
    assert moved.compile(words) == "miss"


def test_an_include_by_a_macro_moves_beside_other_macros(
    cc: str, make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    source = '#define H "x.h"\n#include H\nint f(void) { return X; }\n'
    project = make("p", {"src/m.c": source, "src/x.h": "#define X 1\n"})
    words = [cc, "-DNDEBUG", "-DLEVEL=QUUX", "-DNONE=", "-O2", "-c", "{root}/src/m.c", "-o", "a.o"]
    assert project.compile(words) == "miss"
    assert move(project, "q").compile(words) == "hit"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["-Wp,-MD,x.d"], ["-Wp,-MD,y.d"]),
        (["-MD", "-MT", "t.o", "-MQ", "u.o"], ["-MD", "-MQ", "u.o", "-MT", "t.o"]),
        (["-MD", "-MF", "x.d"], ["-MD", "-MF", "x.d", "-MQ", "u.o", "-MT", "t.o"]),
    ],
)
def test_targets_are_the_compilers(
    cc: str, first: list[str], second: list[str], make: Callable[..., Project]
) -> None:
    project = make("p", FILES)
    assert project.compile([cc, *first, *ABSOLUTE, "-o", "a.o"]) == "miss"
    project.compile([cc, *second, *ABSOLUTE, "-o", "b.o"])


@pytest.mark.parametrize("pragma", ['target("avx2")', 'optimize("fast-math")'])
def test_a_pragma_that_defines_macros_does_not_move(
    pragma: str, make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    macro = "__AVX2__" if "avx2" in pragma else "__FAST_MATH__"
    source = f"#pragma GCC {pragma}\n#ifdef {macro}\nint n = sizeof(__FILE__);\n#endif\n"
    project = make("p", {"src/n.c": source})
    words = ["gcc", "-c", "{root}/src/n.c", "-o", "a.o"]
    assert project.compile(words) == "miss"
    assert move(project, "longer/q").compile(words) == "miss"


def test_a_raw_string_that_looks_like_a_line_marker_does_not_move(
    make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    source = 'const char *s = R"(\n# 1 "x.h"\n)";\nint n = sizeof(__FILE__);\n'
    project = make("p", {"src/r.cc": source})
    words = ["g++", "-c", "{root}/src/r.cc", "-o", "a.o"]
    assert project.compile(words) == "miss"
    assert move(project, "longer/q").compile(words) == "miss"


def test_a_header_that_a_pragma_makes_visible_is_an_input(make: Callable[..., Project]) -> None:
    """GCC's -M alone does not know what the pragma defines."""
    source = '#pragma GCC target("avx2")\n#ifdef __AVX2__\n#include "v.h"\n#endif\nint y = G;\n'
    project = make("p", {"src/v.c": source, "src/v.h": "#define G 1\n"})
    words = ["gcc", "-O2", "-g", "-MMD", "-c", "{root}/src/v.c", "-o", "a.o"]
    assert project.compile(words) == "miss"
    project.write("src/v.h", "#define G 22\n")
    age(project.root)
    assert project.compile(words) == "miss"
