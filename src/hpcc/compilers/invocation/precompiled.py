"""Precompiled headers: which commands make one, and where users look for it.

GCC looks for NAME.gch beside each place where it looks for NAME, and takes it in place of the first
header of a unit if flags and macros agree. It writes the file into the old one, which it truncates
before it reads a source. So a command that makes NAME.gch never reads it, although CMake's command
includes NAME.

Clang takes the one that a flag names. CMake passes all of it with `-Xclang`: `-emit-pch` and
`-include H` to make it, `-include-pch H.pch` and `-include H` to use it. Without
`-fno-pch-timestamp` it holds the times of its headers, and one from the cache is an error for its
users when CMake has written its header again.

Sources: GCC manual, "Using Precompiled Headers"; gcc/c-family/c-pch.cc (pch_init) and
libcpp/files.cc (pch_open_file); Clang's user's manual, "Precompiled Headers"; CMake,
`target_precompile_headers`. Tested with GCC 12 and 14, and Clang 17, 19 and 22.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

GCH_SUFFIX: Final = b".gch"
PCH_SUFFIX: Final = b".pch"
PROVED_GCC: Final = range(12, 15)
"""The major versions of GCC whose precompiled headers are cached."""
PROVED_CLANG: Final = frozenset({17, 19, 22})
"""The same of Clang."""

EMIT: Final = b"-emit-pch"
INCLUDE: Final = b"-include"
INCLUDE_PCH: Final = b"-include-pch"
NO_TIMES: Final = b"-fno-pch-timestamp"
PAIRS: Final = frozenset({INCLUDE, INCLUDE_PCH})
"""Words behind `-Xclang` that take the next such word as their value."""


class InnerWords(NamedTuple):
    """What the words behind `-Xclang` say about precompiled headers.

    `includes` are headers before the source, `used` the precompiled headers that it takes.
    """

    includes: tuple[bytes, ...] = ()
    used: tuple[bytes, ...] = ()
    makes_one: bool = False
    has_no_times: bool = False


def inner_words(values: Iterable[bytes]) -> InnerWords:
    """Return what these words say, in their order; a value that is missing is left out."""
    words = iter(values)
    found: dict[bytes, list[bytes]] = {INCLUDE: [], INCLUDE_PCH: []}
    makes_one = has_no_times = False
    for word in words:
        if word in PAIRS:
            found[word] += (value for value in (next(words, b""),) if value)
        makes_one = makes_one or word == EMIT
        has_no_times = has_no_times or word == NO_TIMES
    return InnerWords(tuple(found[INCLUDE]), tuple(found[INCLUDE_PCH]), makes_one, has_no_times)
