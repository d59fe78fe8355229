"""A result with messages survives an edited comment, unless the compiler quotes it.

`Project.compile` compares the messages with those of the bare compiler.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Project, age

FILES = {
    "src/a.c": (
        '#include <stdio.h>\n#include <stdlib.h>\n#include "h.h"\n/* top */\nint h(int x, const char *y);\n'
        "int f(int x) { int unused = x; return H; } // near\n"
        "int g(void) {\n\tint other;\n\treturn h(1,\n\t/* middle\n\t   of it */\n\t2); }\n// end\n"
    ),
    "inc/h.h": "#ifndef H\n#define H 3 // three\nstatic int s(int x) { int t; return x; } // s\n#endif\n",
}
FLAGS = ["-O2", "-Wall", "-Wno-error", "-Wno-int-conversion", "-Wint-conversion"]
WORDS = [*FLAGS, "-I{root}/inc", "-c", "{root}/src/a.c", "-o", "a.o"]
EDITS = [
    ("src/a.c", "/* top */", "/* summit */", "hit"),
    ("src/a.c", "// end", "// the end", "hit"),
    ("inc/h.h", "// three", "// of five", "hit"),
    ("src/a.c", "// near", "// far", "miss"),
    ("src/a.c", " // near", "", "miss"),
    ("src/a.c", "other;", "other; // more", "miss"),
    ("inc/h.h", "// s", "// static", "miss"),
]


def _edit(project: Project, name: str, old: str, new: str) -> None:
    text = (project.root / name).read_text()
    assert old in text
    project.write(name, text.replace(old, new))
    age(project.root)


@pytest.mark.parametrize(("name", "old", "new", "expected"), EDITS)
@pytest.mark.parametrize(("cc", "locale"), [("gcc", "C.UTF-8"), ("clang-19", "C")])
def test_an_edited_comment_hits_unless_it_is_quoted(
    cc: str,
    locale: str,
    name: str,
    old: str,
    new: str,
    expected: str,
    make: Callable[..., Project],
) -> None:
    project = make("p", FILES)
    project.env["LANG"] = locale
    assert project.compile([cc, *WORDS]) == "miss"
    _edit(project, name, old, new)
    assert project.compile([cc, *WORDS]) == expected
    assert project.compile([cc, *WORDS]) == "hit"


@pytest.mark.parametrize(
    "flag", ["-fno-diagnostics-show-caret", "-fdiagnostics-color=always", "-fno-show-column"]
)
@pytest.mark.parametrize(("name", "old", "new"), [EDITS[0][:3], EDITS[3][:3], EDITS[6][:3]])
@pytest.mark.parametrize("cc", ["gcc", "clang-19"])
def test_messages_in_another_form_are_right(
    cc: str, name: str, old: str, new: str, flag: str, make: Callable[..., Project]
) -> None:
    project = make("p", FILES)
    assert project.compile([cc, flag, *WORDS]) == "miss"
    _edit(project, name, old, new)
    project.compile([cc, flag, *WORDS])


@pytest.mark.parametrize("cc", ["gcc", "clang-19"])
def test_a_comment_between_quoted_lines_is_right(cc: str, make: Callable[..., Project]) -> None:
    project = make("p", FILES)
    assert project.compile([cc, *WORDS]) == "miss"
    _edit(project, "src/a.c", "   of it */", "   of that */")
    project.compile([cc, *WORDS])
    _edit(project, "src/a.c", "/* middle", "/* amid")
    project.compile([cc, *WORDS])


@pytest.mark.parametrize(("name", "old", "new", "expected"), EDITS[::3])
def test_a_clang_that_numbers_no_lines_is_right(
    name: str, old: str, new: str, expected: str, make: Callable[..., Project]
) -> None:
    project = make("p", FILES)
    assert project.compile(["clang-14", *WORDS]) == "miss"
    _edit(project, name, old, new)
    assert project.compile(["clang-14", *WORDS]) in {"miss", expected}
