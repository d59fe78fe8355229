"""Finds places that a compile may reach from outside: by a name that holds the place's own name.

A path below a place is stored with the place's mark. That is right if it was looked up from a
directory in this place. With `-I/p`, the place /p/build and `#include "build/gen.h"` the compiler
looks from /p, wherever the working directory is. Then the place must be the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import absolute
from hpcc.cache.content.key import ContentKey
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.scan.scan import Hazard

# Names that no text shows as they are.
_HIDDEN: Final = Hazard.COMPUTED_INCLUDE | Hazard.OPAQUE_QUESTION | Hazard.OPAQUE_EMBED


def letters_reached_from_outside(
    memo: FileMemo, prepared: Prepared, key: ContentKey, closure: Closure
) -> bytes:
    """Return the letters of the places that a name from another directory may lead into."""
    arguments = b"\n".join(prepared.invocation.arguments)
    if closure.hazards & _HIDDEN and b"-D" in arguments:
        return b"cr"  # a macro may put a name together
    letters = b""
    for letter, place in zip((b"c", b"r"), key.places, strict=True):
        if place and _is_reached(memo, prepared, key, closure, place, arguments):
            letters += letter
    return letters


def _is_reached(
    memo: FileMemo,
    prepared: Prepared,
    key: ContentKey,
    closure: Closure,
    place: bytes,
    arguments: bytes,
) -> bool:
    inside = place + b"/"
    for directory in key.search:
        path = absolute(prepared.cwd, directory)
        is_own = directory not in prepared.invocation.include_dirs
        if is_own and (path + b"/").startswith(inside):
            return True  # the compiler's own headers do not move
    rests = {
        place[len(start) :].lstrip(b"/") + b"/" for start in _starts(prepared, key, closure, place)
    }
    if not rests:
        return False
    if closure.hazards & _HIDDEN or any(rest in arguments for rest in rests):
        return True
    return any(
        memo.derived(path, digest, (b"holds", rest), Holds(rest)) is not False
        for rest in rests
        for path, digest in closure.files
    )


class Holds:
    """Tells whether a text holds a part of a name."""

    def __init__(self, part: bytes) -> None:
        self._part = part

    def __call__(self, text: bytes) -> bool:
        return self._part in text


def _starts(prepared: Prepared, key: ContentKey, closure: Closure, place: bytes) -> Iterator[bytes]:
    """Yield the directories above a place from which names are looked up."""
    homes = dict.fromkeys(path.rpartition(b"/")[0] for path, _ in closure.files)
    directories = (absolute(prepared.cwd, d) for d in key.search)
    for start in dict.fromkeys((prepared.cwd, *directories, *homes)):
        if place.startswith(start.rstrip(b"/") + b"/"):
            yield start.rstrip(b"/")
