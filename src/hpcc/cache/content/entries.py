"""Entries under a content key: which inputs lead to which result, and where the result was made.

An entry does not hold outputs. It names a result that is stored under the maker's own key. A result
mostly has two entries, with plain digests and with those of `content.comments`. They differ in
nothing else, so one record holds both.
"""

from __future__ import annotations

import enum
import re
from typing import Final, NamedTuple

from hpcc.cache.base.fields import decode_fields, encode_fields
from hpcc.cache.base.manifest import InputSet, decode_manifest, encode_manifest
from hpcc.cache.content.places import ALL_LETTERS, BUILD_MARK, LETTERS, Places
from hpcc.core import IntegrityError

_FORMAT: Final = b"content-entries-8"
MAX_ENTRIES: Final = 16
_MAX_NAMES: Final = 10_000
_FIELDS: Final = 11
_LETTERS: Final = frozenset(ALL_LETTERS + b"ois")
_DIGEST_BYTES: Final = 32
# In place of digests: the entry is one with those of `content.comments`, without a plain one.
_ONLY_FREE: Final = b"x"
_UNSETTLED: Final = re.compile(rb"([01]) ([0-9]{1,18}) ([0-9]{1,18}) ([01])")


class Names(enum.Enum):
    """What is known of the file names in a result, besides a list of them."""

    UNKNOWN = b"?"
    ANY = b"*"


class Unsettled(NamedTuple):
    """What the preprocessor must be asked before digests of `content.comments` may be used.

    `assembly`: whether the assembler reads the source as data. `locations`: whether GCC has columns
    for all lines; this many of its locations were in use beside those of repeated system headers.
    `repeated` are the locations of these once the preprocessor told them, else 0. `strings`:
    whether the assembler reads the source as data if a string outside of `asm` says so.
    """

    assembly: bool = False
    locations: int = 0
    repeated: int = 0
    strings: bool = False


class ContentEntry(NamedTuple):
    """One state of the inputs (with marks), and the result for it.

    `made_at` are the maker's places. `fixed` are the letters of the places that the result depends
    on: `c` for the working directory, `r` for the root, `b` for the build directory, `i` for the
    working directory's name below the build directory, `o` for the target's private directory.
    `s`: no link may lead to a file in the places, because GCC may write its real name.
    `private` is that directory with a mark. `names` are the files whose names show.
    `macros` are the definitions of the command line (`ContentForm.macros`).
    `is_comment_free`: the digests are those of `content.comments`, and `unsettled` is for these.
    """

    inputs: InputSet
    made_at: Places
    fixed: bytes
    targets: tuple[bytes, ...]
    names: tuple[bytes, ...] | Names
    is_comment_free: bool = False
    unsettled: Unsettled = Unsettled()
    private: bytes = b""
    macros: tuple[bytes, ...] = ()

    def suits(self, places: Places, private: bytes = b"") -> bool:
        """Tell whether the result may be used at these places, as far as they are fixed."""
        if b"o" in self.fixed and private != self.private:
            return False
        if b"i" in self.fixed and places.inside_build != self.made_at.inside_build:
            return False
        if self.made_at.build and not places.build and self._is_in_build():
            return False
        trios = zip(LETTERS, places, self.made_at, strict=True)
        return all(letter not in self.fixed or here == there for letter, here, there in trios)

    def _is_in_build(self) -> bool:
        inputs = self.inputs
        names = (*(path for path, _ in inputs.files), *inputs.present)
        directories = (absence.directory for absence in inputs.absences)
        return any(name.startswith(BUILD_MARK) for name in (*names, *directories))


def add_entries(
    entries: tuple[ContentEntry, ...], new: tuple[ContentEntry, ...]
) -> tuple[ContentEntry, ...]:
    """Return the entries with the new ones first, without the oldest beyond `MAX_ENTRIES`.

    All new entries are for one result; older entries for it are dropped.
    """
    others = (e for e in entries if e.inputs.result_key != new[0].inputs.result_key)
    return (*new, *others)[:MAX_ENTRIES]


def encode_entries(entries: tuple[ContentEntry, ...]) -> bytes:
    """Encode entries in their order."""
    records: list[bytes] = []
    position = 0
    while position < len(entries):
        entry, *after = entries[position : position + 2]
        is_pair = bool(after) and _are_pair(entry, after[0])
        records.append(_encode(entry, after[0] if is_pair else None))
        position += 2 if is_pair else 1
    return encode_fields([_FORMAT, *records])


def decode_entries(data: bytes) -> tuple[ContentEntry, ...]:
    """Decode what `encode_entries` wrote.

    Raises:
        IntegrityError: the bytes are not entries of this version.
    """
    fields = decode_fields(data)
    if not fields or fields[0] != _FORMAT or len(fields) > MAX_ENTRIES + 1:
        raise IntegrityError("not content entries of this version", reason="bad-record")
    entries = tuple(entry for field in fields[1:] for entry in _decode(field))
    if len(entries) > MAX_ENTRIES:
        raise IntegrityError("too many content entries", reason="bad-record")
    return entries


def _are_pair(plain: ContentEntry, free: ContentEntry) -> bool:
    """Tell whether the entries are those of one result, and differ in their digests only."""
    one, other = plain.inputs, free.inputs
    return (
        not plain.is_comment_free
        and free == plain._replace(inputs=other, is_comment_free=True)
        # Of one object: equal names are not compared, and are then encoded twice.
        and other.absences is one.absences
        and other == one._replace(files=other.files)
        and bool(one.files)
        and [path for path, _ in one.files] == [path for path, _ in other.files]
    )


def _encode(entry: ContentEntry, free: ContentEntry | None) -> bytes:
    names = entry.names
    known = [names.value] if isinstance(names, Names) else [b"=", *names]
    form = _ONLY_FREE if entry.is_comment_free else b""
    if free is not None:
        form = b"".join([digest for _, digest in free.inputs.files])
    return encode_fields(
        [
            *entry.made_at,
            entry.fixed,
            encode_fields(entry.targets),
            encode_fields(known),
            form,
            encode_manifest((entry.inputs,)),
            b"%d %d %d %d" % entry.unsettled,
            entry.private,
            encode_fields(entry.macros),
        ]
    )


def _decode(data: bytes) -> tuple[ContentEntry, ...]:
    fields = decode_fields(data)
    if len(fields) != _FIELDS:
        raise IntegrityError("not a content entry", reason="bad-record")
    cwd, root, build, fixed, targets, known, form, body, unsettled, private, macros = fields
    sets = decode_manifest(body)
    kind, *names = decode_fields(known) or [b""]
    left = _UNSETTLED.fullmatch(unsettled)
    is_odd = len(sets) != 1 or not cwd or not _LETTERS.issuperset(fixed) or len(names) > _MAX_NAMES
    if is_odd or left is None:
        raise IntegrityError("not a content entry", reason="bad-record")
    if kind == b"=":
        found: tuple[bytes, ...] | Names = tuple(names)
    elif not names and kind in {Names.ANY.value, Names.UNKNOWN.value}:
        found = Names(kind)
    else:
        raise IntegrityError("not a content entry", reason="bad-record")
    inputs, words = sets[0], tuple(decode_fields(targets))
    is_free = form == _ONLY_FREE
    doubts = Unsettled(left[1] == b"1", int(left[2]), int(left[3]), left[4] == b"1")
    defined = tuple(decode_fields(macros))
    places = Places(cwd, root, build)
    entry = ContentEntry(inputs, places, fixed, words, found, is_free, doubts, private, defined)
    if is_free or not form:
        return (entry,)
    if len(form) != _DIGEST_BYTES * len(inputs.files):
        raise IntegrityError("not a content entry", reason="bad-record")
    starts = range(0, len(form), _DIGEST_BYTES)
    digests = (form[start : start + _DIGEST_BYTES] for start in starts)
    files = zip((path for path, _ in inputs.files), digests, strict=True)
    free = entry._replace(inputs=inputs._replace(files=tuple(files)), is_comment_free=True)
    return entry, free
