"""Finds whose names a compile may show, in the output of its preprocessor.

The preprocessor runs with other values of the macros that show the name of a file. Where such a
value stands, and in which file by the line markers, says whose name the object could hold.
"""

from __future__ import annotations

import re
from typing import Final

# Stands for the asking compile's own names in a preprocessor's output.
NAME_TOKEN: Final = b"hpcc-name-of-this-file-7d1f"
BASE_TOKEN: Final = b"hpcc-name-of-the-source-7d1f"
# Shows file names without a macro: the compiler's own functions, and what stands before them.
_OPAQUE: Final = re.compile(
    rb"__builtin_(?:FILE|FILE_NAME|source_location|FUNCSIG)|source_location"
)
# glibc's assert in C++, as a statement: it shows the file in which it stands. In a default argument
# it would show the file of the call, and there it does not follow one of these marks.
_ASSERT: Final = re.compile(
    rb'([;{}](?:\s|# [0-9]+ "[^"\n;{}]*"[^\n;{}]*)*+\(static_cast <bool> \([^;{}]{0,4000}?)'
    rb"__builtin_FILE \(\)(?=, __builtin_LINE \(\), __extension__ __PRETTY_FUNCTION__\)\))"
)
# With these GCC defines macros that its preprocessor alone does not define.
_PRAGMA: Final = re.compile(rb"GCC\s+(?:target|optimize|push_options|pop_options|reset_options)")
_RAW_STRING: Final = re.compile(rb'(?<![0-9A-Za-z_])(?:u8|[uUL])?R"([^ ()\\\t\v\f\n"]{0,16})\(')
# A mark stands at its place many times only where one text seems to begin many raw strings. Then
# the search is given up, so that its time grows with the text and no faster.
_MAX_TIMES_SEARCHED: Final = 8
_PRETTY: Final = re.compile(rb"__(?:PRETTY_FUNCTION|FUNCSIG)__")
_MARKER: Final = re.compile(rb'^# [0-9]+ "((?:[^"\\\n]|\\.)*)"', re.MULTILINE)
_ESCAPE: Final = re.compile(rb"\\([0-7]{3}|.)")


def names_arguments() -> tuple[bytes, ...]:
    """Return the flags that make a preprocessor show where a file's name is expanded."""
    return (
        b"-w",
        b"-Wno-error",
        b"-Wno-builtin-macro-redefined",
        b'-D__FILE__="' + NAME_TOKEN + b'"',
        b'-D__BASE_FILE__="' + BASE_TOKEN + b'"',
    )


def visible_names(text: bytes, source: bytes, *, is_clang: bool) -> tuple[bytes, ...] | None:
    """Return the files whose names a compile may write, from the output of `names_arguments`.

    None: any file's name, because something else than `__FILE__` shows it.
    """
    if is_clang and _PRETTY.search(text):
        return None
    if (not is_clang and _PRAGMA.search(text)) or _has_lines_in_raw_string(text):
        return None
    text = _ASSERT.sub(rb"\1" + NAME_TOKEN, text)
    if _OPAQUE.search(text):
        return None
    found: dict[bytes, None] = {}
    if BASE_TOKEN in text:
        found[source] = None
    if NAME_TOKEN not in text:
        return tuple(found)
    name, at = source, 0
    for match in _MARKER.finditer(text):
        if NAME_TOKEN in text[at : match.start()]:
            found[name] = None
        name, at = _ESCAPE.sub(_unescape, match[1]), match.end()
        if NAME_TOKEN in name or BASE_TOKEN in name:
            return None  # `#line 5 __FILE__`: the text gave the name
    if NAME_TOKEN in text[at:]:
        found[name] = None
    return tuple(found)


def files_named(text: bytes) -> frozenset[bytes]:
    """Return the files that a preprocessor's output names in its line markers."""
    names = {match[1] for match in _MARKER.finditer(text)}
    plain = {_ESCAPE.sub(_unescape, name) for name in names}
    return frozenset(name for name in plain if not name.startswith(b"<"))


def _has_lines_in_raw_string(text: bytes) -> bool:
    """Tell whether a raw string has several lines: one of them could look like a line marker.

    Also True where that takes too long to find out.
    """
    if b'R"' not in text:
        return False
    line_end = left = 0
    for match in _RAW_STRING.finditer(text):
        start = match.end()
        if line_end < start:
            line_end = text.find(b"\n", start)
            if line_end < 0:
                return False
            left = _MAX_TIMES_SEARCHED * (line_end - start)
        end = text.find(b")" + match[1] + b'"', start, line_end)
        left -= end - start
        if end < 0 or left < 0:
            return True
    return False


def _unescape(match: re.Match[bytes]) -> bytes:
    text = match[1]
    return bytes([int(text, 8) & 255]) if len(text) == 3 else text  # noqa: PLR2004 - octal digits
