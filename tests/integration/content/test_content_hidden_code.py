"""What stands behind a text that seems to begin a comment counts, in hits of every kind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Project, age

WORDS = ["clang-19", "-w", "-I{root}/inc", "-MD", "-c", "{root}/src/a.c", "-o", "a.o"]
HIDING = {
    "prose in a skipped block": "#if 0\ndon't /*\n#endif\n",
    "a header's name": "#include <s/*y.h>\n",
    "a character of many letters": 'int zz = \'aaaaaaaaa"\' + "/*"[0];\n',
    "a trigraph": "// what??/\n",
}
END = '\n/* */ /* " */\n'


@pytest.mark.parametrize("begin", HIDING.values(), ids=HIDING)
@pytest.mark.parametrize(
    "code",
    [
        "#define N <later.h>\n#if __has_include(N)\nint q;\n#endif",
        "#define M(x) <x>\n#if __has_include(M(later.h))\nint q;\n#endif",
        '__asm__("." "incbin \\"data\\"");',
    ],
)
def test_a_question_and_an_embedded_file_are_inputs(
    begin: str, code: str, make: Callable[..., Project]
) -> None:
    files = {"inc/s/*y.h": "int y;\n", "build/data": "abc", "src/a.c": begin + code + END}
    project = make("p", files)
    assert project.compile(WORDS) == "miss"
    project.write("inc/later.h", "")
    project.write("build/data", "abd")
    age(project.root)
    assert project.compile(WORDS) == "miss"


def test_what_seems_a_raw_string_in_a_pragma_hides_no_embedded_file(
    make: Callable[..., Project],
) -> None:
    code = '#pragma foo R"(\n__asm__(".incbin \\"data\\"");\nint v = sizeof(")" "");\n'
    project = make("p", {"build/data": "abc", "src/a.c": code})
    assert project.compile([WORDS[0], "-std=c11", *WORDS[1:]]) == "miss"
    project.write("build/data", "abd")
    age(project.root)
    assert project.compile([WORDS[0], "-std=c11", *WORDS[1:]]) == "miss"
