"""Pieces of names that `##` could complete: of a clock, or of the question for a header.

A name that is cut in three has a piece that only such a name has. Pieces and `##` may be in
different texts, on the command line or in a library.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_CLOCKS: Final = (b"__DATE__", b"__TIME__")
_QUESTION: Final = b"__has_include"
_LEAST_LETTERS: Final = 2
# Where a piece begins, and its least length. Shorter ones are ordinary words, such as `has`.
_BEGINS: Final = ((0, 3), (1, 2), (2, 4))
# Up to `_include`. The plain `include` is in every text.
_REST: Final = range(1, 6)


def _any_of(words: Iterable[bytes]) -> bytes:
    return rb"(?<!\w)(?:" + b"|".join(sorted(words, reverse=True)) + rb")(?!\w)"


_CLOCK_PIECES: Final = frozenset(
    name[start:end]
    for name in _CLOCKS
    for start in range(len(name))
    for end in range(start + 1, len(name) + 1)
    if len(name[start:end].strip(b"_")) >= _LEAST_LETTERS
)
_QUESTION_PIECES: Final = frozenset(
    _QUESTION[start:end]
    for start, least in _BEGINS
    for end in range(start + least, len(_QUESTION))
) | {_QUESTION[start:] for start in _REST}  # fmt: skip
OF_QUESTION: Final = re.compile(_any_of(_QUESTION_PIECES))
ANY_PIECE: Final = re.compile(_any_of(_CLOCK_PIECES | _QUESTION_PIECES))
