"""What a user's prefix maps make of the names in a place, so that a moved compile may hit.

Problem: `-ffile-prefix-map=$PWD=.` makes the objects of two clones equal, and its text differs in
each of them.

Rule: a key holds what a map replaces with a mark for the place at its start, beside what it writes
instead. Where the map of one place meets the name of another one (/x/p/build and, as text, /x/p-2
begin with /x/p), what is left of that name must be the same. With debug information the key holds
it; else a look-up compares it where a name may show. Then a name in a place, which is a mark
and a rest, is met by the same maps at each place, and each map makes the same text of it, in
whatever order a compiler tries them. So a place whose names are all met need not be in the key,
although names show. With debug information that holds for the name of the working directory itself
as well, which `-ffile-prefix-map=$PWD/=` does not meet.

What a map makes of other names must not depend on the places either: no input may have a name that
begins like one, as text (/x/p-2/a.h beside /x/p), no source may hold the name of one, and no line
directive may hide a name (`are_alike`). Then nothing is left that a map meets at one place only.

Which programs obey which maps was asked of the compilers (`test_content_maps.py`): both kinds of
maps meet each name that debug information or a macro, a builtin function, or the pretty name of a
function shows, in C and C++, but for Clang before version 17. Another flag that shows names takes
all of this back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from hpcc.cache.base.files import FileMemo
from hpcc.cache.content.places import CWD_MARK, MARKS, Places
from hpcc.compilers.invocation.content import ContentForm, PrefixMap
from hpcc.compilers.scan.text import joined

_OF_DEBUG: Final = frozenset({b"file", b"debug"})
_OF_MACROS: Final = frozenset({b"file", b"macro"})
# A directive begins its line, or follows a comment. Clang takes a carriage return for a line's end.
_LINE: Final = re.compile(
    rb"(?:^|\r|\*/)[ \t\v\f]*(?:#|%:|\?\?=)[ \t\v\f]*(?:line\b|(?=[0-9]|/\*))([^\n]*)", re.MULTILINE
)
# A number, and perhaps a name that is written as it is, with the flags of a preprocessor.
_OPEN_LINE: Final = re.compile(rb'[ \t]*[0-9]+[ \t]*(?:"[^"\\\n?]*"[ \t0-9]*)?\r?')


class PlaceMaps(NamedTuple):
    """What prefix maps mean for a content key.

    `fields` belong into the key, and what `texts` name is fixed. `shown` are the places whose names
    the maps do not replace in debug information. `in_macros` are the marks of places whose names
    they replace in what macros and functions of the compiler expand to. `replace_places`: the
    places need not be in the key, but for those in `shown`. `starts` are the texts that the maps
    replace, with marks.
    """

    fields: tuple[bytes, ...] = ()
    texts: tuple[bytes, ...] = ()
    shown: frozenset[bytes] = frozenset()
    in_macros: frozenset[bytes] = frozenset()
    replace_places: bool = False
    starts: tuple[bytes, ...] = ()

    def replaced(self, one: Places, other: Places) -> frozenset[bytes]:
        """Return the marks of the places whose names in macros are the same at two places."""
        rests, others = (_beginnings(self.starts, places) for places in (one, other))
        return frozenset(mark for mark in self.in_macros if rests.get(mark) == others.get(mark))


NO_MAPS: Final = PlaceMaps()


def place_maps(form: ContentForm, places: Places, spelled_cwd: bytes) -> PlaceMaps:
    """Return what the maps of a command line make of its places.

    `spelled_cwd` is another name of the working directory that the compiler may write, else b"".
    """
    written = tuple(piece for piece in form.pieces if isinstance(piece, PrefixMap))
    if not written:
        return NO_MAPS
    if not form.maps or spelled_cwd:
        words = tuple(word for piece in written for word in (piece.old, piece.new))
        return PlaceMaps(words, words)
    fields: list[bytes] = [b"maps"]
    texts: list[bytes] = []
    starts = tuple(_marked(piece.old, places) for piece in written)
    for piece, marked in zip(written, starts, strict=True):
        fields += (marked, piece.new)
        texts += (piece.new,) if marked != piece.old else (piece.old, piece.new)
    if form.names_directory:
        fields += (field for rest in _beginnings(starts, places).values() for field in rest)
    # What a map replaces together with directories above a place is fixed with the place.
    above = [start for start in starts if not start.startswith(MARKS)]
    outside = {p for p in places if p and any(map(p.startswith, above))}
    replaced = {p for p in places if p and _meets(written, _OF_DEBUG, p + b"/")}
    if not _meets(written, _OF_DEBUG, places.cwd):
        replaced.discard(places.cwd)
    shown = (outside | ({*places} - {b"", *replaced})) if form.names_directory else set[bytes]()
    in_macros = (
        mark
        for place, mark in zip(places, MARKS, strict=True)
        if place and place not in outside and _meets(written, _OF_MACROS, place + b"/")
    )
    marks, words = frozenset(in_macros), tuple(texts)
    return PlaceMaps(
        tuple(fields), words, frozenset(shown), marks, replace_places=True, starts=starts
    )


def are_alike(
    memo: FileMemo,
    files: Sequence[tuple[bytes, bytes]],
    one: Places,
    other: Places,
    name_place: Callable[[Iterable[tuple[bytes, bytes]], bytes], str],
) -> bool:
    """Tell whether maps make the same of all names at two places, besides those in a place.

    `files` are the inputs (name, digest) at `one`, and `name_place` returns why one of the files
    may name a place; "" if none does.
    """
    places = tuple(filter(None, {*one, *other}))
    for path, _ in files:
        marked = one.mark(path)
        if path.startswith(places) if marked == path else _begin_like_a_place(marked, one, other):
            return False
    if any(memo.derived(p, d, "hidden-lines", hides_line_names) is not False for p, d in files):
        return False
    return not any(name_place(files, place) for place in places)


def _begin_like_a_place(marked: bytes, *every: Places) -> bool:
    """Tell whether a name begins like a place in which it is not (build-a/x.h beside build)."""
    spelled = ((places.spell(marked), place) for places in every for place in places if place)
    return any(
        path.startswith(p) and path[len(p) : len(p) + 1] not in {b"", b"/"} for path, p in spelled
    )


def hides_line_names(text: bytes) -> bool:
    """Tell whether a line directive may give a file a name that the text does not show."""
    whole = joined(text)
    if b"#" not in whole and b"%:" not in whole and b"??=" not in whole:
        return False
    plain = {match[1] for match in _LINE.finditer(text)}
    rests = (match[1] for match in _LINE.finditer(whole))
    return any(not _OPEN_LINE.fullmatch(rest) or rest not in plain for rest in rests)


def _meets(maps: Iterable[PrefixMap], kinds: frozenset[bytes], name: bytes) -> bool:
    return any(m.kind in kinds and name.startswith(m.old) for m in maps)


def _marked(old: bytes, places: Places) -> bytes:
    """Return a text with a mark for the longest place that it begins with, also within a word."""
    size, mark = max(
        (len(place), mark) if place and old.startswith(place) else (0, b"")
        for place, mark in zip(places, MARKS, strict=True)
    )
    return mark + old[size:]


def _beginnings(starts: Iterable[bytes], places: Places) -> dict[bytes, tuple[bytes, ...]]:
    """Return for marks the maps of other places that meet the place, and what is left of its name.

    Such a map makes a text of that rest, so it must be the same.
    """
    found: dict[bytes, tuple[bytes, ...]] = {}
    olds = [(start[: len(CWD_MARK)], places.spell(start)) for start in starts if start[:1] == b"\0"]
    for place, mark in zip(places, MARKS, strict=True):
        for short, other in zip(places, MARKS, strict=True):
            is_met = any(m == other and place.startswith(old) for m, old in olds)
            if place and mark != other and is_met:
                found[mark] = (*found.get(mark, ()), mark + other, place[len(short) :])
    return found
