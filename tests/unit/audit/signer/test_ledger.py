"""What a signer signs, and what it refuses. No process, no file."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.base.canonical import (
    GENESIS,
    MAX_RECORD_BYTES,
    canonical,
    encode_record,
    record_hash,
    signed_message,
)
from hpcc.audit.base.heads import HeadSigner, head_message, is_signed
from hpcc.audit.base.index_statement import index_message, unsigned_index
from hpcc.audit.base.segments import Seal, _whole_table, seal_message, sign_seal
from hpcc.audit.base.trail_signer import (
    IndexDigest,
    SignerRefusedError,
    Wanted,
    WantedHead,
    WantedIndex,
    WantedName,
    WantedSeal,
    WantedTree,
)
from hpcc.audit.signer.ledger import Ledger, LedgerState, begun, frames_from
from hpcc.audit.tree.merkle import LeafTree, leaf_hash
from hpcc.ports import SignedHead
from hpcc_testkit.farm.audit_rows import KEY, row
from hpcc_testkit.signer.records import EMPTY, START, chain

OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
INDEX = IndexDigest(sha256="ab" * 32, size_bytes=4096, since=1.0, until=2.0)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger("w1", KEY)


@pytest.fixture
def signed(ledger: Ledger) -> LedgerState:
    """Return a state with two groups: records 0 to 2, then 3 and 4."""
    records = chain(5)
    state, _ = ledger.records(begun("w1", EMPTY), records[:3])
    return ledger.records(state, records[3:])[0]


def test_the_next_records_are_signed(ledger: Ledger) -> None:
    records = chain(3)
    state, signatures = ledger.records(begun("w1", EMPTY), records)
    assert state.tip.count == 3
    assert state.tip.head == record_hash(records[-1])
    for data, signature in zip(records, signatures, strict=True):
        assert is_signed(ledger.public_key, signature, signed_message(data))
    assert len(frames_from(state, 1)) == sum(len(r) + 64 + 5 for r in records[1:])


def test_the_last_group_gets_the_same_signatures_again(ledger: Ledger, signed: LedgerState) -> None:
    state, signatures = ledger.records(signed, [data for data, _ in signed.pending])
    assert state is signed
    assert signatures == [signature for _, signature in signed.pending]


@pytest.mark.parametrize("count", [1, 2])
def test_another_record_under_a_signed_number_is_refused(
    ledger: Ledger, signed: LedgerState, count: int
) -> None:
    others = chain(count, start=3, previous=signed.base.head, base=100)
    with pytest.raises(SignerRefusedError, match="record 3 was signed with other bytes"):
        ledger.records(signed, others)


def test_a_part_of_the_last_group_is_refused(ledger: Ledger, signed: LedgerState) -> None:
    with pytest.raises(SignerRefusedError, match="was signed with other bytes"):
        ledger.records(signed, [signed.pending[1][0]])


def test_a_gap_is_refused(ledger: Ledger, signed: LedgerState) -> None:
    later = chain(1, start=6, previous=signed.tip.head)
    with pytest.raises(SignerRefusedError, match="record 6 does not follow: the next one is 5"):
        ledger.records(signed, later)


def test_a_record_behind_another_one_is_refused(ledger: Ledger, signed: LedgerState) -> None:
    for previous in (signed.base.head, "ab" * 32):
        with pytest.raises(SignerRefusedError, match="record 5 does not follow"):
            ledger.records(signed, chain(1, start=5, previous=previous))


def test_a_second_record_of_a_group_must_follow_the_first(ledger: Ledger) -> None:
    first, second, _ = chain(3)
    for group in ([first, first], [second, first], [first, chain(2, base=50)[1]]):
        with pytest.raises(SignerRefusedError):
            ledger.records(begun("w1", EMPTY), group)


def test_a_record_of_another_worker_is_refused(ledger: Ledger) -> None:
    data = encode_record(row(1), sequence=0, previous=GENESIS, worker="w2").data
    with pytest.raises(SignerRefusedError, match="another worker"):
        ledger.records(begun("w1", EMPTY), [data])


@pytest.mark.parametrize("how", ["spaces", "twice", "list", "text", "large", "deep"])
def test_what_is_not_a_canonical_record_is_refused(ledger: Ledger, how: str) -> None:
    (data,) = chain(1)
    wrong = {
        "spaces": json.dumps(json.loads(data)).encode(),
        "twice": data[:-1] + b',"sequence":0}',
        "list": b"[]",
        "text": b"no JSON",
        "large": b" " * (MAX_RECORD_BYTES + 1),
        "deep": b"[" * 100_000,
    }[how]
    with pytest.raises(SignerRefusedError):
        ledger.records(begun("w1", EMPTY), [wrong])


def test_heads_are_of_the_ends_of_the_last_two_groups(ledger: Ledger, signed: LedgerState) -> None:
    for count in (3, 5):
        point = {3: signed.base, 5: signed.tip}[count]
        state, text = ledger.text(signed, WantedHead(count, 7.0))
        assert state is signed
        assert text == head_message("w1", count, point.head, 7.0)
        assert b"chain " + point.head.encode() in ledger.text(signed, WantedTree(count, 7.0))[1]


@pytest.mark.parametrize("count", [0, 1, 4, 6, 1 << 62])
@pytest.mark.parametrize("kind", [WantedHead, WantedTree])
def test_a_head_of_another_count_is_refused(
    ledger: Ledger, signed: LedgerState, kind: type[WantedHead | WantedTree], count: int
) -> None:
    with pytest.raises(SignerRefusedError, match="5 were signed"):
        ledger.text(signed, kind(count, 7.0))


def test_the_root_is_that_of_the_signed_records(ledger: Ledger, signed: LedgerState) -> None:
    records = chain(5)
    leaves = [leaf_hash(d + KEY.sign(signed_message(d))) for d in records]
    text = ledger.text(signed, WantedTree(5, 7.0))[1].decode().split("\n")
    assert base64.b64decode(text[2]) == LeafTree([START, *leaves]).root()
    assert text[1] == "6"


def test_a_seal_is_of_the_open_segment(ledger: Ledger, signed: LedgerState) -> None:
    wanted = WantedSeal(first=0, signed_from=0, at=9.0, index=None)
    after, text = ledger.text(signed, wanted)
    size = sum(len(r) + 64 + 5 for r in chain(5))
    head = SignedHead(
        worker="w1", count=5, head=signed.tip.head, at=9.0, key=ledger.public_key, signature=b""
    )
    seal = Seal(
        first=0, previous=GENESIS, size_bytes=size, signed=head, is_signing=True, signed_from=0
    )
    assert text == seal_message(seal)
    assert not after.pending
    assert after.base == after.tip == signed.tip


def test_the_next_seal_begins_where_the_last_one_ended_or_at_its_begin(
    ledger: Ledger, signed: LedgerState
) -> None:
    sealed, _ = ledger.text(signed, WantedSeal(first=0, signed_from=0, at=9.0, index=None))
    more, _ = ledger.records(sealed, chain(2, start=5, previous=sealed.tip.head))
    # The seal was not written: the segment goes on.
    again, text = ledger.text(more, WantedSeal(first=0, signed_from=0, at=9.0, index=None))
    assert b'"count":7,"first":0' in text
    assert again.segment.first == 0
    # It was written.
    next_one, text = ledger.text(more, WantedSeal(first=5, signed_from=0, at=9.0, index=None))
    assert b'"count":7,"first":5' in text
    assert next_one.segment.first == 5
    with pytest.raises(SignerRefusedError, match="begins with record 0"):
        ledger.text(next_one, WantedSeal(first=0, signed_from=0, at=9.0, index=None))


@pytest.mark.parametrize("first", [1, 3, 5])
def test_a_seal_of_another_segment_is_refused(
    ledger: Ledger, signed: LedgerState, first: int
) -> None:
    with pytest.raises(SignerRefusedError, match=f"begins with record {first} is not signed"):
        ledger.text(signed, WantedSeal(first=first, signed_from=0, at=9.0, index=None))


def test_an_empty_segment_gets_no_seal(ledger: Ledger) -> None:
    with pytest.raises(SignerRefusedError, match="not signed"):
        ledger.text(begun("w1", EMPTY), WantedSeal(first=0, signed_from=0, at=9.0, index=None))


def test_a_seal_does_not_move_where_signing_began(ledger: Ledger, signed: LedgerState) -> None:
    with pytest.raises(SignerRefusedError, match="not signed from 3 on"):
        ledger.text(signed, WantedSeal(first=0, signed_from=3, at=9.0, index=None))
    sealed, _ = ledger.text(signed, WantedSeal(first=0, signed_from=5, at=9.0, index=None))
    more, _ = ledger.records(sealed, chain(1, start=5, previous=sealed.tip.head))
    with pytest.raises(SignerRefusedError, match="not signed from 0 on"):
        ledger.text(more, WantedSeal(first=5, signed_from=0, at=9.0, index=None))


def test_an_index_of_the_open_segment_names_its_last_record(
    ledger: Ledger, signed: LedgerState
) -> None:
    _, text = ledger.text(signed, WantedIndex(first=0, index=INDEX))
    expected = unsigned_index("w1", ledger.public_key, 0, signed.tip.head, INDEX)
    assert text == index_message(expected)
    with pytest.raises(SignerRefusedError, match="begins with record 3"):
        ledger.text(signed, WantedIndex(first=3, index=INDEX))


def a_seal(signer: HeadSigner, first: int = 0) -> bytes:
    head = SignedHead(worker="", count=first + 4, head="cd" * 32, at=9.0, key=b"", signature=b"")
    seal = sign_seal(
        signer, Seal(first=first, previous=GENESIS, size_bytes=9, signed=head, signed_from=0)
    )
    return canonical(_whole_table(seal))


def test_an_index_of_an_earlier_segment_needs_its_seal(ledger: Ledger, signed: LedgerState) -> None:
    own = a_seal(HeadSigner("w1", KEY))
    _, text = ledger.text(signed, WantedIndex(first=0, index=INDEX, seal=own))
    assert b"cd" * 32 in text
    for seal, first in (
        (a_seal(HeadSigner("w1", OTHER)), 0), (a_seal(HeadSigner("w2", KEY)), 0), (own, 4),
        (own[:-1], 0), (b"{}", 0), (own.replace(b'"count":4', b'"count":5'), 0),
    ):  # fmt: skip
        with pytest.raises(SignerRefusedError):
            ledger.text(signed, WantedIndex(first=first, index=INDEX, seal=seal))


def test_the_name_is_a_head_of_no_records(ledger: Ledger, signed: LedgerState) -> None:
    assert ledger.text(signed, WantedName(3.0))[1] == head_message("w1", 0, GENESIS, 3.0)


def test_no_text_is_a_records(ledger: Ledger, signed: LedgerState) -> None:
    wanted: list[Wanted] = [
        WantedHead(5, 1.0), WantedTree(5, 1.0), WantedName(1.0), WantedIndex(first=0, index=INDEX),
        WantedSeal(first=0, signed_from=0, at=1.0, index=INDEX),
    ]  # fmt: skip
    assert not any(ledger.text(signed, each)[1].startswith(b"DSSE") for each in wanted)


def test_an_older_trail_goes_on_where_it_ends(ledger: Ledger) -> None:
    peaks = (leaf_hash(b"a"), leaf_hash(b"b"))
    end = replace(
        EMPTY, count=11, head="ef" * 32, tree_first=9, peaks=peaks, first=9, previous="01" * 32,
        size_bytes=777, signed_from=9,
    )  # fmt: skip
    state, _ = ledger.records(begun("w1", end), chain(1, start=11, previous="ef" * 32))
    _, text = ledger.text(state, WantedSeal(first=9, signed_from=9, at=1.0, index=None))
    assert b'"count":12,"first":9' in text
    assert b'"size_bytes":%d' % (777 + len(state.pending[0][0]) + 69) in text
