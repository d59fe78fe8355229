"""The include lines in the head of a text equal those that a scan of the whole text finds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hpcc.compilers.scan.includes import _is_commented, _read, scan_includes
from hpcc.compilers.scan.preambles import PreambleCache, preamble_of
from hpcc.compilers.scan.scan import _include_lines, scan_source

_PIECES = st.sampled_from(
    [
        b"#", b"%:", b"??=", b"include", b"include_next", b"import", b" ", b"\n", b"\t", b"\0", b"\r",
        b'"a.h"', b"<b.h>", b"MACRO", b"/*", b"*/", b"//", b"'", b'"', b"\\", b"\\\n", b"__has_include(",
        b")", b"__FILE__", b"x", b"#define", b"R\"(", b")\"",
    ]
)  # fmt: skip
_TEXTS = st.lists(_PIECES, max_size=40).map(b"".join)


@given(_TEXTS, st.lists(_TEXTS, max_size=3))
def test_a_head_says_what_the_whole_text_does(text: bytes, others: list[bytes]) -> None:
    preambles = PreambleCache()
    for data in (text, *others, text + b"\nint behind;", text):
        joined = data.replace(b"\\\n", b"")
        assert scan_includes(data, preambles) == _read(data, joined)
        assert scan_source(data, preambles) == scan_source(data)
        assert _include_lines(joined) == _include_lines(preamble_of(joined))


def test_an_edit_behind_the_last_include_reads_no_line_anew() -> None:
    preambles, asked = PreambleCache(), list[bytes]()

    def read(head: bytes) -> int:
        asked.append(head)
        return len(asked)

    for body in (b"int a;\n", b"int b;\n"):
        assert preambles.of("q", b'#include "x.h"\n' + body, read) == 1
    assert preambles.of("other", b'#include "x.h"\n', read) == 2
    assert asked == [b'#include "x.h"\n'] * 2
    assert preamble_of(b'int a;\n#include "x.h"\nint b;\n') == b'int a;\n#include "x.h"\n'
    assert preamble_of(b"int include") == b"int include"


def test_comments_among_directives_are_seen() -> None:
    for text in (
        b'/* a */ #include "x"', b'#/**/include "x"', b'%: /**/include "x"', b'??=/**/include "x"',
        b'#include/**/"x"', b'#include_next /**/ "x"', b'#import /**/ "x"',
    ):  # fmt: skip
        assert _is_commented(text)
        assert scan_includes(text).quoted == {b"x"}
    assert not _is_commented(b'/* a */\n#include "x" /* b */\n')
