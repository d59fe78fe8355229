"""Entries of content keys survive the disk, and damaged ones are refused."""

from __future__ import annotations

import pytest

from hpcc.cache.base.fields import decode_fields, encode_fields
from hpcc.cache.base.manifest import Absence, InputSet
from hpcc.cache.content.entries import (
    MAX_ENTRIES,
    ContentEntry,
    Names,
    add_entries,
    decode_entries,
    encode_entries,
)
from hpcc.cache.content.places import CWD_MARK, ROOT_MARK, Places
from hpcc.core import IntegrityError

PLACES = Places(b"/p/build", b"/p")


def _entry(number: int = 0, **changes: object) -> ContentEntry:
    inputs = InputSet(
        ((ROOT_MARK + b"/a.c", bytes(32)), (b"/usr/include/x.h", bytes(32))),
        (CWD_MARK + b"/there.h",),
        (Absence(CWD_MARK, frozenset({b"gone.h"}), frozenset()),),
        number.to_bytes(32),
    )
    entry = ContentEntry(inputs, PLACES, b"c", (b"a.o",), Names.UNKNOWN)
    return entry._replace(**changes)


@pytest.mark.parametrize(
    "entry",
    [
        _entry(),
        _entry(names=Names.ANY, fixed=b"cr"),
        _entry(names=(), fixed=b"", targets=()),
        _entry(names=(ROOT_MARK + b"/a.c", b"../b.h"), is_comment_free=True),
        _entry(made_at=Places(b"/p", b"")),
    ],
)
def test_an_entry_comes_back_as_it_was(entry: ContentEntry) -> None:
    (found,) = decode_entries(encode_entries((entry,)))
    assert found._replace(inputs=entry.inputs) == entry
    assert found.inputs.files == entry.inputs.files
    assert found.inputs.result_key == entry.inputs.result_key


def test_the_newest_entries_stay() -> None:
    entries: tuple[ContentEntry, ...] = ()
    for number in range(MAX_ENTRIES + 5):
        entries = add_entries(entries, (_entry(number),))
    assert len(entries) == MAX_ENTRIES
    assert entries[0].inputs.result_key == (MAX_ENTRIES + 4).to_bytes(32)


def test_new_entries_of_a_result_replace_its_old_ones() -> None:
    entries = add_entries((_entry(1), _entry(2)), (_entry(1), _entry(1, is_comment_free=True)))
    assert [e.inputs.result_key[-1] for e in entries] == [1, 1, 2]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (0, b""),  # a working directory
        (2, b"z"),  # an unknown letter
        (4, encode_fields([b"%"])),  # an unknown kind of names
        (5, b"y"),
        (6, b""),
    ],
)
def test_a_damaged_entry_is_refused(field: int, value: bytes) -> None:
    fmt, body = decode_fields(encode_entries((_entry(),)))
    fields = decode_fields(body)
    fields[field] = value
    with pytest.raises(IntegrityError):
        decode_entries(encode_fields([fmt, encode_fields(fields)]))


def test_too_many_entries_are_refused() -> None:
    fmt, body = decode_fields(encode_entries((_entry(),)))
    with pytest.raises(IntegrityError):
        decode_entries(encode_fields([fmt, *[body] * (MAX_ENTRIES + 1)]))
    with pytest.raises(IntegrityError):
        decode_entries(encode_fields([b"content-entries-1", body]))


@pytest.mark.parametrize(
    ("fixed", "places", "suits"),
    [
        (b"", Places(b"/q/b", b"/q"), True),
        (b"c", Places(b"/q/b", b"/p"), False),
        (b"c", Places(b"/p/build", b"/q"), True),
        (b"r", Places(b"/q/b", b"/p"), True),
        (b"cr", Places(b"/p/build", b"/q"), False),
    ],
)
def test_a_fixed_place_must_be_the_same(*, fixed: bytes, places: Places, suits: bool) -> None:
    assert _entry(fixed=fixed).suits(places) is suits
