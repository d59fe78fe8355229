"""Entries of content keys survive the disk, and damaged ones are refused."""

from __future__ import annotations

from typing import Any

import pytest

from hpcc.cache.base.fields import decode_fields, encode_fields
from hpcc.cache.base.manifest import Absence, InputSet
from hpcc.cache.content.entries import (
    MAX_ENTRIES,
    ContentEntry,
    Names,
    Unsettled,
    add_entries,
    decode_entries,
    encode_entries,
)
from hpcc.cache.content.places import BUILD_MARK, CWD_MARK, ROOT_MARK, Places
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
        _entry(made_at=Places(b"/p/build/sub", b"/p", b"/p/build"), fixed=b"crbois"),
        _entry(macros=(b"DNAME=a b", b"UOTHER", b"D")),
        _entry(unsettled=Unsettled(assembly=True, locations=12345, repeated=67, strings=True)),
    ],
)
def test_an_entry_comes_back_as_it_was(entry: ContentEntry) -> None:
    (found,) = decode_entries(encode_entries((entry,)))
    assert found._replace(inputs=entry.inputs) == entry
    assert found.inputs.files == entry.inputs.files
    assert found.inputs.result_key == entry.inputs.result_key


def _pair(number: int = 0, **changes: object) -> tuple[ContentEntry, ContentEntry]:
    plain = _entry(number, **changes)
    digests = (bytes(31) + b"1", bytes(31) + b"2")
    files = tuple((path, d) for (path, _), d in zip(plain.inputs.files, digests, strict=True))
    inputs = plain.inputs._replace(files=files)
    return plain, plain._replace(inputs=inputs, is_comment_free=True)


def test_both_entries_of_a_result_are_one_record() -> None:
    plain, free = _pair()
    data = encode_entries((plain, free, _entry(1)))
    assert len(decode_fields(data)) == 1 + 2  # the format, and two results
    found = decode_entries(data)
    assert [e.is_comment_free for e in found] == [False, True, False]
    assert [e.inputs.files for e in found[:2]] == [plain.inputs.files, free.inputs.files]
    assert found[1]._replace(inputs=free.inputs) == free
    assert encode_entries(found) == data


@pytest.mark.parametrize(
    "changes",
    [
        {"names": Names.ANY},
        {"fixed": b"r"},
        {"made_at": Places(b"/q", b"")},
        {"targets": ()},
        {"unsettled": Unsettled(assembly=True)},
    ],
)
def test_entries_that_differ_in_more_are_two_records(changes: dict[str, object]) -> None:
    plain, free = _pair()
    entries = (plain, free._replace(**changes))
    data = encode_entries(entries)
    assert len(decode_fields(data)) == 1 + 2
    assert [e._replace(inputs=plain.inputs) for e in decode_entries(data)] == [
        e._replace(inputs=plain.inputs) for e in entries
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"files": ((ROOT_MARK + b"/a.c", bytes(32)), (b"/usr/include/y.h", bytes(32)))},
        {"present": ()},
        {"result_key": bytes([7]) * 32},
    ],
)
def test_entries_of_other_inputs_are_two_records(change: dict[str, object]) -> None:
    plain, free = _pair()
    free = free._replace(inputs=free.inputs._replace(**change))
    data = encode_entries((plain, free))
    assert len(decode_fields(data)) == 1 + 2
    assert decode_entries(data)[1].inputs.files == free.inputs.files


def test_digests_of_a_record_must_be_those_of_its_files() -> None:
    fmt, body = decode_fields(encode_entries(_pair()))
    fields = decode_fields(body)
    assert len(fields[6]) == 64
    for damaged in (fields[6][:-1], fields[6][:32], fields[6] * 2):
        with pytest.raises(IntegrityError):
            decode_entries(encode_fields([fmt, encode_fields([*fields[:6], damaged, *fields[7:]])]))


def test_pairs_count_as_two_entries() -> None:
    fmt, body = decode_fields(encode_entries(_pair()))
    assert len(decode_entries(encode_fields([fmt, *[body] * (MAX_ENTRIES // 2)]))) == MAX_ENTRIES
    with pytest.raises(IntegrityError):
        decode_entries(encode_fields([fmt, *[body] * (MAX_ENTRIES // 2 + 1)]))


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
        (3, b"z"),  # an unknown letter
        (5, encode_fields([b"%"])),  # an unknown kind of names
        (6, b"y"),
        (7, b""),
        (8, b""),
        (8, b"2 0 0"),
        (8, b"1 -1 0"),
        (8, b"1 0"),
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
        decode_entries(encode_fields([b"content-entries-2", body]))


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


@pytest.mark.parametrize(
    ("fixed", "places", "suits"),
    [
        (b"b", Places(b"/p/build/x", b"/q", b"/p/build"), True),
        (b"b", Places(b"/p/b2/sub", b"/p", b"/p/b2"), False),
        (b"i", Places(b"/p/b2/sub", b"/q", b"/p/b2"), True),
        (b"i", Places(b"/p/b2/x", b"/p", b"/p/b2"), False),
        (b"i", Places(b"/p/build", b"/p", b""), False),
        (b"", Places(b"/p/b2/x", b"/q", b"/p/b2"), True),
        (b"", Places(b"/p/build", b"/p", b""), True),
    ],
)
def test_the_build_directory_may_be_fixed(*, fixed: bytes, places: Places, suits: bool) -> None:
    made_at = Places(b"/p/build/sub", b"/p", b"/p/build")
    assert _entry(fixed=fixed, made_at=made_at).suits(places) is suits


@pytest.mark.parametrize(
    "change",
    [
        {"files": ((BUILD_MARK + b"/x.h", bytes(32)),)},
        {"present": (BUILD_MARK + b"/x",)},
        {"absences": (Absence(BUILD_MARK, frozenset({b"x.h"}), frozenset()),)},
    ],
)
def test_inputs_in_the_build_directory_need_one(change: dict[str, Any]) -> None:
    made_at = Places(b"/p/build/sub", b"/p", b"/p/build")
    entry = _entry(fixed=b"", made_at=made_at)
    entry = entry._replace(inputs=entry.inputs._replace(**change))
    assert entry.suits(Places(b"/q/b2/sub", b"/q", b"/q/b2"))
    assert not entry.suits(Places(b"/q/b2", b"/q"))
