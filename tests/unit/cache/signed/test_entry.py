from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.cache.base.fields import encode_fields
from hpcc.cache.base.manifest import Absence, make_set
from hpcc.cache.base.twins import Twins
from hpcc.cache.results.results import Result
from hpcc.cache.signed.entry import (
    MAX_RECORDS,
    Content,
    EntryName,
    Opened,
    join_records,
    open_object,
    sign,
    split_records,
)
from hpcc.compilers.scan.twins import TwinRule
from hpcc.core.reasons.remote_cache import RefusedEntry
from hpcc.identity.cache_keys import CacheKey, SigningKey, make_signing_key

NAME = EntryName(b"k" * 32, b"s" * 32, b"c" * 32)
LIMIT = 1 << 20


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return make_signing_key(tmp_path_factory.mktemp("k") / "key", days=1, now=time.time())


def content(header: bytes = b"h") -> Content:
    inputs = make_set(
        NAME.share_key,
        ((b"\0/src/a.c", NAME.source), (b"/usr/include/stdio.h", header * 32)),
        (b"\0/inc/x.h",),
        (Absence(b"\0/src", frozenset({b"stdio.h"}), frozenset({b"sys"})),),
        twins=(Twins(TwinRule.DIRECTORY, ((b"directory", b"\0/src"),)),),
    )
    return Content(inputs, Result(b"\x7fELF" + header, b"a.o: \0a.c", b"", b"warning"))


def judge_of(key: CacheKey):  # type: ignore[no-untyped-def]  # noqa: ANN201 - a function
    return lambda kid: key if kid == key.kid else RefusedEntry.UNKNOWN_KEY


def opened(data: bytes, signing: SigningKey, name: EntryName = NAME) -> Opened:
    return open_object(data, name, "team", judge_of(signing.key), LIMIT)


def test_what_was_signed_comes_back(signing: SigningKey) -> None:
    data = join_records(sign(NAME, "team", content(), signing), ())
    found = opened(data, signing)
    ((key, back),) = found.contents
    assert (key, found.refused) == (signing.key, ())
    assert back.result == content().result
    assert make_set(
        NAME.share_key, back.inputs.files, back.inputs.present, back.inputs.absences,
        twins=back.inputs.twins,
    ).body == content().inputs.body  # fmt: skip


def test_equal_results_are_equal_bytes(signing: SigningKey) -> None:
    assert sign(NAME, "team", content(), signing) == sign(NAME, "team", content(), signing)


@pytest.mark.parametrize("part", range(3))
def test_another_name_is_another_entry(signing: SigningKey, part: int) -> None:
    data = join_records(sign(NAME, "team", content(), signing), ())
    parts = list(NAME)
    parts[part] = b"x" * 32
    other = EntryName(*parts)
    assert opened(data, signing, other).refused == (RefusedEntry.OTHER_KEY,)
    assert other.object_name("team") != NAME.object_name("team")
    assert NAME.object_name("other") != NAME.object_name("team")


def test_the_newest_records_are_kept_each_once(signing: SigningKey) -> None:
    older: tuple = ()  # type: ignore[type-arg]  # of records
    for header in (b"a", b"b", b"c", b"d", b"e", b"f", b"f"):
        older = split_records(join_records(sign(NAME, "team", content(header), signing), older))
    assert len(older) == MAX_RECORDS
    objects = [
        c.result.object_data[4:] for _, c in opened(join_records(older[0], older), signing).contents
    ]
    assert objects == [b"f", b"e", b"d", b"c"]


def test_an_entry_without_its_source_does_not_count(signing: SigningKey) -> None:
    """A set of inputs that is empty, or of another source, would hold elsewhere."""
    for files in ((), ((b"\0/src/a.c", b"o" * 32),)):
        inputs = make_set(NAME.share_key, files, (), ())
        record = sign(NAME, "team", Content(inputs, content().result), signing)
        assert opened(join_records(record, ()), signing).refused == (RefusedEntry.MALFORMED,)


@pytest.mark.parametrize("path", [b"", b"a.c", b"/a\0b", b"\0/a\0b", b"\0\0/a"])
def test_a_path_that_is_no_path_does_not_count(signing: SigningKey, path: bytes) -> None:
    """The system refuses such names with an error, which would cost the compile its hit path."""
    for inputs in (
        make_set(NAME.share_key, ((path, NAME.source),), (), ()),
        make_set(NAME.share_key, ((b"/a", NAME.source),), (path,), ()),
        make_set(
            NAME.share_key, ((b"/a", NAME.source),), (),
            (Absence(path, frozenset({b"x"}), frozenset()),),
        ),
    ):  # fmt: skip
        record = sign(NAME, "team", Content(inputs, content().result), signing)
        assert opened(join_records(record, ()), signing).refused == (RefusedEntry.MALFORMED,)


def test_a_key_of_another_role_signs_no_entry(signing: SigningKey) -> None:
    data = join_records(sign(NAME, "team", content(), signing), ())
    other = CacheKey(signing.key.raw, "packs", signing.key.last_day)
    found = open_object(data, NAME, "team", lambda _: other, LIMIT)
    assert found.refused == (RefusedEntry.ROLE,)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("header", RefusedEntry.SIGNATURE),
        ("signature", RefusedEntry.SIGNATURE),
        ("packed", RefusedEntry.SIGNATURE),
    ],
)
def test_each_part_of_a_record_is_covered(
    signing: SigningKey, part: str, reason: RefusedEntry
) -> None:
    record = sign(NAME, "team", content(), signing)
    old = getattr(record, part)
    changed = record._replace(**{part: old[:-1] + bytes([old[-1] ^ 1])})
    assert opened(join_records(changed, ()), signing).refused == (reason,)


def test_an_entry_of_another_namespace_does_not_count(signing: SigningKey) -> None:
    data = join_records(sign(NAME, "forks", content(), signing), ())
    assert opened(data, signing).refused == (RefusedEntry.NAMESPACE,)


def test_content_over_the_limit_is_not_unpacked(signing: SigningKey) -> None:
    data = join_records(sign(NAME, "team", content(), signing), ())
    found = open_object(data, NAME, "team", judge_of(signing.key), 10)
    assert found.refused == (RefusedEntry.TOO_LARGE,)


def test_too_many_records_are_not_an_object(signing: SigningKey) -> None:
    record = encode_fields(sign(NAME, "team", content(), signing))
    for count, refused in ((MAX_RECORDS, ()), (MAX_RECORDS + 1, (RefusedEntry.MALFORMED,))):
        data = b"hpcc-remote-cache-1\n" + encode_fields([record] * count)
        assert opened(data, signing).refused == refused


def test_a_record_of_another_format_does_not_count(signing: SigningKey) -> None:
    record = sign(NAME, "team", content(), signing)
    header = record.header.replace(b"entry-1", b"entry-2")
    signature = signing.private.sign(b"hpcc remote cache entry\0" + header)
    changed = record._replace(header=header, signature=signature)
    assert opened(join_records(changed, ()), signing).refused == (RefusedEntry.MALFORMED,)


@given(data=st.binary(max_size=300), start=st.booleans())
def test_any_bytes_are_refused(data: bytes, start: bool) -> None:
    data = b"hpcc-remote-cache-1\n" + data if start else data
    found = open_object(data, NAME, "team", lambda _: RefusedEntry.UNKNOWN_KEY, LIMIT)
    assert found.contents == ()
    assert found.refused


@given(place=st.integers(min_value=0), bit=st.integers(0, 7))
def test_no_changed_bit_is_believed(place: int, bit: int) -> None:
    data = bytearray(_SIGNED)
    data[place % len(data)] ^= 1 << bit
    found = open_object(bytes(data), NAME, "team", judge_of(_KEY.key), LIMIT)
    assert found.contents == ()
    assert len(found.refused) == 1


def _fixed() -> SigningKey:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        return make_signing_key(Path(name, "key"), days=1, now=time.time())


_KEY = _fixed()
_SIGNED = join_records(sign(NAME, "team", content(), _KEY), ())
