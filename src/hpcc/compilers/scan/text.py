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

# What may bring the tokens above out of step: a compiler may see a quote, a raw string or a comment
# elsewhere, by its mode or because a block is skipped. Only a comment goes beyond its line.
_SURE_OR_ODD: Final = re.compile(
    rb"//(?!\*)[^\n]*|/\*.*?\*/|(?P<odd>/[/*])"
    rb'|"(?<!R")(?:[^"\\\n]|\\[^\n])*+"'
    rb'|"(?<=[0-9A-Za-z_]R")(?<![^0-9A-Za-z_][LuU]R")(?<![^0-9A-Za-z_]u8R")(?<!\A[LuU]R")'
    rb'(?<!\Au8R")(?:[^"\\\n]|\\[^\n])*+"'
    rb'|"(?:(?<!R")(?![^\n]*/\*)[^\n]*|(?P<quote>))'
    # A character, which stands neither in a number nor behind a word.
    rb"|'(?:(?<![0-9A-Za-z_$.\x80-\xff]')(?<![eEpP][+-]')|(?<=[^0-9A-Za-z_$.'+-][LuU]'))"
    rb"(?:[^'\\\n]|\\[^\n][0-9A-Fa-f]{0,3}|[^'\"\\/\n]{2,8})'"
    # Separators of digits are pairs of quotes in other modes, and the last one may be left over.
    rb"|'(?<=[0-9]')[0-9]++(?:'[0-9]++)*+(?![^\n]*(?:[\"']|/\*))"
    rb"|'(?:(?![^\n]*(?:\"|/\*|'[^\n]*//|//[^\n]*'))[^\n]*|(?P<single>))",
    re.DOTALL,
)
# Between the brackets of a header's name nothing else begins, and a backslash is one of its bytes.
# Longer text is odd, so that a line of such words takes no long time.
_ODD_NAME: Final = re.compile(
    rb"(?:include|include_next|import|embed|dependency)(?:__)?\b(?:[^\n<\"]{0,200}+"
    rb"(?:<(?:[^>\n\"'/]|/(?![/*])){0,200}+[^>\n]|\"[^\"\n\\]{0,200}+[^\"\n]|[^\n<\"]))"
)


def joined(data: bytes) -> bytes:
    """Return the text with lines joined that a backslash splits.

    A trigraph splits lines in some modes only. A text with one is there twice, and the second time
    as the other modes read it.
    """
    if b"\\" in data:
        data = _SPLICE.sub(b"", data)
    if b"??/" in data and _TRIGRAPH_SPLICE.search(data):
        data = _TRIGRAPH_SPLICE.sub(b"", data) + b"\n" + data
    return data


def without_comments(data: bytes) -> bytes:
    """Return the text with a blank for each comment. Splices must be joined before.

    If that would take too long, or not every compiler may see the comments there, the text comes
    back as it is. See `may_hold_comments`.
    """
    return data if may_hide_code(data) else without_likely_comments(data)


def without_likely_comments(data: bytes) -> bytes:
    """Return the text with a blank for what most compilers take for a comment."""
    return _replaced(data, lambda kept: kept)


def may_hide_code(data: bytes) -> bool:
    """Tell whether what looks like a comment may be code to a compiler.

    Such are a quote without its partner before a comment on a line, characters of several letters
    with quotes, raw strings, trigraphs, `//*` in C90 and headers with slashes in their names.
    """
    if b"/*" not in data and b"//" not in data and b'"' not in data:
        return False
    if b"??/" in data or _ODD_NAME.search(data):
        return True
    return any(match.lastgroup is not None for match in _SURE_OR_ODD.finditer(data))


def may_hold_comments(code: bytes, text: bytes) -> bool:
    """Tell whether `code`, from `without_comments(text)`, is the text as it is, with comments."""
    return code is text and (b"/*" in text or b"//" in text)


def without_prose(data: bytes) -> bytes:
    """Return the text with a blank for each comment, string and character.

    As it is, if these may be elsewhere; see `without_comments`.
    """
    return data if may_hide_code(data) else _replaced(data, lambda _kept: b'""')


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
