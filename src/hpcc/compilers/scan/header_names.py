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
_CLEAR: Final = rb"(?:[^\n\\/\"']|/(?![/*])|\"(?:[^\"\n\\/]|/(?![/*]))*\"|\\\n)*+"
_ANGLED: Final = re.compile(_DIRECTIVE + rb"(?:[^\n\\<]|\\\n)*+<(" + _REST + rb")")
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
        names = (b"<" + match[1]).split(b">")[:-1]
        for name in names:
            start = name.find(b"<")
            if start >= 0 and _ODD_IN_NAME.search(name, start):
                return True
    return False
