"""Entries under a content key: which inputs lead to which result, and where the result was made.

An entry does not hold outputs. It names a result that is stored under the maker's own key.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from hpcc.cache.base.fields import decode_fields, encode_fields
from hpcc.cache.base.manifest import InputSet, decode_manifest, encode_manifest
from hpcc.cache.content.places import Places
from hpcc.core import IntegrityError

_FORMAT: Final = b"content-entries-2"
MAX_ENTRIES: Final = 16
_MAX_NAMES: Final = 10_000
_FIELDS: Final = 7


class Names(enum.Enum):
    """What is known of the file names in a result, besides a list of them."""

    UNKNOWN = b"?"
    ANY = b"*"


class ContentEntry(NamedTuple):
    """One state of the inputs (with marks), and the result for it.

    `made_at` are the maker's places. `fixed` are the letters of the places that the result depends
    on: `c` for the working directory, `r` for the root. `names` are the files whose names show.
    `is_comment_free`: the digests are those of `content.comments`.
    """

    inputs: InputSet
    made_at: Places
    fixed: bytes
    targets: tuple[bytes, ...]
    names: tuple[bytes, ...] | Names
    is_comment_free: bool = False

    def suits(self, places: Places) -> bool:
        """Tell whether the result may be used at these places, as far as they are fixed."""
        return not (b"c" in self.fixed and places.cwd != self.made_at.cwd) and not (
            b"r" in self.fixed and places.root != self.made_at.root
        )


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
    return encode_fields([_FORMAT, *map(_encode, entries)])


def decode_entries(data: bytes) -> tuple[ContentEntry, ...]:
    """Decode what `encode_entries` wrote.

    Raises:
        IntegrityError: the bytes are not entries of this version.
    """
    fields = decode_fields(data)
    if not fields or fields[0] != _FORMAT or len(fields) > MAX_ENTRIES + 1:
        raise IntegrityError("not content entries of this version", reason="bad-record")
    return tuple(map(_decode, fields[1:]))


def _encode(entry: ContentEntry) -> bytes:
    names = entry.names
    known = [names.value] if isinstance(names, Names) else [b"=", *names]
    return encode_fields(
        [
            *entry.made_at,
            entry.fixed,
            encode_fields(entry.targets),
            encode_fields(known),
            b"x" if entry.is_comment_free else b"",
            encode_manifest((entry.inputs,)),
        ]
    )


def _decode(data: bytes) -> ContentEntry:
    fields = decode_fields(data)
    if len(fields) != _FIELDS:
        raise IntegrityError("not a content entry", reason="bad-record")
    cwd, root, fixed, targets, known, form, body = fields
    sets = decode_manifest(body)
    kind, *names = decode_fields(known) or [b""]
    if len(sets) != 1 or not cwd or not set(fixed) <= set(b"cr") or len(names) > _MAX_NAMES:
        raise IntegrityError("not a content entry", reason="bad-record")
    if form not in {b"", b"x"}:
        raise IntegrityError("not a content entry", reason="bad-record")
    if kind == b"=":
        found: tuple[bytes, ...] | Names = tuple(names)
    elif not names and kind in {Names.ANY.value, Names.UNKNOWN.value}:
        found = Names(kind)
    else:
        raise IntegrityError("not a content entry", reason="bad-record")
    return ContentEntry(
        sets[0], Places(cwd, root), fixed, tuple(decode_fields(targets)), found, form == b"x"
    )
