"""C and C++ sources without comments, for patterns that must not match in prose."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

# An unterminated comment is an error to every compiler. It extends to the end and costs one pass.
# A quote without an end is read on behind itself.
_RAW: Final = rb'(?:u8|[LuU])?R"(?P<mark>[^ ()\\\s]{0,16})\(.{0,65536}?\)(?P=mark)"|'
_PLAIN: Final = (
    rb"/\*(?:.*?\*/|.*)|//[^\n]*"
    rb'|"(?:[^"\\\n]|\\.)*+"'
    rb"|'(?:[^'\\\n]|\\.){1,8}'"
    rb'|"(?=(?:[^"\\\n]|\\.)*+(?P<open>))'
)
# `re` skips what is between tokens three times as fast if each alternative begins with one byte.
_TOKEN: Final = re.compile(_PLAIN, re.DOTALL)
_TOKEN_OR_RAW: Final = re.compile(_RAW + _PLAIN, re.DOTALL)
# An unterminated raw string makes the search long, so their number is limited.
_MAX_RAW_STRINGS: Final = 5_000
# Quotes without an end make it long, too, if each is in the line of the one before. So the bytes
# behind them are counted: as many as the text has are free, and then some.
_MAX_OPEN_TIMES: Final = 8
_MAX_OPEN_BYTES: Final = 1 << 20

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
    """Return the text with a blank for each comment. Splices must be joined before.

    If that would take too long, the text comes back as it is. See `may_hold_comments`.
    """
    return _replaced(data, lambda kept: kept)


def may_hold_comments(code: bytes, text: bytes) -> bool:
    """Tell whether `code`, from `without_comments(text)`, is the text as it is, with comments."""
    return code is text and (b"/*" in text or b"//" in text)


def without_prose(data: bytes) -> bytes:
    """Return the text with a blank for each comment, string and character."""
    return _replaced(data, lambda _kept: b'""')


def _replaced(data: bytes, literal: Callable[[bytes], bytes]) -> bytes:
    """Return the text with a blank for each comment; as it is, if that would take too long."""
    raw_strings = data.count(b'R"')
    if raw_strings > _MAX_RAW_STRINGS:
        return data
    token = _TOKEN_OR_RAW if raw_strings else _TOKEN
    left = _MAX_OPEN_BYTES + _MAX_OPEN_TIMES * len(data)

    def replace(match: re.Match[bytes]) -> bytes:
        nonlocal left
        found = match[0]
        if found.startswith(b"/"):
            return b" "
        if match["open"] is None:
            return literal(found)
        left -= match.end("open") - match.start()
        if left < 0:
            raise _TooLongError
        return found

    try:
        return token.sub(replace, data)
    except _TooLongError:
        return data


class _TooLongError(Exception):
    """Most of a text's bytes would be read again and again."""
