"""Words of a text with which a macro's name could be put together."""

from __future__ import annotations

import pytest

from hpcc.cache.content.macros import words_at_start
from hpcc.compilers.scan.comments import LexMode

C17 = LexMode(has_line_comments=True, has_digit_separators=False, keeps_end=False)
CXX17 = LexMode(has_line_comments=True, has_digit_separators=True, has_raw_strings=True)
C90 = LexMode(has_line_comments=False, has_digit_separators=False)


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        (b"lib lib_EX xlib_V libx", {3}),
        (b"int lib_V;", {5}),
        (b"lib\\\n_V", {3, 5}),
        (b"lib\\ \t\r\n_V", {3, 5}),
        (b"a /* lib */\nb; // lib_\n", set()),
        (b"a /* lib */ b // lib_\n", {3}),
        (b'"lib_"', {4}),
        (b"2lib_V", set()),
        (b"$lib_V", {5}),  # in an assembler source
        (b"lib_V$", {5}),
        (b"x$lib_$V", {4}),
        ("\u00e9lib_V".encode(), {5}),
        (b"other", set()),
    ],
)
def test_only_whole_words_of_code_count(text: bytes, lengths: set[int]) -> None:
    assert words_at_start(text, b"lib_V", C17) == lengths


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        (b"int a; // lib_V\n", None),
        (b"int a = 8 //**/ lib_V\n;", C90),
        (b'#if 0\nit " says /*\n#endif\nint a = lib_V;\n/* */\n', C17),
        (b"#if 0\ndon't /*\n#endif\nint a = lib_V;\n/* */\n", C17),
        (b'int a = \'aaaaaaaaa"\' + "//"[0] + lib_V;\n', C17),
        (b"#include <s/*y.h>\nint a = lib_V;\n/* */\n", C17),
        (b'int a = P(R"(")"//"[0] + lib_V;\n', C17),
        (b"int a = f(1'0,\"a'b //\", lib_V\n);\n", CXX17),
        (b'int a = f(R"x()\\\nx" // )x", lib_V\n);\n', CXX17),
        (b'int a = f(R"x(' + b"y" * 70_000 + b'" // )x", lib_V\n);\n', CXX17),
        (b'char *s = R"(x\\\nlib_V)";\n', CXX17),
    ],
)
def test_a_word_counts_where_comments_are_unclear(text: bytes, mode: LexMode | None) -> None:
    assert 5 in words_at_start(text, b"lib_V", mode)


def test_a_digit_may_come_from_anywhere() -> None:
    assert words_at_start(b"", b"12") == {1, 2}


def test_a_trigraph_may_join_lines() -> None:
    assert words_at_start(b"l??/\nib", b"lib") == {1, 2, 3}
