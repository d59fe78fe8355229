"""Which comments lose their text, and for which files there is no such form."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.compilers.scan.comments import (
    MAX_GCC_LOCATIONS,
    MAX_LINE_BYTES,
    LexMode,
    gcc_locations,
)
from hpcc.compilers.scan.comments import comment_free as form_of

C90 = LexMode(has_line_comments=False, has_digit_separators=False, has_doc_comments=False)
C17 = LexMode(has_line_comments=True, has_digit_separators=False, has_doc_comments=False)
CXX20 = LexMode(has_line_comments=True, has_digit_separators=True, has_raw_strings=True)
C23 = replace(CXX20, has_raw_strings=False)
CLANG = LexMode(has_line_comments=True, has_digit_separators=True, has_doc_comments=True)

_END = b"\nend;\n"


def comment_free(data: bytes, mode: LexMode) -> bytes | None:
    """Return the text of a form."""
    form = form_of(data, mode)
    return None if form is None else form.text


_EQUAL = [
    (b"f(); // one", b"f(); // two"),
    (b"f();// one", b"f();\t // two"),
    (b"f(); /* one */", b"f();   /* two, longer */"),
    (b"f(); /* one\n * x */", b"f(); /* other text\n * more text */"),
    (b"/* one\n\t\n   two */", b"/*\n\t\n   3 */"),
    (b"    // one", b"    // two"),
    (b"#define A 1 // one", b"#define A 1 // two"),
    (b"#define A 1 /* one\n b */", b"#define A 1 /* two\n c */"),
    (b'#include <a/b.h> // "one"', b'#include <a/b.h> // "two"'),
    (b'#include "a//b.h" // one', b'#include "a//b.h" // two'),
    (b"#if 0 // one\n#endif", b"#if 0 // two\n#endif"),
    (b"x = '\\''; // one", b"x = '\\''; // two"),
    (b'x = "/*"; // one', b'x = "/*"; // two'),
    (b'x = R"(a//b)"; // one', b'x = R"(a//b)"; // two'),
    (b'x = fooR"a(b"; // one', b'x = fooR"a(b"; // two'),
    (b"#define A \\\n  1 // one", b"#define A \\\n  1 // two"),
    (b"x = *p-'0' + e+'0'; // one", b"x = *p-'0' + e+'0'; // two"),
    (b"S(a // one\n+b)", b"S(a // two\n+b)"),
    (b"a / // one", b"a / // two"),
    (b"x; // a ' quote", b'x; // a " quote'),
    (b"x; // # if 0", b"x; // # endif"),
    # Whether there is one, its kind, and blanks without one.
    (b"f(); \t", b"f();"),
    (b"f();\n  \ng();", b"f();\n\ng();"),
    (b"f(); // one", b"f();"),
    (b"f(); /* one */", b"f();"),
    (b"f(); /* a */ // one", b"f(); /* b */"),
    (b"// one\nf();", b"\nf();"),
    (b"  /* one\n   * two */\n  f();", b"\n\n  f();"),
    (b"  // one\n  // two\nf();", b"\n    /* one */\nf();"),
    (b"f(); /* one\n * two */", b"f();\n"),
    # A backslash that joins no lines, other alphabets, trigraphs that mean nothing.
    (b"f(); // \\param", b"f(); // one"),
    (b"f(); /* \\ */", b"f(); /* \\n */"),
    (b"f(); // @param, else, break, lint", b"f(); // one"),
    (b"f(); // \xc3\xa9 \xe2\x80\x93 \xf0\x9f\x98\x80", b"f(); // one"),
    (b'x = "\xc3\xa9"; // one', b'x = "\xc3\xa9"; // two'),
    (b"f(); // what??!", b"f(); // ??'"),
    (b"f(); /* any??/text */", b"f(); /* one */"),
    # Strings of several lines, raw ones with quotes, and constants of several characters.
    (b'x = "a\\\nb"; // one', b'x = "a\\\nb"; // two'),
    (b'x = "\\\n  // a\\\n  \\"/* b"; // one', b'x = "\\\n  // a\\\n  \\"/* b"; // two'),
    (b'x = R"(a"b)"; // one', b'x = R"(a"b)"; // two'),
    (b'x = LR"(a\\)"; // one', b'x = LR"(a\\)"; // two'),
    (b'x = u8R"x(\'"\')"/*)x"; // one', b'x = u8R"x(\'"\')"/*)x"; // two'),
    (b"x = '<<' + '[a b]' + 'a/b'; // one", b"x = '<<' + '[a b]' + 'a/b'; // two"),
    # Directives in which a bracket or a backslash belongs to no header's name.
    (b"#if A /* <a//b> */ && 1 // one\n#endif", b"#if A /* <a//b> */ && 1 // two\n#endif"),
    (
        b"#if A /* <a\\\n//b> */ \\\n && 1\n#endif // one",
        b"#if A /* <a\\\n//b> */ \\\n && 1\n#endif",
    ),
    (b"#if A // <a//b>\n#endif", b"#if A // two\n#endif"),
    (
        b"#if L'\\0'-1 > 0 || '\"' == 34 \\\n || 1\n#endif // one",
        b"#if L'\\0'-1 > 0 || '\"' == 34 \\\n || 1\n#endif",
    ),
]


@pytest.mark.parametrize(("one", "two"), _EQUAL)
def test_a_comment_at_the_end_of_a_line_may_have_any_text(one: bytes, two: bytes) -> None:
    result = comment_free(one + _END, CXX20)
    assert result is not None
    assert result == comment_free(two + _END, CXX20)


_DIFFERENT = [
    # The column of a token behind it, and its blanks.
    (b"/* one */ f();", b"/* other */ f();"),
    (b"/* one */ f();", b"/*\tone*/ f();"),
    (b"/*\n one */ f();", b"/*\n two */ f();"),
    (b"S(a/**/+b)", b"S(a+b)"),
    (b"#define A 1 /* one */ + 2", b"#define A 1 /* two */ + 2"),
    (b"x /* one */ \\\n y", b"x /* two */ \\\n y"),
    (b"x /* one */ \f", b"x /* two */ \f"),
    # A line that is indented less than the code that follows.
    (b"  // one\n    f();", b"    // one\n    f();"),
    (b"  // one\n    f();", b"\n    f();"),
    (b"/*\n one */\n    f();", b"/*\n    one */\n    f();"),
    (b"\t// one\n        f();", b"        // one\n        f();"),
    (b"/*\n*/", b"/*\n\n*/"),
    # A line that looks like a directive to a tool that reads lines.
    (b"/*\n#if 0\n*/", b"/*\n#if 1\n*/"),
    # Blanks before other blanks than these.
    (b"f(); \f", b"f();\f"),
    # Comments that compilers read.
    *(
        (b"f(); // " + word, b"f(); // one")
        for word in (b"FALLTHRU", b"Fall-\tThru", b"-fallthrough")
    ),
    (b"f(); /* falls thru */", b"f(); /* it falls through */"),
    (b"f(); // a /* b", b"f(); // a * b"),
    (b"f(); // a\fb", b"f(); // a b"),
    (b"f(); // a\fb", b"f();"),
    # Text in another direction, and bytes that are not UTF-8.
    (b"f(); // \xe2\x80\xae a", b"f(); // a"),
    (b"f(); // \xe2\x81\xa6 a", b"f(); // \xe2\x81\xa7 a"),
    (b"f(); // \xe9", b"f(); // \xe8"),
    (b"f(); // \xc3", b"f(); // \xc3\xa9"),
    # Joined lines within a comment.
    (b"/* one \\\n two */", b"/* two \\\n one */"),
    # The ends of lines.
    (b"f(); // one\r\n\r\nend;\r\n", b"f(); // one\n\nend;\n"),
]


@pytest.mark.parametrize(("one", "two"), _DIFFERENT)
def test_what_a_compiler_can_see_stays_in_the_result(one: bytes, two: bytes) -> None:
    end = b"" if one.endswith(b"\n") else _END
    first, second = comment_free(one + end, CXX20), comment_free(two + end, CXX20)
    assert first is not None
    assert second is not None
    assert first != second


@pytest.mark.parametrize("tail", [b"// one", b"// one\n", b"/* one */\n", b"/* one\n */ \t\n"])
def test_the_last_line_keeps_its_comment_since_the_end_of_the_file_has_a_column(
    tail: bytes,
) -> None:
    assert comment_free(b"f(); " + tail, CXX20) == b"f(); " + tail


_UNCLEAR = [
    # Bytes that only some compilers read as text, and ends of lines that only some of them see.
    b"int \xc3\xa9; // one",
    b"#define A \xe9 // one",
    b"f(); // one\r\n",
    b"\xef\xbb\xbff(); // one",
    b"f(); // one\rg();",
    b"f(); // one\0",
    b"f(); // one\x01",
    b"f(); // one\x1a",
    # Splices and trigraphs.
    b"f(); // one\\\ng();",
    b"f(); // one\\ \ng();",
    b"/* a *\\\n/ f(); */",
    b"/* a *\\ \t\n/ f(); */",
    b"f(); // one??/\ng();",
    b"f(); // one??/",
    b'x = "??/""; // one',
    b"x ??// one",
    b"x = 1 ??' 2; // it's",
    b"x = \xc3\xa9'a'; // one",
    b"??=define A // one",
    b"a ??' b // one",
    b"f() /\\\n/ one",
    b"f() \\ \n // one",
    b'R\\\n"(" // one',
    b'x = "a\\ \nb"; // one',
    b'x = "a??/\nb"; // one',
    b"x \\y // one",
    # Quotes without an end, and prose.
    b"#if 0\ndon't // one\n#endif",
    b"#if 0\ndon't and isn't // one\n#endif",
    b'#error "one // two',
    b"x = ''; // one",
    b"x = 'ab' 'c // d",
    b"foo'a' // one",
    # Numbers with a digit separator where it does not look like one.
    b"#if 0\n1.'x' /* '\n#endif\n/* */",
    b"#if 0\n1.u'x' /* '\n#endif\n/* */",
    b"#if 0\n1e+'x' /* '\n#endif\n/* */",
    b"#if 0\n0x1p-u'x' /* '\n#endif\n/* */",
    b"#if 0\n$5'0' // one\n#endif",
    b"#if 0\n" + b"1" * 100 + b"e+'x' // '\n#endif",
    # Raw strings that a compiler without them reads otherwise.
    b'x = R"(\n)"; // one',
    b'x = fooR"(a"b)"; // one',
    b'x = 1.R"(a"b)"; // one',
    b'x = 1e+u8R"(a"b)"; // one',
    b'x = $R"(a"b)"; // one',
    b'x = R"(a??/"b)"; // one',
    # Names of headers.
    b"#include <a//b>",
    b"#include <a/*b> // */",
    b"#include <it's> // one's>",
    b'#include "a\\" // one "',
    b"#if __has_include(<a//b>)\n#endif",
    b"#if 1 && \\\n  HAS(<a//b>)\n#endif",
    b"#include <a \\\n//b>",
    b"#if A < 1 || HAS(<a//b>) // one\n#endif",
    b"%: include <a//b>",
    b"/* a */ #include <a//b>",
    b"/* a */ \\\n#include <a//b>",
    b" \\\n#include <a//b>",
    b"# \\\n include <a//b>",
    b"#if /* one\n */ HAS(<a//b>)\n#endif",
    b"#if HAS /* one\n */ (2)\n#endif",
    b"#if /* one */ HAS(<a//b>)\n#endif",
    b"#if 'a' == 'a' /* one */ && HAS(<a//b>)\n#endif",
    b'#if \'a\' && HAS("a\\" // one ")\n#endif',
    b"import <a//b>;",
    # No end.
    b"f(); /* one",
    b"x" * MAX_LINE_BYTES + b"; // one",
]


@pytest.mark.parametrize("text", _UNCLEAR)
def test_a_file_that_could_be_read_in_two_ways_has_no_form(text: bytes) -> None:
    assert comment_free(text + _END + b"// more\n\n", CXX20) is None


@pytest.mark.parametrize(
    "text", [b'x = R"(a"b)"; // one', b'x = LR"(a\\)"; // one', b'x = u8R"(\'"\')"; // one']
)
def test_a_raw_string_is_clear_only_where_the_language_has_them(text: bytes) -> None:
    assert comment_free(text + _END, CXX20) == text.removesuffix(b" // one") + _END
    assert comment_free(text + _END, C23) is None


def test_two_slashes_are_no_comment_in_c90() -> None:
    assert comment_free(b"x = 4 //**/ 2\n;\n\n", C90) is None
    assert comment_free(b"x = 4; /* // one */" + _END, C90) == b"x = 4;" + _END
    assert comment_free(b"x = 4 //**/ 2" + _END, C17) == b"x = 4" + _END


def test_the_first_two_slashes_of_a_file_can_be_seen() -> None:
    one, two = form_of(b"f(); // one" + _END, C17), form_of(b"f(); /* one */" + _END, C17)
    assert one is not None
    assert two is not None
    assert one.text == two.text
    assert one.has_line_comments
    assert not two.has_line_comments


def test_without_lines_comments_take_no_place() -> None:
    free = replace(CXX20, keeps_end=False, keeps_lines=False)
    text = b"// one\n\n/* two\n * three */\nf(); // four\n\n\tg();\n/* five */\n"
    assert comment_free(text, free) == b"f();\n\tg();\n"
    assert comment_free(text, replace(CXX20, keeps_end=False)) == b"\n\n\n\nf();\n\n\tg();\n"
    # An empty line ends a macro, and one indented less than the code is seen.
    kept = b"#define A 1 \\\n\nf();\n  // one\n    g();\n"
    assert comment_free(kept, free) == kept.replace(b"// one", b"/**/")
    # Lines within a comment that a warning reads, and between comments that Clang joins.
    kept = b"/* falls through\n\n*/\nf();\n"
    assert comment_free(kept, free) == kept
    doc = b"/// one\n\n/// two\nf();\n"
    assert comment_free(doc, replace(free, has_doc_comments=True)) == doc


@pytest.mark.parametrize(
    "text", [b"fall back", b"falls\nthrough", b"fall. Through", b"waterfall, through", b"FALL TH"]
)
def test_gcc_takes_few_comments_for_a_mark_of_a_case(text: bytes) -> None:
    source = b"f();\n/* " + text + b" */\ng();\n"
    lines = b"\n" * (text.count(b"\n") + 1)
    assert comment_free(source, CXX20) == b"f();\n" + lines + b"g();\n"


def test_a_mark_of_a_case_is_text_if_no_warning_reads_it() -> None:
    source = b"f(); // fall through" + _END
    assert comment_free(source, CXX20) == source
    assert comment_free(source, replace(CXX20, reads_fall_through=False)) == b"f();" + _END
    # What else a warning reads stays.
    source = b"f(); // fall through /* one" + _END
    assert comment_free(source, replace(CXX20, reads_fall_through=False)) == source


def test_a_quote_in_a_number_is_clear_only_with_digit_separators() -> None:
    text = b"x = 1'000'000 + 0xf'f; // one" + _END
    assert comment_free(text, CXX20) == text.replace(b" // one", b"")
    assert comment_free(text, C17) is None
    assert comment_free(b"x = a'1; // one" + _END, CXX20) is None


@pytest.mark.parametrize("mark", [b"/// ", b"//! ", b"//< ", b"/** ", b"/*! ", b"/*< "])
def test_clang_may_warn_about_documentation_so_it_keeps_its_text(mark: bytes) -> None:
    end = b" */" if mark[1:2] == b"*" else b""
    text = b"f(); " + mark + b"one" + end + _END
    assert comment_free(text, CLANG) == text
    assert comment_free(text, CXX20) != text


def test_a_long_table_of_lines_has_a_bound_of_locations() -> None:
    assert gcc_locations(b"int a;\n" * 10) == 11 << 7
    assert gcc_locations(b" " * 90 + b"\n") == 2 << 8
    assert gcc_locations(b" " * 900_000) == 1 << 13
    assert gcc_locations(b"\n" * 2_000_000) > MAX_GCC_LOCATIONS


_PIECES = st.sampled_from(
    [
        b"a", b"R", b"u8", b"L", b"1", b"1'0", b" ", b"  ", b"\t", b"\n", b"\n", b"\\\n", b" \\\n", b"\\",
        b'"', b'"s"', b"'", b"'c'", b"/", b"*", b"//", b"/*", b"*/", b"// one\n", b"/* one */\n",
        b"/* a\n b */\n", b"#", b"#if", b"#include ", b"<", b">", b"??/", b"(", b")", b'R"(', b')"', b"@",
        b"fall", b"\f", b";", b"\r",
    ]
)  # fmt: skip
_TEXTS = st.lists(_PIECES, max_size=40).map(b"".join)


@given(_TEXTS, st.sampled_from([C90, C17, CXX20, CLANG]))
def test_the_result_is_its_own_result_and_has_the_same_lines(text: bytes, mode: LexMode) -> None:
    result = comment_free(text, mode)
    if result is not None:
        assert comment_free(result, mode) == result
        assert result.count(b"\n") == text.count(b"\n")
        for one, two in zip(text.split(b"\n"), result.split(b"\n"), strict=True):
            assert one.startswith(two.rstrip(b" \t").removesuffix(b"/**/"))
    shorter = comment_free(text, replace(mode, keeps_end=False, keeps_lines=False))
    if shorter is not None:
        again = comment_free(shorter, replace(mode, keeps_end=False, keeps_lines=False))
        assert again == shorter


@given(st.binary(max_size=200), st.sampled_from([C90, CXX20]))
def test_any_bytes_have_an_answer(data: bytes, mode: LexMode) -> None:
    comment_free(data, mode)


_SLOW = (
    b"#<", b"#\\\n", b"#if <a\\\n", b"<\\\n", b"/*", b'R"(', b"'a", b"<//", b"/**/", b"a'1", b" \\\n",
    b"/* \n#", b" /**/ ", b"/*\n*/", b"\xc3\xa9'", b"??", b"x /**/", b"import ", b" \\\n/*\n*/a", b"/*\n*/ ", b"# ", b"?",
)  # fmt: skip


@pytest.mark.parametrize("piece", _SLOW)
def test_a_hostile_file_takes_no_longer_than_another(piece: bytes) -> None:
    for text in (piece, piece + b"\n", b"#if 1 \\\n" + piece):
        comment_free(b"\n" + text * (300_000 // len(text)) + b"\n/", CXX20)
