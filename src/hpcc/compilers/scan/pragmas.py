"""Pragmas that define macros, which GCC obeys in a compile and not in `-E` or `-M`.

`#pragma GCC target("avx2")` defines `__AVX2__`, and `#pragma GCC optimize("O3")` defines
`__OPTIMIZE__`. GCC before 14 obeys neither when it only preprocesses, and no GCC obeys `optimize`
there. So its preprocessor may take another branch than its compiler. Its answer about what a
unit reads or shows proves nothing then.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from typing import Final, cast

from hpcc.compilers.scan.text import joined

_WORD: Final = re.compile(rb"\b(?:target|optimize)\b\s*+")
_OPERAND: Final = re.compile(rb"\(|\\*+\"|\d")
_BLANKS: Final = re.compile(rb"\s*+")
# What precedes the word on its line: the sign of a directive, or a comment behind that sign.
_SIGN: Final = re.compile(rb"#|%:|\?\?=|\*/")
_PRAGMA: Final = re.compile(rb"\bpragma\b")
_OPERATOR: Final = re.compile(rb"\b_Pragma\b")
# GCC's own headers of intrinsics restore at their end what they change at their beginning.
_OWN: Final = re.compile(rb".*/lib/gcc(?:-cross)?/[^/]+/[0-9][0-9.]*(?:-[a-z0-9]+)?/include/[^/]*")


class Pragmas(enum.Flag):
    """What a text has of a pragma that defines macros."""

    NONE = 0
    OPERATOR = enum.auto()  # `_Pragma`, whose text may come from another file
    WORD = enum.auto()
    WHOLE = enum.auto()


def read_pragmas(data: bytes) -> Pragmas:
    """Return what this text has; a superset, as comments count too."""
    found = Pragmas.NONE
    if b"ragma" not in data and b"target" not in data and b"optimize" not in data:
        return found
    data = joined(data)
    if _OPERATOR.search(data):
        found |= Pragmas.OPERATOR
    if _has_word(data):
        found |= Pragmas.WORD
        if any(map(_may_be_directive, data.split(b"\n"))):
            found |= Pragmas.WHOLE
    return found


def _has_word(data: bytes) -> bool:
    """Tell whether a word has an operand, perhaps behind comments. No comment is read twice."""
    nowhere = len(data)
    last = {b"/*": -1, b"//": -1}  # the next end of a comment of each kind
    seen: set[int] = set()
    for match in _WORD.finditer(data):
        at = match.end()
        while not _OPERAND.match(data, at):
            begin = data[at : at + 2]
            if begin not in last:
                break
            mark = b"*/" if begin == b"/*" else b"\n"
            if last[begin] < at + 2:
                found = data.find(mark, at + 2)
                last[begin] = found if found >= 0 else nowhere
            end = last[begin] + len(mark)
            if end > nowhere or end in seen:
                break
            seen.add(end)
            at = cast("re.Match[bytes]", _BLANKS.match(data, end)).end()
        else:
            return True
    return False


def _may_be_directive(line: bytes) -> bool:
    if b"pragma" not in line:
        return False
    sign = _SIGN.search(line)
    return sign is not None and _PRAGMA.search(line, sign.end()) is not None


def define_macros(found: Iterable[Pragmas]) -> bool:
    """Tell whether texts with these pieces, together, may define macros by a pragma."""
    pieces = Pragmas.NONE
    for one in found:
        pieces |= one
    return Pragmas.WHOLE in pieces or Pragmas.OPERATOR | Pragmas.WORD in pieces


def is_compilers_own(path: bytes) -> bool:
    """Tell whether this is a header of GCC itself, which leaves no macro defined."""
    return _OWN.fullmatch(path) is not None
