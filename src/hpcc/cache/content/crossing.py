"""Finds places that a compile may reach from outside: by a name that holds the place's own name.

A path below a place is stored with the place's mark. That is right if it was looked up from a
directory in this place. With `-I/p`, the place /p/build and `#include "build/gen.h"` the compiler
looks from /p, wherever the working directory is. Then the place must be the same, and so must a
place from which it was looked up.

A name that is looked up from the build directory moves with it. Then the working directory must
have the same name below the build directory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import Final

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.manifest import InputSet
from hpcc.cache.base.real_names import RealNames
from hpcc.cache.base.uncacheable import absolute
from hpcc.cache.content.key import ContentKey
from hpcc.cache.content.places import ALL_LETTERS, BUILD_MARK, LETTERS, Places, letter_of
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.inputs.respelling import are_real, has_system_text, names_vary
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.invocation.invocation import Language
from hpcc.compilers.scan.assembler import read_assembler
from hpcc.compilers.scan.scan import Hazard
from hpcc.compilers.scan.text import joined

# Names that do not name an entry of the directory before them.
_NO_NAMES: Final = frozenset({b"", b".", b".."})
_WORD: Final = re.compile(rb"[0-9A-Za-z_$.+\x80-\xff-]+")
# What a macro without a text stands for, and its opposite: any source can write it.
_EVERYWHERE: Final = frozenset({b"0", b"1"})
# Names that no text shows as they are.
_HIDDEN: Final = Hazard.COMPUTED_INCLUDE | Hazard.OPAQUE_QUESTION | Hazard.OPAQUE_EMBED
_EMBEDS: Final = Hazard.EMBED | Hazard.OPAQUE_EMBED


def letters_reached_from_outside(
    memo: FileMemo, prepared: Prepared, key: ContentKey, closure: Closure
) -> bytes:
    """Return the letters of the places that a name from another directory may lead into."""
    arguments = b"\n".join(prepared.invocation.arguments)
    if closure.hazards & _HIDDEN and any(
        may_be_part(macro, key.places) for macro in prepared.invocation.macros
    ):
        return ALL_LETTERS  # the macro may put a name together
    # An escape in a string may hide the name of a file of the assembler.
    has_data = any(path != prepared.source for path in closure.data)
    is_hidden = has_data or bool(closure.hazards & _HIDDEN)
    letters = b""
    for letter, place in zip(LETTERS, key.places, strict=True):
        if not place:
            continue
        starts = set(_starts(prepared, key, closure, place))
        moving = set[bytes]()
        if letter == b"c":
            moving = {s for s in starts if key.places.mark(s).startswith(BUILD_MARK)}
        if _has_own_headers(prepared, key, place) or _is_reached(
            memo, closure, arguments, _rests(place, starts - moving), is_hidden=is_hidden
        ):
            letters += letter + b"".join(letter_of(key.places.mark(s)) for s in starts - moving)
        if _is_reached(memo, closure, arguments, _rests(place, moving), is_hidden=is_hidden):
            letters += b"i"
    return letters


def letters_of_respelled(
    memo: FileMemo, prepared: Prepared, closure: Closure, marked: InputSet
) -> bytes:
    """Return the letters for headers that GCC may spell by their real names (`respelling`).

    `marked` are the inputs of the closure with marks.
    """
    pairs = zip(closure.files, marked.files, strict=True)
    own = [file for file, (name, _) in pairs if file[0] != name]
    is_any = has_system_text(memo, own)
    if names_vary(memo, prepared.invocation, prepared.cwd, own) or (
        is_any and (any(b"/../" in path for path, _ in own) or not are_real(p for p, _ in own))
    ):
        return ALL_LETTERS + b"s"
    return b"s" if is_any else b""


def puts_names_together(memo: FileMemo, prepared: Prepared, closure: Closure) -> bool:
    """Tell whether the assembler may read a file whose name no text shows as it is.

    A macro of the assembler may put the name of a file in this place together, and it is that file
    from everywhere. GNU as lists the files that it read, so the result is right here.
    """
    language = prepared.invocation.language
    if language is Language.PLAIN_ASSEMBLER:
        return Hazard.OPAQUE_ASSEMBLY in closure.hazards
    base = prepared.source.rpartition(b"/")[2]
    # GNU as lists the source's base name for its `.file`.
    if not any(path.rpartition(b"/")[2] != base for path in closure.data):
        return False
    if language is not Language.ASSEMBLER:
        is_seen = Hazard.ASSEMBLER_FILE in closure.hazards or bool(closure.hazards & _EMBEDS)
        return Hazard.OPAQUE_ASSEMBLY in closure.hazards or not is_seen
    texts = ((path, digest) for path, digest in closure.files if path not in closure.data)
    return any(
        memo.derived(path, digest, "opaque-assembler", _is_opaque) is not False
        for path, digest in texts
    )


def _is_opaque(text: bytes) -> bool:
    return read_assembler(text).is_opaque


def _has_own_headers(prepared: Prepared, key: ContentKey, place: bytes) -> bool:
    """Tell whether the compiler's own headers are in a place: they do not move."""
    own = (d for d in key.search if d not in prepared.invocation.include_dirs)
    return any((absolute(prepared.cwd, d) + b"/").startswith(place + b"/") for d in own)


def _rests(place: bytes, starts: Iterable[bytes]) -> frozenset[bytes]:
    """Return the names of a place from directories above it."""
    return frozenset(place[len(start) :].lstrip(b"/") + b"/" for start in starts)


def _is_reached(
    memo: FileMemo, closure: Closure, arguments: bytes, rests: frozenset[bytes], *, is_hidden: bool
) -> bool:
    """Tell whether a name that is looked up may begin with one of these names of a place."""
    if not rests:
        return False
    if is_hidden or any(rest in arguments for rest in rests):
        return True
    return any(
        memo.derived(path, digest, (b"holds", rest), Holds(rest)) is not False
        for rest in rests
        for path, digest in closure.files
    )


def may_be_part(macro: bytes, places: Iterable[bytes]) -> bool:
    """Tell whether the text of a definition, NAME=TEXT, may be a part of the name of a place.

    The sources may hold the rest: `#define H </home/USER/x.h>` with `-DUSER=me`.
    """
    text = macro.partition(b"=")[2]
    if b"/" in text or b"#" in text:
        return True
    words = [word for word in _WORD.findall(text) if word not in _EVERYWHERE]
    return any(word in place for word in words for place in places)


class Holds:
    """Tells whether a text holds a part of a name, also one that a backslash splits."""

    def __init__(self, part: bytes) -> None:
        self._part = part

    def __call__(self, text: bytes) -> bool:
        return self._part in text or self._part in joined(text)


def _starts(prepared: Prepared, key: ContentKey, closure: Closure, place: bytes) -> Iterator[bytes]:
    """Yield the directories above a place from which names are looked up."""
    homes = dict.fromkeys(path.rpartition(b"/")[0] for path, _ in closure.files)
    directories = (absolute(prepared.cwd, d) for d in key.search)
    for start in dict.fromkeys((prepared.cwd, *directories, *homes)):
        if place.startswith(start.rstrip(b"/") + b"/"):
            yield start.rstrip(b"/")


def leave_through_links(paths: Iterable[bytes], places: Places, fixed: bytes = b"") -> bool:
    """Tell whether a `..` in one of the paths leaves a link, so that two names are not one file.

    With `s` in `fixed` no link may lead to a file in one of the places, either.
    """
    every = b"s" in fixed
    paths = tuple(paths)
    if not every and b"/../" not in b"\0".join(paths):
        return False
    return _have_links(p for p in paths if b"/../" in p or (every and places.mark(p) != p))


def _have_links(paths: Iterable[bytes]) -> bool:
    """Tell whether the real name of one of the paths differs in more than `..` and `.`."""
    names, homes = RealNames(), dict[bytes, bool]()
    for path in paths:
        home, _, base = path.rpartition(b"/")
        if base in _NO_NAMES or os.path.islink(path):  # noqa: PTH114 - a path of bytes
            if os.path.realpath(path) != os.path.normpath(path):
                return True
            continue
        if home not in homes:
            homes[home] = names.of_directory(home) == os.path.normpath(home or b"/")
        if not homes[home]:
            return True
    return False
