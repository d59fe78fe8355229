"""Which files a text may make cppcheck look for: a superset, without regard to conditions.

cppcheck loads what any include line names, in inactive branches too, since it checks several
configurations. Its preprocessor (simplecpp) differs from a compiler's in comments, strings and
spliced lines. So nothing here depends on these: each `#include` counts that may be the first token
of its line, also in a comment. What is not literal makes the text opaque, and the result is not
kept.

A `#line` directive changes the directory in which quoted names are looked up, and the file that a
finding quotes. It makes the text opaque, too.

Source: simplecpp.cpp of cppcheck 2.17.1 (`load`, `preprocess`, `simplifyHasInclude`, `readfile`).
"""

from __future__ import annotations

import re
from typing import Final

from hpcc.compilers.invocation.dependencies import NamesInText

# All that simplecpp may skip between two tokens, but for comments.
_BLANK: Final = rb"[\x00-\x20\x80-\xff]*+"
# No file has a longer name. The bound also keeps the time linear.
_NAME: Final = rb'(?:"([^"\n\r]{0,4096}+)"|<([^>\n\r]{0,4096}+)>)'
_SPLICE: Final = re.compile(rb"\\[ \t\f\v]*(?:\r\n|\n|\r)")
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
_OPERATOR: Final = re.compile(rb"(?:\bdefined[ \t(]*|\bifn?def[ \t]+)$")
_PASTED: Final = re.compile(rb"__has_\s*##|##\s*include(?!\w)")
# A macro of a library may paste two of these to a clock.
_PIECE: Final = re.compile(
    rb"(?<!\w)(?:__(?:TI?M?|TIME_?|DA?T?|DATE_?)|_?(?:TIME|DATE)__|(?:I?M|A?T)?E__)(?!\w)"
)
_PLAIN: Final = re.compile(rb"[!-\[\]-~]+")
# Angled names may be read as tokens, where `//` begins a comment and `->` is one token.
_ANGLED: Final = re.compile(rb"(?:[\w.+-]|/(?!/))*\w", re.ASCII)
_UTF8, _UTF16 = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
_BLANKS: Final = bytes(range(0x21))
# A token that began on an earlier line ends here.
_ENDS: Final = re.compile(rb'\*/|\)[^()\\\s"]{0,16}"')
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
    is_opaque = text.startswith(_UTF16) or any(p.search(text) for p in (_PASTED, _PIECE))
    for match in _DIRECTIVE.finditer(text):
        if _may_be_first(text, match.start()):
            is_literal = match["include"] is not None and _add(names, match[3], match[4])
            is_opaque |= not is_literal
    for match in _QUESTION.finditer(text):
        before = text[max(0, match.start() - _MOST_BEFORE) : match.start()]
        if not _OPERATOR.search(before):
            is_opaque |= not _add(names, match[2], match[3])
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
    first = max(0, at - _MOST_BEFORE)
    start = max(text.rfind(b"\n", first, at), text.rfind(b"\r", first, at))
    if start < 0 and first:
        return True
    before = text[start + 1 : at]
    return not before.strip(_BLANKS) or _ENDS.search(before) is not None
