"""C and C++ sources without their comments, for what must not be found in prose."""

from __future__ import annotations

import re
from typing import Final

# An unfinished comment is an error to every compiler: it goes to the end, and costs one pass.
_TOKEN: Final = re.compile(
    rb"/\*(?:.*?\*/|.*)|//[^\n]*"
    rb'|(?P<kept>(?:u8|[LuU])?R"(?P<mark>[^ ()\\\s]{0,16})\(.{0,65536}?\)(?P=mark)"'
    rb'|"(?:[^"\\\n]|\\.)*"'
    rb"|'(?:[^'\\\n]|\\.){1,8}')",
    re.DOTALL,
)
# Raw strings that do not end are looked for at length.
_MAX_RAW_STRINGS: Final = 5_000

# A backslash (or its trigraph) before a line break joins lines, inside a token too; GCC and Clang
# take blanks between the two.
_SPLICE: Final = re.compile(rb"\\[ \t\f\v]*\r?\n")
_TRIGRAPH_SPLICE: Final = re.compile(rb"\?\?/[ \t\f\v]*\r?\n")


def joined(data: bytes) -> bytes:
    """Join lines that a backslash splits."""
    if b"\\" in data:
        data = _SPLICE.sub(b"", data)
    if b"??/" in data:
        data = _TRIGRAPH_SPLICE.sub(b"", data)
    return data


def without_comments(data: bytes) -> bytes:
    """Put a blank in place of each comment. Splices must be gone."""
    return _TOKEN.sub(lambda match: match["kept"] or b" ", data) if _is_sane(data) else data


def without_prose(data: bytes) -> bytes:
    """Put a blank in place of each comment, string and character, too."""
    return (
        _TOKEN.sub(lambda match: b'""' if match["kept"] else b" ", data) if _is_sane(data) else data
    )


def _is_sane(data: bytes) -> bool:
    return data.count(b'R"') <= _MAX_RAW_STRINGS
