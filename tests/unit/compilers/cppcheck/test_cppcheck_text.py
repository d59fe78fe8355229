"""Which names cppcheck may look up because of a text; simplecpp was traced with these forms."""

from __future__ import annotations

import pytest

from hpcc.compilers.cppcheck.text import read_names

NONE: list[str] = []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('#include "a.h"\n# include <b/c.h>\n', ['"a.h', "<b/c.h"]),
        ('#if 0\n\t#\tinclude"a.h"\n#endif', ['"a.h']),
        ('/*\n#include "a.h"\n*/ /**/ #include <b.h>', ['"a.h', "<b.h"]),
        ('#inc\\\nlude "a.h"\n', ['"a.h']),
        ('// x \\ \n#include "a.h"\n', ['"a.h']),
        ('R"(\n)"#include "a.h"\n', ['"a.h']),
        ('\r#include "a.h"\r', ['"a.h']),
        ('\x01#\x0binclude\xff"a.h"', ['"a.h']),
        ('s = "x\\\ny" #include "a.h"\n', ['"a.h']),  # its own line for simplecpp
        ("c = 'x\\\r\n' #include <a.h>\n", ["<a.h"]),
        ('#\\\x01\ninclude "a.h"\n', ['"a.h']),
        ("#define F(line) x \\\n y #line\n", NONE),
        ("#include_next <a.h>\n", ["<a.h"]),
        ('#if defined(__has_include) && __has_include(<a.h>) || __has_include ( "b.h" )', ["<a.h", '"b.h']),
        ("#ifdef __has_include\n#ifndef __has_include\n", NONE),
        ("// #include MACRO\n * the #include of it\n#includes X\n", NONE),
        ('char c[] = "#000000"; // see #12 "x"\n', NONE),
        ("int x; #include MACRO\n", NONE),
    ],
)  # fmt: skip
def test_names_of_a_certain_text(text: str, names: list[str]) -> None:
    found = read_names(text.encode("latin-1"))
    assert {'<"'[quoted] + name.decode() for quoted, name in found.names} == set(names)
    assert not found.is_opaque


@pytest.mark.parametrize(
    "text",
    [
        "#include MACRO\n", "#include L'x'\n", "#include\n", '#include ""\n', "#include <a b>\n",
        '#include "a\\b"\n', '#include "dir/"\n', '#include /* */ "a.h"\n', '#/**/include "a.h"\n',
        '/* x */ #line 3\n', "#line 3\n", '# 1 "f"\n', '#1"f"', '#file "f"\n', "#endfile\n", '# // \n',
        "#define H __has_include\n", "#define H(x) __has_include(x)\n", "a __has_ ## b",
        '#define H __has_include("a.h")\n', '#define H /*\n#if */ __has_include("a.h")\n', '#define H \\\n__has_include("a.h")\n',
        "P(__has_, include)", "P(_, _has_include)", "P(__, has_, x)", "P(__, h, as_include)",
        "// x\\\nJ(__, TIME, __)", 'R"' + "x" * 17 + '(\n)" #include "a.h"\n', 'u8R"x y(\n', "\xff\xff", "\xfe\xfe",
        "\xff\xfe#\0", "\xfe\xff", "J(__TI, ME__)", "J(_, _DATE__)", "#include <a", "#include <a//b>\n", "#if __has_include(<a//b>)\n", "#include <a->\n", '#include "' + "x" * 5000 + '"',
    ],
)  # fmt: skip
def test_other_texts_are_opaque(text: str) -> None:
    assert read_names(text.encode("latin-1")).is_opaque


@pytest.mark.parametrize(
    "piece",
    [
        "#include <",
        "#1",
        "# ",
        "\\ ",
        "__has_include",
        '\n#include "',
        "/*#",
        "//",
        "//\\\n",
        'R"(',
    ],
)
def test_a_hostile_text_is_read_in_linear_time(piece: str) -> None:
    read_names(piece.encode() * 5_000)
