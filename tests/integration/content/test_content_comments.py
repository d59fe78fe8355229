"""An edited comment rebuilds nothing where the compiler cannot see it, and everything where it can."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Project, age

HEADER = "/* before\n   and more */\n#ifndef H\n#define H 3 // three\nint h(int x); /* declared */\n#endif\n"
FILES = {
    "src/a.c": '#include <stdio.h>\n#include "h.h"\n// first\nint f(int x) { return h(x) + H; } /* near */\n\n',
    "inc/h.h": HEADER,
}
WORDS = ["-I{root}/inc", "-MD", "-MF", "a.d", "-c", "{root}/src/a.c", "-o", "a.o"]


def _edited(project: Project, name: str, old: str, new: str) -> None:
    text = (project.root / name).read_text()
    assert old in text
    project.write(name, text.replace(old, new))
    age(project.root)


@pytest.fixture(params=["gcc", "clang-19"])
def cc(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("inc/h.h", "// three", "// of five, or so"),
        ("inc/h.h", "/* declared */", "/* specified */"),
        ("inc/h.h", "/* before\n   and more */", "/* afterwards\n   or less */"),
        ("src/a.c", "// first", "// second"),
        ("src/a.c", "/* near */", "/* far, or not */"),
    ],
)
def test_an_edited_comment_hits(
    cc: str, name: str, old: str, new: str, make: Callable[..., Project]
) -> None:
    project = make("p", FILES)
    assert project.compile([cc, "-O2", "-Wall", *WORDS]) == "miss"
    _edited(project, name, old, new)
    assert project.compile([cc, "-O2", "-Wall", *WORDS]) == "hit"
    assert project.compile([cc, "-O2", "-Wall", *WORDS]) == "hit"
    _edited(project, name, new, old)
    assert project.compile([cc, "-O2", "-Wall", *WORDS]) == "hit"


@pytest.mark.parametrize(("debug", "expected"), [("gcc", "hit"), ("clang-19", "miss")])
def test_debug_information_of_clang_holds_a_hash_of_each_file(
    debug: str, expected: str, make: Callable[..., Project]
) -> None:
    project = make("p", FILES)
    assert project.compile([debug, "-g", *WORDS]) == "miss"
    _edited(project, "inc/h.h", "// three", "// four")
    assert project.compile([debug, "-g", *WORDS]) == expected


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("// three", "// three\n"),  # another line for all that follows
        ("int h(int x); /*", "int  h(int x); /*"),  # another column
        ("// three", "// three \\"),  # the next line becomes a part of it
        ("/* declared */", "int g; /* declared */"),
        ("// three", "/* three"),  # up to the next */
    ],
)
def test_what_the_compiler_sees_misses(
    cc: str, old: str, new: str, make: Callable[..., Project]
) -> None:
    project = make("p", FILES)
    assert project.compile([cc, "-O2", *WORDS]) == "miss"
    _edited(project, "inc/h.h", old, new)
    assert project.compile([cc, "-O2", *WORDS]) == "miss"


def test_a_comment_that_allows_a_fall_through_counts(make: Callable[..., Project]) -> None:
    text = "int f(int x)\n{\n    switch (x) {\n    case 1: x++; // fall through\n    case 2: x++;\n    }\n    return x;\n}\n"
    project = make("p", {"src/a.c": text, "inc/h.h": ""})
    words = ["gcc", "-Wextra", "-Werror", *WORDS]
    assert project.compile(words) == "miss"
    _edited(project, "src/a.c", "// fall through", "// or not, as it is")
    assert project.compile(words) == "miss"


def test_a_comment_that_makes_two_headers_twins_counts(
    cc: str, make: Callable[..., Project]
) -> None:
    """With equal bytes and times GCC reads only one of them."""
    one, two = "#pragma once\nstatic int x; // a\n", "#pragma once\nstatic int x; // b\n"
    source = '#include "one.h"\n#include "two.h"\nint *f(void) { return &x; }\n'
    project = make("p", {"src/a.c": source, "inc/one.h": one, "inc/two.h": two})
    assert project.compile([cc, *WORDS]) == "miss"
    _edited(project, "inc/two.h", "// b", "// a")
    assert project.compile([cc, *WORDS]) == "miss"


def test_a_comment_before_a_token_keeps_its_width(cc: str, make: Callable[..., Project]) -> None:
    """Columns are in the object without debug information, too."""
    text = "const char *g(void);\nint f(void) { /* a */ return __builtin_LINE() + (g() != 0); }\n"
    project = make("p", {"src/a.c": text, "inc/h.h": ""})
    assert project.compile([cc, *WORDS]) == "miss"
    _edited(project, "src/a.c", "/* a */", "/* ab */")
    assert project.compile([cc, *WORDS]) == "miss"


def test_an_edited_comment_hits_in_a_moved_project(
    cc: str, make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    project = make("p", FILES)
    assert project.compile([cc, "-O2", *WORDS]) == "miss"
    moved = move(project, "q")
    _edited(moved, "inc/h.h", "// three", "// four, in this clone")
    assert moved.compile([cc, "-O2", *WORDS]) == "hit"


def test_columns_that_gcc_drops_are_not_moved(make: Callable[..., Project]) -> None:
    """GCC before 15 gives up columns when a compile has used many locations."""
    comment = "x" * 5
    header = "#define CAT(a, b) CAT_(a, b)\n#define CAT_(a, b) a##b\n" + "".join(
        f"int CAT(v{i}_, N); // {comment}\n" for i in range(9000)
    )
    uses = "".join(f'#undef N\n#define N {n}\n#include "x.def"\n' for n in range(16))
    project = make("p", {"src/a.c": uses, "inc/x.def": header})
    words = ["gcc", *WORDS]
    assert project.compile(words) == "miss"
    _edited(project, "inc/x.def", f"// {comment}\n", f"// {comment * 194}\n")
    assert project.compile(words) == "miss"


def test_headers_of_intrinsics_do_not_use_up_the_locations(make: Callable[..., Project]) -> None:
    files = {**FILES, "src/a.c": "#include <immintrin.h>\n" + FILES["src/a.c"]}
    project = make("p", files)
    assert project.compile(["gcc", "-O2", "-mavx2", *WORDS]) == "miss"
    _edited(project, "src/a.c", "// first", "// second")
    assert project.compile(["gcc", "-O2", "-mavx2", *WORDS]) == "hit"


@pytest.mark.parametrize("text", ['asm(".incbin \\"d.h\\"");\n', 'asm(".include \\"d.h\\"");\n'])
def test_a_comment_in_a_file_that_is_read_as_data_misses_and_others_hit(
    cc: str, text: str, make: Callable[..., Project]
) -> None:
    project = make("p", {**FILES, "src/a.c": text + FILES["src/a.c"], "inc/d.h": "/* one */\n"})
    assert project.compile([cc, "-O2", *WORDS]) == "miss"
    _edited(project, "inc/d.h", "one", "two")
    assert project.compile([cc, "-O2", *WORDS]) == "miss"
    _edited(project, "src/a.c", "// first", "// second")
    assert project.compile([cc, "-O2", *WORDS]) == "hit"
    _edited(project, "src/a.c", "// second", "// third")
    _edited(project, "inc/d.h", "two", "six")
    assert project.compile([cc, "-O2", *WORDS]) == "miss"


def test_a_comment_beside_assembly_that_a_macro_makes_hits(
    cc: str, make: Callable[..., Project]
) -> None:
    text = '#define A(x) asm(#x)\nA(nop);\nint j(int x) { asm("" : "+r"(x)); return x; }\n'
    project = make("p", {**FILES, "src/a.c": text + FILES["src/a.c"]})
    assert project.compile([cc, "-O2", *WORDS]) == "miss"
    _edited(project, "inc/h.h", "// three", "// four")
    assert project.compile([cc, "-O2", *WORDS]) == "hit"
    _edited(project, "src/a.c", "A(nop)", "A(nop; nop)")
    assert project.compile([cc, "-O2", *WORDS]) == "miss"
