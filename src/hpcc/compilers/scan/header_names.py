"""Names of headers in directives, in which quotes and slashes mean less than elsewhere."""

from __future__ import annotations

import re
from typing import Final

# Directives whose text may be read as a header's name, in which quotes and slashes mean less. A
# splice before "#" leaves it first on its line; other spliced lines belong to the line before.
_SPACE: Final = rb"(?:[ \t\f\v]|\\\n)*+"
_DIRECTIVE: Final = (
    rb"\n(?<!\\\n)"
    + _SPACE
    + rb"(?:\#|%:)"
    + _SPACE
    + rb"(?!(?:define|undef|error|warning|line|ident)\b)"
)
_REST: Final = rb"(?:[^\n\\]|\\\n)*+"
# A character is none of a header's name: no compiler accepts one where it expects a name.
_CHARACTER: Final = rb"'(?:[^'\\\n]|\\(?:[abefnrtv'\"?\\]|[0-7]{1,3}|x[0-9A-Fa-f]{1,8}))'"
_CLEAR: Final = (
    rb"(?:[^\n\\/\"']|/(?![/*])|\"(?:[^\"\n\\/]|/(?![/*]))*\"|" + _CHARACTER + rb"|\\\n)*+"
)
_ANGLED: Final = re.compile(_DIRECTIVE + rb"(?:[^\n\\<]|\\\n)*+<" + _REST)
_BEGIN: Final = re.compile(rb"/[/*]|[<\"']")
_ODD_IN_NAME: Final = re.compile(rb"//|/\*|[\"']")
_HEADER_NAMES: Final = tuple(
    (word, re.compile(pattern))
    for word, pattern in (
        # A backslash before any comment, or behind a quote in which one may begin.
        (b"\\", _DIRECTIVE + _CLEAR + rb"(?:\\|[\"'][^\n]*\\)"),
        (b"*/", rb"\*/" + _SPACE + rb"(?:\#|%:)"),
        (b"import", rb"\n[ \t\f\v]*(?:export[ \t\f\v]+)?import\b[^;\n]*[<\"]"),
    )
)


def has_odd_header_name(text: bytes) -> bool:
    """Return whether a comment or a quote may begin inside a header's name."""
    if any(word in text and pattern.search(text) for word, pattern in _HEADER_NAMES):
        return True
    for match in _ANGLED.finditer(text):
        for name in _behind_comments(match[0]).split(b">")[:-1]:
            start = name.find(b"<")
            if start >= 0 and _ODD_IN_NAME.search(name, start):
                return True
    return False


def _behind_comments(directive: bytes) -> bytes:
    """Return a directive from its first quote or bracket that is not in a comment."""
    at = 0
    while begin := _BEGIN.search(directive, at):
        if begin[0] == b"//":
            break
        if begin[0] != b"/*":
            return directive[begin.start() :]
        end = directive.find(b"*/", begin.end())
        if end < 0:
            break
        at = end + len(b"*/")
    return b""
