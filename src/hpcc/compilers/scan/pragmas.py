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
from typing import Final

from hpcc.compilers.scan.text import joined

_WORD: Final = re.compile(rb"\b(?:target|optimize)\b(?:\s|/\*(?:[^*]|\*(?!/))*\*/)*(?:\(|\\*\"|\d)")
_DIRECTIVE: Final = re.compile(rb"(?:#|%:|\?\?=)[^\n]*\bpragma\b")
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
    if _WORD.search(data):
        found |= Pragmas.WORD
        if _DIRECTIVE.search(data):
            found |= Pragmas.WHOLE
    return found


def define_macros(found: Iterable[Pragmas]) -> bool:
    """Tell whether texts with these pieces, together, may define macros by a pragma."""
    pieces = Pragmas.NONE
    for one in found:
        pieces |= one
    return Pragmas.WHOLE in pieces or Pragmas.OPERATOR | Pragmas.WORD in pieces


def is_compilers_own(path: bytes) -> bool:
    """Tell whether this is a header of GCC itself, which leaves no macro defined."""
    return _OWN.fullmatch(path) is not None
