"""Which files a text may make cppcheck look for: a superset, without regard to conditions.

cppcheck loads what any include line names, in inactive branches too, since it checks several
configurations. Its preprocessor (simplecpp) differs from a compiler's in comments, strings and
spliced lines. So nothing here depends on these: each `#include` counts that may be the first token
of its line, also in a comment. What is not literal makes the text opaque, and the result is not
kept.

A `#line` directive changes the directory in which quoted names are looked up, and the file that a
finding quotes. It makes the text opaque, too. A macro that asks for a quoted name asks beside the
text that uses the macro, so only an `#if` may ask for one.

Source: simplecpp.cpp of cppcheck 2.17.1 (`load`, `preprocess`, `simplifyHasInclude`, `readfile`).
"""

from __future__ import annotations

import re
from typing import Final

from hpcc.compilers.cppcheck.pieces import ANY_PIECE, OF_QUESTION
from hpcc.compilers.invocation.dependencies import NamesInText

# All that simplecpp may skip between two tokens, but for comments.
_BLANK: Final = rb"[\x00-\x20\x80-\xff]*+"
# No file has a longer name. The bound also keeps the time linear.
_NAME: Final = rb'(?:"([^"\n\r]{0,4096}+)"|<([^>\n\r]{0,4096}+)>)'
_SPLICE: Final = re.compile(rb"\\[\x00-\t\v\f\x0e-\x20]*+(?:\r\n|\n|\r)")
_DIRECTIVE: Final = re.compile(
    rb"#" + _BLANK + rb"(?:"
    # A comment may hide the directive's name.
    rb"(?P<odd>/[*/]|line(?!\w)|file(?!\w)|endfile(?!\w)"
    # A line marker has a number and a string. Further behind, no string is looked for.
    rb'|\d++[^\n\r"]{0,4000}+[^\n\r])'
    rb"|(?P<include>include(?:_next)?(?!\w)" + _BLANK + _NAME + rb"?+))"
)
_QUESTION: Final = re.compile(
    rb"__has_include(?:_next)?(?!\w)(?P<name>" + _BLANK + rb"\(?" + _BLANK + _NAME + rb")?+"
)
# Asks for the operator, and for no file.
_OPERATOR: Final = re.compile(rb"(?:\bdefined[ \t(]*|\bifn?def[ \t]+)\Z")
# Here a question is not part of a macro.
_CONDITION: Final = re.compile(rb"[ \t]*#[ \t]*(?:el)?if(?!\w)")
# A macro of a library may paste two of these to a clock.
_PIECE: Final = re.compile(
    rb"(?<!\w)(?:__(?:TI?M?|TIME_?|DA?T?|DATE_?)|_?(?:TIME|DATE)__|(?:I?M|A?T)?E__)(?!\w)"
)
_PLAIN: Final = re.compile(rb"[!-\[\]-~]+")
# Angled names may be read as tokens, where `//` begins a comment and `->` is one token.
_ANGLED: Final = re.compile(rb"(?:[\w.+-]|/(?!/))*\w", re.ASCII)
_UTF8: Final = b"\xef\xbb\xbf"
# It skips two such bytes, whether or not they mark UTF-16.
_UTF16: Final = re.compile(rb"[\xfe\xff]{2}")
_BLANKS: Final = bytes(range(0x21))
# A token that began on an earlier line ends here.
_ENDS: Final = re.compile(rb'\*/|\)[^()\\\s"]{0,16}"')
# It takes more for a raw string than the language allows.
_ODD_RAW: Final = re.compile(rb'(?<!\w)(?:u8|[uUL])?R"(?![^()\\\s"]{0,16}\()')
_CLOSES: Final = re.compile(rb"[\"'>]")
_LINE: Final = re.compile(rb"[\n\r]")
_MOST_BEFORE: Final = 400


def read_names(text: bytes) -> NamesInText:
    """Return every name that cppcheck may look for because of this text. Pure."""
    text = text.removeprefix(_UTF8)
    found = _read(text)
    spliced = _SPLICE.sub(b"", text)
    if len(spliced) == len(text):
        return found
    more = _read(spliced)
    return NamesInText(found.names | more.names, found.is_opaque or more.is_opaque)


def _read(text: bytes) -> NamesInText:
    names: set[tuple[bool, bytes]] = set()
    is_opaque = _UTF16.match(text) is not None
    is_opaque |= any(p.search(text) for p in (OF_QUESTION, _PIECE, _ODD_RAW))
    is_opaque |= ANY_PIECE.search(text) is not None and _has_spliced_comment(text)
    for match in _DIRECTIVE.finditer(text):
        if _may_be_first(text, match.start()):
            is_literal = match["include"] is not None and _add(names, match[3], match[4])
            is_opaque |= not is_literal
    for match in _QUESTION.finditer(text):
        before = text[max(0, match.start() - _MOST_BEFORE) : match.start()]
        if not _OPERATOR.search(before):
            is_opaque |= not _add(names, match[2], match[3])
            is_opaque |= match[2] is not None and not _is_in_condition(text, match.start())
    return NamesInText(frozenset(names), is_opaque)


def _add(names: set[tuple[bool, bytes]], quoted: bytes | None, angled: bytes | None) -> bool:
    """Add a name; return whether it is one that cppcheck takes as it is."""
    name, form = (quoted, _PLAIN) if quoted is not None else (angled, _ANGLED)
    if name is None or not form.fullmatch(name) or name.endswith(b"/"):
        return False
    names.add((quoted is not None, name))
    return True


def _may_be_first(text: bytes, at: int) -> bool:
    """Return whether a token may be the first of its line for simplecpp, which skips comments."""
    line = _line_before(text, at)
    if line is None or not line.strip(_BLANKS) or _ENDS.search(line):
        return True
    # It counts another line for what is behind a string, or a name in <>, that was spliced.
    start = at - len(line)
    before = text[max(0, start - len(b"\\\r\n")) : start]
    return before.rstrip(b"\r\n").endswith(b"\\") and _CLOSES.search(line) is not None


def _has_spliced_comment(text: bytes) -> bool:
    """Tell whether a line behind `//` is code for simplecpp, and for compilers a comment still."""
    return any(line.endswith(b"\\") and b"//" in line for line in _LINE.split(text))


def _is_in_condition(text: bytes, at: int) -> bool:
    line = _line_before(text, at)
    return line is not None and bool(_CONDITION.match(line)) and not _ENDS.search(line)


def _line_before(text: bytes, at: int) -> bytes | None:
    """Return the line up to this place; None if it is a long one."""
    first = max(0, at - _MOST_BEFORE)
    start = max(text.rfind(b"\n", first, at), text.rfind(b"\r", first, at))
    return None if start < 0 and first else text[start + 1 : at]
