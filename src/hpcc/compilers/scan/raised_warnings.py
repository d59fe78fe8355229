"""Warnings of comments that a text may turn on for itself, with a pragma.

A superset: a mention of such a warning counts, but for one that a pragma ignores. Macros can put a
pragma together, so an argument that may be the rest of a warning's name counts, too. No pragma
makes GCC read comments which say that a case falls through: only flags of the command line do
(tests/integration/grammar/test_comment_objects.py).
"""

from __future__ import annotations

import re
from typing import Final

from hpcc.compilers.scan.text import joined

COMMENTS: Final = 1
"""A warning of comments in either compiler."""
DOCUMENTATION: Final = 2
"""Clang may warn about comments that look like documentation."""

_ALWAYS: Final = (b"c90-c99-compat", b"fallthrough=1")
# In a line, or in a string of `_Pragma`.
_DOCUMENTATION: Final = re.compile(
    rb"(?<!diagnostic ignored \")(?<!diagnostic ignored \\\")"
    rb"-W(?:error=)?(?:documentation|everything)"
    rb"|[(,\"][ \t]*(?:documentation[a-z-]*|everything)(?:\\?\"|[ \t]*[),])"
)
_WORDS: Final = (b"documentation", b"everything")
_OPTIONS: Final = (b"-W", b"-Werror=")
# Adjacent strings are one, so that no part need be a whole name.
_PIECES: Final = re.compile(rb"\"-(?:W[\w+=-]*)?(?:\"\s*\"|\\\"\s*\\\")")


def raised_warnings(data: bytes) -> int:
    """Return the sum of the constants above that a text asks for. Linear in its size."""
    data = joined(data)
    # One search for each word: together they are an alternation, which is ten times as slow.
    raised = COMMENTS if any(word in data for word in _ALWAYS) else 0
    if b"diagnostic" in data and b'"-' in data and _PIECES.search(data):
        raised |= COMMENTS
    if any(_asks_for(word, data) for word in _WORDS):
        raised |= DOCUMENTATION
    return raised


def _asks_for(word: bytes, data: bytes) -> bool:
    """Tell whether `_DOCUMENTATION` is found with this word.

    Licences at the head of files have the first word, and a search of all the text for the pattern
    costs more than everything else that is looked for.
    """
    at = data.find(word)
    while at >= 0:
        start = at
        while start and data[start - 1] in b" \t":
            start -= 1
        if data.endswith((b"(", b",", b'"'), 0, start) and _DOCUMENTATION.match(data, start - 1):
            return True
        for option in _OPTIONS:
            before = at - len(option)
            if data.endswith(option, 0, at) and _DOCUMENTATION.match(data, before):
                return True
        at = data.find(word, at + 1)
    return False
