"""Messages to a signer: what is too long, cut, or out of range is refused before it is used."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import pytest

from hpcc.audit.base.trail_signer import (
    IndexDigest,
    Wanted,
    WantedHead,
    WantedIndex,
    WantedName,
    WantedSeal,
    WantedTree,
)
from hpcc.audit.signer.fields import SignerMessageError
from hpcc.audit.signer.ledger import Ledger
from hpcc.audit.signer.messages import (
    MAX_GROUP_BYTES,
    MAX_RECORDS,
    MessageKind,
    decode_end,
    decode_records,
    decode_wanted,
    encode_end,
    encode_records,
    encode_wanted,
    message,
    read_message,
)
from hpcc.audit.signer.served import Served
from hpcc_testkit.farm.audit_rows import KEY
from hpcc_testkit.signer.records import EMPTY, chain

INDEX = IndexDigest(sha256="ab" * 32, size_bytes=4096, since=1.0, until=2.0)
WANTED: tuple[Wanted, ...] = (
    WantedHead(5, 1.5), WantedTree(5, 1.5), WantedName(1.5), WantedIndex(first=3, index=INDEX),
    WantedIndex(first=3, index=INDEX, seal=b"{}"),
    WantedSeal(first=3, signed_from=0, at=1.5, index=None),
    WantedSeal(first=3, signed_from=0, at=1.5, index=INDEX),
)  # fmt: skip


@pytest.mark.parametrize("wanted", WANTED)
def test_what_is_wanted_is_read_as_it_was_written(wanted: Wanted) -> None:
    kind, content = encode_wanted(wanted)
    assert decode_wanted(kind, content) == wanted
    for end in range(len(content)):
        if isinstance(wanted, WantedIndex) and wanted.seal and end >= len(content) - 2:
            continue
        if isinstance(wanted, WantedSeal) and wanted.index and end == 24:
            continue
        with pytest.raises(SignerMessageError):
            decode_wanted(kind, content[:end])


@pytest.mark.parametrize("at", [float("nan"), float("inf")])
def test_a_time_is_a_number(at: float) -> None:
    with pytest.raises(SignerMessageError, match="time"):
        decode_wanted(*encode_wanted(WantedHead(1, at)))


@pytest.mark.parametrize(
    "kind", [MessageKind.STATE, MessageKind.BEGIN, MessageKind.RECORDS, MessageKind.DONE]
)
def test_another_message_wants_no_signature(kind: MessageKind) -> None:
    with pytest.raises(SignerMessageError):
        decode_wanted(kind, b"")


def test_records_are_read_as_they_were_written() -> None:
    for records in ([b"a"], [b"a", b"", b"bc"], [b"x"] * MAX_RECORDS):
        assert decode_records(encode_records(records)) == records


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0", b"\0\0", encode_records([b"a"] * (MAX_RECORDS + 1)),
        encode_records([b"abc"])[:-1], encode_records([b"abc"]) + b"d",
        struct.pack(">HI", 1, (15 << 20) + 1) + bytes((15 << 20) + 1),
        struct.pack(">HI", 1, 0xFFFFFFFF),
    ],
)  # fmt: skip
def test_wrong_groups_are_refused(content: bytes) -> None:
    with pytest.raises(SignerMessageError):
        decode_records(content)


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (MessageKind.RECORDS, MAX_GROUP_BYTES + 1),
        (MessageKind.HEAD, (16 << 10) + 1),
        (9, 0),
        (0, 0),
        (255, 0),
    ],
)
def test_nothing_is_read_of_a_message_that_is_too_long_or_unknown(kind: int, size: int) -> None:
    asked: list[int] = []

    def receive(count: int) -> bytes:
        asked.append(count)
        return struct.pack(">IB", size, kind)

    with pytest.raises(SignerMessageError):
        read_message(receive)
    assert asked == [5]


def test_a_message_is_read_as_it_was_written() -> None:
    file = io.BytesIO(message(MessageKind.HEAD, b"abc"))
    assert read_message(file.read) == (MessageKind.HEAD, b"abc")


def test_the_end_of_a_trail_is_read_as_it_was_written() -> None:
    for end in (EMPTY, replace(EMPTY, signed_from=0)):
        assert decode_end(encode_end(end)) == end


@pytest.mark.parametrize(
    "changes",
    [
        {"peaks": ()}, {"peaks": (b"a" * 32, b"b" * 32)}, {"tree_first": 2}, {"first": 1},
        {"size_bytes": 5}, {"signed_from": 4}, {"count": 1},
    ],
)  # fmt: skip
def test_an_end_that_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(SignerMessageError):
        decode_end(encode_end(replace(EMPTY, **changes)))  # type: ignore[arg-type]  # by name


def served() -> tuple[Served, list[bytes]]:
    stored: list[bytes] = []
    return Served(Ledger("w1", KEY), None, "w1", stored.append), stored


def test_a_signer_without_a_trail_signs_only_its_name() -> None:
    signer, stored = served()
    for kind, content in (
        (MessageKind.RECORDS, encode_records(chain(1))), encode_wanted(WantedHead(0, 1.0)),
    ):  # fmt: skip
        assert signer.answer(kind, content)[4] == MessageKind.REFUSED
    assert signer.answer(*encode_wanted(WantedName(1.0)))[4] == MessageKind.DONE
    assert not stored


def test_a_trail_begins_once() -> None:
    signer, stored = served()
    assert signer.answer(MessageKind.BEGIN, encode_end(EMPTY))[4] == MessageKind.DONE
    assert signer.answer(MessageKind.RECORDS, encode_records(chain(1)))[4] == MessageKind.DONE
    assert signer.answer(MessageKind.BEGIN, encode_end(EMPTY))[4] == MessageKind.REFUSED
    assert len(stored) == 2


def test_the_connection_of_heads_changes_nothing() -> None:
    signer, stored = served()
    signer.answer(MessageKind.BEGIN, encode_end(EMPTY))
    for kind, content in (
        (MessageKind.RECORDS, encode_records(chain(1))), (MessageKind.STATE, b""),
        encode_wanted(WantedSeal(first=0, signed_from=0, at=1.0, index=None)),
    ):  # fmt: skip
        assert signer.answer_head(kind, content)[4] == MessageKind.REFUSED
    assert signer.answer_head(*encode_wanted(WantedHead(0, 1.0)))[4] == MessageKind.DONE
    assert len(stored) == 1


def test_a_state_that_is_not_durable_signs_nothing() -> None:
    full = True

    def store(data: bytes) -> None:
        del data
        if full:
            raise OSError(28, "No space left on device")

    signer = Served(Ledger("w1", KEY), None, "w1", store)
    assert signer.answer(MessageKind.BEGIN, encode_end(EMPTY))[4] == MessageKind.FAILED
    full = False
    signer.answer(MessageKind.BEGIN, encode_end(EMPTY))
    full = True
    records = encode_records(chain(1))
    said = signer.answer(MessageKind.RECORDS, records)
    assert said[4] == MessageKind.FAILED
    assert b"No space left" in said
    # Another record may have the number: nothing was signed.
    full = False
    assert (
        signer.answer(MessageKind.RECORDS, encode_records(chain(1, base=9)))[4] == MessageKind.DONE
    )
    assert signer.answer(MessageKind.RECORDS, records)[4] == MessageKind.REFUSED
