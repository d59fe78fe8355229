"""Hostile text takes time that grows with its size and no faster.

No test measures time. Each text is so large that a search which starts again for every token takes
many minutes, and a linear one much less than a second. The limit for a hanging test ends the first.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hpcc.cache.root.git_patterns import parse_patterns
from hpcc.compilers.invocation.modules import declared_module
from hpcc.compilers.scan import comments
from hpcc.compilers.scan.assembler import has_opaque_asm, read_statements, read_template
from hpcc.compilers.scan.header_names import has_odd_header_name
from hpcc.compilers.scan.includes import may_begin_with_macro, scan_definitions, scan_includes
from hpcc.compilers.scan.pragmas import read_pragmas
from hpcc.compilers.scan.questions import read_questions
from hpcc.compilers.scan.scan import may_be_read_once, scan_source
from hpcc.compilers.scan.shown_names import visible_names
from hpcc.compilers.scan.text import without_comments, without_prose

_BYTES = 1 << 20
# A name is read up to its limit, so there are fewer of them.
_LONG = b"a" * 90 + b" "
_MODE = comments.LexMode(has_line_comments=True, has_digit_separators=True)


def _repeated(unit: bytes) -> bytes:
    return unit * (_BYTES // len(unit))


def _visible(text: bytes) -> object:
    return visible_names(text, b"a.c", is_clang=False)


_TEXTS: list[tuple[Callable[[bytes], object], bytes, bytes, bytes]] = [
    (declared_module, b"module a", b" ", b"x"),
    (declared_module, b"export", b" ", b"x"),
    (declared_module, b"", b"module a :b ", b"x"),
    (read_pragmas, b"/* ", b"target/*", b" */"),
    (read_pragmas, b"/* ", b"target/*", b" */" + b" " * _BYTES),
    (read_pragmas, b"", b"target//", b"\n"),
    (read_pragmas, b"", b"// target\n", b" pragma"),
    (read_pragmas, b"", b"target ", b" pragma"),
    (read_pragmas, b"", b"target/**/", b" pragma"),
    (read_pragmas, b"/* target( */ /*", b"#", b"*/"),
    (read_pragmas, b"/* target( */ # pragma", b"_pragma", b""),
    (_visible, b'R"x(', b'R"(', b')x"\n'),
    (_visible, b"", b'R"x(', b')x"\n'),
    (_visible, b'R"x(', b'R"(', b')x"'),
    (_visible, b"", b'# 1 "" ;\n', b""),
    (without_comments, b'"', b'\\"', b"\n"),
    (without_prose, b'"', b'\\"', b"\n"),
    (read_questions, b"", b"__has_include ", b""),
    (read_questions, b"", b"__has_include(<" + _LONG, b""),
    (read_questions, b"defined", b" ", b"x __has_include"),
    (scan_source, b"", b"T", b"a"),
    (scan_source, b"", b"__has_embed ", b""),
    (scan_source, b"", b"p.i&", b""),
    (scan_source, b"", b"(.i&", b""),
    (scan_source, b"", b"__has_embed(<" + _LONG, b""),
    (scan_source, b"", b"#define ", b"\nonce"),
    (scan_includes, b"", b"#include ", b""),
    (may_begin_with_macro, b"", b"\n \t#", b""),
    (may_be_read_once, b"", b"#pragma warning ", b"once"),
    (read_statements, b'"', b'\\"', b"\n"),
    (read_statements, b"'", b"\\'", b"\n"),
    (read_statements, b"", b'R"(', b""),
    (read_template, b"", b":%0", b""),
    (has_opaque_asm, b"asm " * (_BYTES // 2), b"asm ", b""),
    (has_odd_header_name, b"\n", b"\\\n", b'"'),
    (has_odd_header_name, b"\n#", b"<", b"\\"),
    (parse_patterns, b"a", b" ", b"b"),
    (parse_patterns, b"a" + b" " * _BYTES, b" ", b""),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("read", "begin", "unit", "end"), _TEXTS)
def test_a_reader_reads_no_byte_once_for_each_token(
    read: Callable[[bytes], object], begin: bytes, unit: bytes, end: bytes
) -> None:
    read(begin + _repeated(unit) + end)


class _Counted:
    """A pattern that counts the bytes that it matches."""

    def __init__(self) -> None:
        self.pattern = comments._NO_TOKEN
        self.read_bytes = 0

    def match(self, text: bytes, at: int) -> object:
        match = self.pattern.match(text, at)
        self.read_bytes += match.end() - at if match else 0
        return match


def test_comments_of_a_line_are_read_once_more_to_find_code_behind_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted = _Counted()
    monkeypatch.setattr(comments, "_NO_TOKEN", counted)
    text = (b"/**/" * 240 + b"x;\n") * 100
    form = comments.comment_free(text, _MODE)
    assert form is not None
    assert form.text == text
    assert 0 < counted.read_bytes <= len(text)


def test_a_text_whose_reading_would_take_too_long_counts_as_one_in_doubt() -> None:
    assert _visible(b'R"x(a)x" R"(b)"\n' + b'R"(c)" ' * 1_000 + b"\n") == ()
    assert _visible(b'R"x(' * 1_000 + b')x"\n') is None
    prose = b'"' + b'\\"' * 10_000 + b"\n/* prose */"
    assert without_comments(prose) == prose
    assert read_statements(prose).is_opaque
    assert has_opaque_asm(b" " * 5_000 + b"#define ASM asm\n")
    assert read_questions(prose + b"\n#ifdef __has_include").is_opaque
    assert scan_includes(prose + b"\n# /* a */ include MACRO\n").is_opaque
    assert scan_definitions(prose + b"\n#define /* a */ HAS <a.h>\n", frozenset({b"HAS"})).is_opaque
    hidden = b"#if __has_include(<a/*>) " + b" " * 5_000 + b"|| __has_include(<b>) /* c */\n"
    assert read_questions(hidden).is_opaque
    assert read_questions(b" " * 5_000 + b"#define HAS __has_include\n").is_opaque
    assert read_questions(b"__has_include(<" + b"a" * 5_000 + b">)").is_opaque
