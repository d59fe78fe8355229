"""Names the word of a command line, or the variable, because of which a compile was a bypass.

Only `hpcc explain` and `hpcc stats` ask. The parser that refused the command reads it again with
one word after the other replaced by a harmless flag, wherever the word stands. Where it then has
another answer, the word is to blame; a word without which it refuses nothing is preferred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from hpcc.cache.key.environment import refusal_of
from hpcc.compilers.families import family_of
from hpcc.compilers.spec.table import Bypass

# A longer command line is not searched: each word costs a parse.
_MAX_WORDS: Final = 2_000
_HARMLESS: Final = b"-w"
# Every refused compile has one, and without it each is refused as a link.
_MODES: Final = frozenset({b"-c", b"-S", b"-E"})


def refused_word(
    compiler: bytes, argv: Sequence[bytes], env: Mapping[bytes, bytes], reason: str
) -> bytes:
    """Return the argument or `NAME=value` that has this reason; b"" if no single one has."""
    family = family_of(compiler, tuple(argv[1:]))
    for name, value in family.key_environment(dict(env), (compiler, *argv[1:])).items():
        refusal = refusal_of({name: value}, ())
        if refusal is not None and refusal.reason == reason:
            return name + b"=" + value
    arguments = tuple(argv[1:])
    if len(arguments) > _MAX_WORDS or _reason(compiler, arguments) != reason:
        return b""
    other = b""
    for word in dict.fromkeys(arguments):
        found = _reason(compiler, tuple(_HARMLESS if w == word else w for w in arguments))
        if not found:
            return word
        if found != reason and word not in _MODES:
            other = other or word
    return other


def _reason(compiler: bytes, arguments: tuple[bytes, ...]) -> str:
    found = family_of(compiler, arguments).read(compiler, arguments)
    return found.reason if isinstance(found, Bypass) else ""
