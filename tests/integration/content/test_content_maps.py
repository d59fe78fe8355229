"""Prefix maps of the user: a second clone hits where they make the two objects equal.

Each answer is compared with the bare compiler's outputs and messages in its own place
(`Project.compile`), so a hit with another byte fails whatever it was expected to be.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.cache.base.api import Run
from hpcc_testkit.cache.compiles import FakeLauncher

from .conftest import Project, age

Make = Callable[..., Project]
Move = Callable[[Project, str], Project]

FILES = {
    "src/a.c": '#include <assert.h>\n#include <stdio.h>\n#include "sub/h.h"\n#include "r.h"\n'
    "int f(int n) { assert(n > 3); puts(__FILE__); puts(__BASE_FILE__); puts(__builtin_FILE());"
    " return helper(n) + R; }\n",
    "src/a.cc": '#include <cassert>\n#include <cstdio>\n#include <source_location>\n#include "sub/h.h"\n'
    '#include "r.h"\n'
    "namespace { struct Z { int q; }; template <class T> int size(T) { puts(__PRETTY_FUNCTION__);"
    " return sizeof(T); } }\n"
    "struct V { virtual ~V(); virtual int g(); };\nV::~V() {}\nint V::g() { return 1; }\n"
    'static int once = puts("a");\n'
    "int f(int n) { assert(n > 3); auto add = [n](int k) { return n + k; };"
    " puts(std::source_location::current().file_name()); puts(__builtin_FILE()); puts(__FILE__);"
    " return helper(add(n)) + size(add) + size(Z{n}) + once + R; }\n",
    "src/plain.c": '#include "r.h"\n#if __has_include(<s.h>)\n#include <s.h>\n#endif\n'
    "int plain(int n) { return n * R; }\n",
    "sys/s.h": "static inline const char *system_name(void) { return __FILE__; }\n"
    "static const char *(*volatile shown)(void) = system_name;\n",
    "src/sub/h.h": "#include <assert.h>\nstatic inline int helper(int a) { assert(a); return a * 3; }\n",
    "inc/r.h": "enum { R = 4 };\n",
}
EACH = ["gcc-12", "gcc-14", "clang-17", "clang-19", "clang-14"]
# `make nightly` asks the others as well.
COMPILERS = [
    "gcc-14", "clang-19",
    *(pytest.param(cc, marks=pytest.mark.nightly) for cc in ("gcc-12", "clang-17")),
]  # fmt: skip
# Two compilers stand for all where only hpcc's own rules count.
TWO = ["gcc", "clang-19"]
FULL = ["-ffile-prefix-map={root}=."]


def words(cc: str, source: str, flags: list[str], place: str = "{root}") -> list[str]:
    """Return a compile that names its files below `place`."""
    is_cxx = source.endswith(".cc")
    driver = cc.replace("gcc", "g++").replace("clang", "clang++") if is_cxx else cc
    standard = ["-std=c++20"] if is_cxx else []
    named = [f"-I{place}/inc", "-MD", "-c", f"{place}/src/{source}", "-o", "a.o"]
    return [driver, *standard, *flags, *named]


# ---- what must miss ----


@pytest.mark.parametrize("cc", TWO)
@pytest.mark.parametrize(
    "flags",
    [
        ["-g", "-fmacro-prefix-map={root}=."],  # the directory shows
        ["-g", "-ffile-prefix-map={root}/src=src"],  # and so does the header of inc
        ["-g", "-ffile-prefix-map={root}/build=b"],  # the sources show
        ["-g", "-ffile-prefix-map={root}/nothing=x"],
        ["-g", "-ffile-prefix-map={root}=X{root}"],
        ["-fdebug-prefix-map={root}=."],  # macros show
        ["-ffile-prefix-map={root}/inc=inc"],
        ["-g", "-gz", *FULL],  # its text was not asked for
        ["-fsanitize=address", *FULL],
        ["-g", "-S", *FULL],
    ],
)
def test_a_second_clone_misses_where_a_name_may_show(
    cc: str, flags: list[str], make: Make, move: Move
) -> None:
    first = make("p", FILES)
    command = words(cc, "a.c", flags)
    if "-S" in flags:
        command.remove("-c")
    assert first.compile(command) == "miss"
    assert first.compile(command) == "hit"
    assert move(first, "elsewhere/q").compile(command) == "miss"


@pytest.mark.parametrize("cc", TWO)
def test_maps_with_debug_information_and_another_build_directory_miss(cc: str, make: Make) -> None:
    """The map gives ./build and ./other."""
    project = make("p", FILES)
    command = words(cc, "plain.c", ["-g", *FULL])
    assert project.compile(command) == "miss"
    assert project.compile(command, "other") == "miss"


@pytest.mark.parametrize("cc", TWO)
@pytest.mark.parametrize("flags", [["-g"], []])
def test_a_header_beside_the_clone_whose_name_begins_like_it_misses(
    cc: str, flags: list[str], make: Make, move: Move, tmp_path: Path
) -> None:
    """The first clone's map meets /x/p-2/h.h, as text, and that of the second does not."""
    beside = tmp_path / "p-2"
    beside.mkdir()
    (beside / "near.h").write_text("static inline const char *near(void) { return __FILE__; }\n")
    age(beside)
    source = '#include "near.h"\nconst char *show(void) { return near(); }\n'
    first = make("p", {**FILES, "src/b.c": source})
    command = words(cc, "b.c", [*flags, *FULL, f"-I{beside}"])
    assert first.compile(command) == "miss"
    assert move(first, "q").compile(command) == "miss"
    # And the other way round: only the second clone's map meets it.
    first = make("r", {**FILES, "src/b.c": source + "int r;\n"})
    command = words(cc, "b.c", [*flags, *FULL, f"-I{tmp_path}/s-2"])
    beside.rename(tmp_path / "s-2")
    assert first.compile(command) == "miss"
    assert move(first, "s").compile(command) == "miss"


@pytest.mark.parametrize("cc", TWO)
@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    "line",
    [
        '#line 5 "{place}/gen.y"',
        '#line 5 "{octal}/gen.y"',
        '#define NAME "{octal}/gen.y"\n#line 5 NAME',
        '# 5 "{octal}/gen.y"',
        '#/* a */line 5 "{octal}/gen.y"',
        '%:line 5 "{octal}/gen.y"',
        '#li\\\nne 5 "{octal}/gen.y"',
        '#line 5 "{split}/gen.y"',
    ],
)
def test_a_line_directive_with_the_name_of_one_clone_misses(
    cc: str, line: str, is_first: bool, make: Make, move: Move, tmp_path: Path
) -> None:
    place = str(tmp_path / ("p" if is_first else "q"))
    octal = place.replace("/", "\\057", 1)
    split = place.replace("/", "/\\\n", 1)
    text = line.replace("{place}", place).replace("{octal}", octal).replace("{split}", split)
    source = f"{text}\nconst char *show(void) {{ return __FILE__; }}\n"
    first = make("p", {**FILES, "src/b.c": source})
    command = words(cc, "b.c", ["-g", *FULL])
    assert first.compile(command) == "miss"
    assert move(first, "q").compile(command) == "miss"


@pytest.mark.parametrize("cc", TWO)
def test_a_map_of_a_directory_above_keeps_the_place(cc: str, make: Make, move: Move) -> None:
    first = make("p", FILES)
    above = f"-ffile-prefix-map={first.root.parent}=."
    command = words(cc, "a.c", ["-g", above])
    assert first.compile(command) == "miss"
    assert move(first, "q").compile(command) == "miss"
    everything = words(cc, "a.c", ["-g", "-ffile-prefix-map==X"])
    assert first.compile(everything) == "miss"
    assert move(first, "r").compile(everything) == "miss"


@pytest.mark.parametrize("cc", [*COMPILERS, "clang-14"])
@pytest.mark.parametrize("flags", [["-g", *FULL], FULL])
def test_the_size_of_a_name_in_the_pretty_name_of_a_function(
    cc: str, flags: list[str], make: Make, move: Move
) -> None:
    """Clang 14 does not map it, so the object holds the length of the clone's name."""
    source = (
        "template <class T> int size(T) { return sizeof(__PRETTY_FUNCTION__); }\n"
        "int f(int n) { return size([n](int k) { return n + k; }); }\n"
    )
    first = make("p", {"src/b.cc": source})
    command = words(cc, "b.cc", [*flags, "-O1"])
    assert first.compile(command) == "miss"
    answer = "miss" if cc == "clang-14" else "hit"
    assert move(first, "much/longer").compile(command) == answer


@pytest.mark.parametrize("cc", TWO)
def test_another_text_of_the_map_misses(cc: str, make: Make, move: Move) -> None:
    first = make("p", FILES)
    assert first.compile(words(cc, "plain.c", ["-g", "-ffile-prefix-map={root}=."])) == "miss"
    second = move(first, "q")
    assert second.compile(words(cc, "plain.c", ["-g", "-ffile-prefix-map={root}=x"])) == "miss"
    assert second.compile(words(cc, "plain.c", ["-g", "-fdebug-prefix-map={root}=."])) == "miss"
    assert second.compile(words(cc, "plain.c", ["-g", "-ffile-prefix-map={root}/=."])) == "miss"


@pytest.mark.parametrize("cc", TWO)
def test_a_directory_that_the_shell_spells_through_a_link_misses(
    cc: str, make: Make, move: Move, tmp_path: Path
) -> None:
    first = make("p", FILES)
    command = words(cc, "plain.c", ["-g", *FULL])
    assert first.compile(command) == "miss"
    second = move(first, "q")
    (tmp_path / "link").symlink_to(second.root)
    second.env["PWD"] = f"{tmp_path}/link/build"
    assert second.compile(command) == "miss"


# ---- what hits ----


@pytest.mark.parametrize("cc", TWO)
@pytest.mark.parametrize("flags", [["-g", *FULL], ["-g"]])
def test_a_shell_variable_with_another_directory_changes_nothing(
    cc: str, flags: list[str], make: Make, move: Move
) -> None:
    """`cmake --build build` and `ninja -C build` pass on $PWD of the directory above."""
    first = make("p", FILES)
    command = words(cc, "plain.c", flags)
    first.env["PWD"] = f"{first.root}"
    assert first.compile(command) == "miss"
    first.env["PWD"] = "/"
    assert first.compile([*command[:-1], "b.o"]) == "hit"
    second = move(first, "longer/q")
    second.env["PWD"] = f"{second.root}"
    assert second.compile(command) == ("hit" if len(flags) > 1 else "miss")


@pytest.mark.parametrize("cc", TWO)
def test_a_link_that_leads_here_during_the_compile_is_noticed(
    cc: str, make: Make, tmp_path: Path
) -> None:
    """The object holds the link, and the key was made while it led elsewhere."""
    project = make("p", {**FILES, "build/x": ""})
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    project.env["PWD"] = str(link)

    def turn(_run: Run) -> None:
        link.unlink()
        link.symlink_to(project.root / "build")

    command = project.spell(words(cc, "plain.c", ["-g"]))
    cwd = project.root / "build"
    launcher = FakeLauncher(handler=project.cache, cwd=cwd, env=project.env, before_run=turn)
    assert launcher.compile(*command).answer == "run"
    assert os.fsencode(link) in (cwd / "a.o").read_bytes()
    link.unlink()
    link.symlink_to(tmp_path)
    assert project.compile([*command[:-1], "b.o"]) == "miss"


@pytest.mark.parametrize("cc", COMPILERS)
@pytest.mark.parametrize("source", ["a.c", "a.cc"])
@pytest.mark.parametrize(
    "flags",
    [
        ["-g", *FULL],
        ["-O2", *FULL],
        ["-g", "-O2", "-fdebug-prefix-map={root}=/s", "-fmacro-prefix-map={root}=q"],
        ["-g3", "-ffile-prefix-map={root}=/usr/src/p", "-ffile-prefix-map={root}/src=S"],
    ],
)
def test_a_second_clone_hits(
    cc: str, source: str, flags: list[str], make: Make, move: Move
) -> None:
    first = make("p", FILES)
    command = words(cc, source, flags)
    assert first.compile(command) == "miss"
    # Longer, and in a directory that sorts elsewhere beside /usr.
    assert move(first, "z/much/longer-than-that").compile(command) == "hit"
    assert move(first, "q").compile(command) == "hit"


@pytest.mark.parametrize("cc", COMPILERS)
@pytest.mark.parametrize("kept", ["", "{root}=."])
def test_a_second_build_directory_hits_with_a_map_for_it(cc: str, kept: str, make: Make) -> None:
    """CMake's Debug in build-a and build-b: only such a map makes their objects equal.

    With a map that meets the build directory as well, compilers differ in which one counts.
    """
    project = make("p", FILES)
    maps = [kept, "{root}/src=src", "{root}/inc=inc", "{root}/%s=build"]
    flags = ["-g", *(f"-ffile-prefix-map={m}" for m in maps if m)]
    for directory, answer in (("build-a", "miss"), ("build-b", "miss" if kept else "hit")):
        project.write(f"{directory}/CMakeCache.txt", "CMAKE_HOME_DIRECTORY:INTERNAL=x\n")
        age(project.root)
        named = [flag.replace("%s", directory) for flag in flags]
        assert project.compile(words(cc, "a.c", named), directory) == answer


@pytest.mark.parametrize("cc", TWO)
def test_sources_and_build_directory_beside_each_other_hit(cc: str, make: Make, move: Move) -> None:
    first = make("w", FILES, root_name="")
    first.write("src/.git/HEAD", "x")
    first.write("build-a/CMakeCache.txt", "CMAKE_HOME_DIRECTORY:INTERNAL=x\n")
    first.write("src/b.c", '#include "sub/h.h"\nint b(int n) { return helper(n); }\n')
    age(first.root)
    maps = ["-g", "-ffile-prefix-map={root}/src=.", "-ffile-prefix-map={root}/build-a=build"]
    command = [cc, *maps, "-c", "{root}/src/b.c", "-o", "b.o"]
    assert first.compile(command, "build-a") == "miss"
    second = move(first, "elsewhere/v")
    (second.root / "build-a").rename(second.root / "other")
    assert second.compile([w.replace("build-a", "other") for w in command], "other") == "hit"


@pytest.mark.parametrize("cc", TWO)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_header_whose_directory_begins_like_the_build_directory_misses(
    cc: str, is_first: bool, make: Make
) -> None:
    """The map of build meets build-2/n.h, as text, and that of other does not."""
    header = {"build-2/n.h": "static inline const char *n(void) { return __FILE__; }\n"}
    source = '#include "n.h"\nconst char *show(void) { return n(); }\n'
    project = make("p", {**FILES, **header, "src/b.c": source})
    maps = ["{root}/src=src", "{root}/%s=b"]
    flags = ["-g", *(f"-ffile-prefix-map={m}" for m in maps)]
    for directory in ("build", "other") if is_first else ("other", "build"):
        named = [flag.replace("%s", directory) for flag in flags]
        command = [cc, *named, "-I{root}/build-2", "-c", "{root}/src/b.c", "-o", "b.o"]
        assert project.compile(command, directory) == "miss"


@pytest.mark.parametrize("cc", TWO)
def test_the_root_as_working_directory_hits(cc: str, make: Make, move: Move) -> None:
    """A makefile with -ffile-prefix-map=$(CURDIR)=."""
    first = make("p", FILES)
    command = words(cc, "a.c", ["-g", *FULL], ".")
    assert first.compile(command, ".") == "miss"
    assert move(first, "longer/q").compile(command, ".") == "hit"
    absolute = words(cc, "a.c", ["-g", *FULL])
    assert first.compile(absolute, ".") == "miss"
    assert move(first, "longer/r").compile(absolute, ".") == "hit"


@pytest.mark.parametrize("cc", TWO)
def test_a_source_that_a_generator_wrote_hits(cc: str, make: Make, move: Move) -> None:
    source = (
        '#line 5 "gen.y"\nint made(void) { return 1; }\n# 9 "src/b.c"\nint b;\n#line 7\nint c;\n'
    )
    first = make("p", {**FILES, "src/b.c": source})
    command = words(cc, "b.c", ["-g", *FULL])
    assert first.compile(command) == "miss"
    assert move(first, "q").compile(command) == "hit"


@pytest.mark.parametrize("cc", TWO)
def test_an_edited_header_misses_in_the_second_clone(cc: str, make: Make, move: Move) -> None:
    first = make("p", FILES)
    command = words(cc, "a.c", ["-g", *FULL])
    assert first.compile(command) == "miss"
    second = move(first, "q")
    second.write("inc/r.h", "enum { R = 5 };\n")
    age(second.root)
    assert second.compile(command) == "miss"


# ---- every combination ----

_DEBUG = ("", "-g", "-g1", "-g3", "-gdwarf-4", "-g -gdwarf-5 -fdebug-types-section")
_MAPS = (
    "{root}=.", "{root}=/s", "{root}/=", "{root}/src=S", "{root}/build=b", "{root}/sub=q", "{root}/bu=x",
    ".=here", "..=up", "../src=up", "/usr=/u", "/usr/include=I", "{root}/build/=B/", "{root}/=./",
)  # fmt: skip
_KINDS = ("file", "debug", "macro")
_SPELLED = ("{root}", "..", "{root}/.", "{root}/src/..")
_REST = ("", "-O2", "-Os -fno-common", "-fPIC -isystem {root}/sys", "-O1 -isystem ../sys")
_SEED = 1


def combinations(cc: str, count: int) -> list[tuple[str, list[str]]]:
    """Return command lines that a generator with a fixed seed puts together."""
    choice = random.Random(f"{cc} {_SEED}")
    rows = []
    for _ in range(count):
        maps = [
            f"-f{choice.choice(_KINDS)}-prefix-map={choice.choice(_MAPS)}"
            for _ in range(choice.randint(1, 4))
        ]
        source = choice.choice(("a.c", "a.cc", "plain.c", "a.c"))
        flags = [*choice.choice(_DEBUG).split(), *maps, *choice.choice(_REST).split()]
        rows.append((source, words(cc, source, flags, choice.choice(_SPELLED))))
    return rows


COUNT = int(os.environ.get("HPCC_MAP_COMBINATIONS", "10"))


@pytest.mark.nightly
@pytest.mark.parametrize("cc", EACH)
def test_whatever_the_maps_are_each_clone_gets_its_own_bytes(
    cc: str, make: Make, move: Move
) -> None:
    """Hit or miss: `compile` compares all outputs with those of the compiler in that place."""
    first = make("p", FILES)
    places = [move(first, place) for place in ("p-2", "z/much/longer/place")]
    answers = []
    for (_, command), cwd in zip(
        combinations(cc, COUNT), itertools.cycle(("build", ".", "build", "src")), strict=False
    ):
        first.compile(command, cwd)
        answers += [place.compile(command, cwd) for place in places]
    assert cc == "clang-14" or answers.count("hit") >= COUNT // 5, answers
