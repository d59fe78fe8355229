"""C and C++ sources without comments, for patterns that must not match in prose."""

from __future__ import annotations

import re
from typing import Final

# An unterminated comment is an error to every compiler. It extends to the end and costs one pass.
_TOKEN: Final = re.compile(
    rb"/\*(?:.*?\*/|.*)|//[^\n]*"
    rb'|(?P<kept>(?:u8|[LuU])?R"(?P<mark>[^ ()\\\s]{0,16})\(.{0,65536}?\)(?P=mark)"'
    rb'|"(?:[^"\\\n]|\\.)*"'
    rb"|'(?:[^'\\\n]|\\.){1,8}')",
    re.DOTALL,
)
# An unterminated raw string makes the search long, so their number is limited.
_MAX_RAW_STRINGS: Final = 5_000

# A backslash (or its trigraph) before a line break joins lines, inside a token too; GCC and Clang
# take blanks between the two.
_SPLICE: Final = re.compile(rb"\\[ \t\f\v]*\r?\n")
_TRIGRAPH_SPLICE: Final = re.compile(rb"\?\?/[ \t\f\v]*\r?\n")


def joined(data: bytes) -> bytes:
    """Return the text with lines joined that a backslash splits."""
    if b"\\" in data:
        data = _SPLICE.sub(b"", data)
    if b"??/" in data:
        data = _TRIGRAPH_SPLICE.sub(b"", data)
    return data


def without_comments(data: bytes) -> bytes:
    """Return the text with a blank for each comment. Splices must be joined before."""
    return _TOKEN.sub(lambda match: match["kept"] or b" ", data) if _is_sane(data) else data


def without_prose(data: bytes) -> bytes:
    """Return the text with a blank for each comment, string and character."""
    return (
        _TOKEN.sub(lambda match: b'""' if match["kept"] else b" ", data) if _is_sane(data) else data
    )


def _is_sane(data: bytes) -> bool:
    return data.count(b'R"') <= _MAX_RAW_STRINGS
