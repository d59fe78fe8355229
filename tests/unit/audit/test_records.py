"""The bytes of one audit record: decoding, and what a peer may not send."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcc.audit.base import canonical as canonical_module
from hpcc.audit.base.canonical import (
    GENESIS,
    AuditDamagedError,
    Record,
    canonical,
    decode_record,
    encode_record,
    event_of,
    foreign_record,
    row_of,
)
from hpcc.ports import SecurityEvent
from hpcc_testkit.farm.audit_rows import row
from hpcc_testkit.suite.examples import examples

EVENT = SecurityEvent(name="token-refused", at=1.5, fields=(("who", "ä"),), tenant="acme")


def event_record(sequence: int = 7, previous: str = "ab" * 32) -> Record:
    return encode_record(EVENT, sequence=sequence, previous=previous, worker="w1")


def row_record() -> Record:
    return encode_record(row(3), sequence=7, previous="ab" * 32, worker="w1")


def taken(data: bytes, *, sequence: int = 7, previous: str | None = "ab" * 32) -> Record:
    return foreign_record(data, worker="w1", sequence=sequence, previous=previous)


def changed(record: Record, **values: object) -> bytes:
    """Return the record's envelope with other values, in canonical form."""
    return canonical({**json.loads(record.data), **values})


def with_body(record: Record, **values: object) -> bytes:
    return changed(record, body={**json.loads(record.data)["body"], **values})


def without(record: Record, name: str) -> bytes:
    table = json.loads(record.data)
    del table["body"][name]
    return canonical(table)


def test_rows_and_events_read_back() -> None:
    record = taken(event_record().data)
    assert event_of(record) == EVENT
    assert (record.kind, record.sequence, record.worker) == ("event", 7, "w1")
    assert record == dataclasses.replace(event_record(), body=record.body)
    assert row_of(taken(row_record().data)) == row(3)


def test_a_chain_may_begin_anywhere_where_the_hash_before_is_not_known() -> None:
    data = event_record(previous=GENESIS).data
    assert taken(data, previous=None).previous == GENESIS
    with pytest.raises(AuditDamagedError, match="chain is broken at record 7"):
        taken(data)


def test_every_field_is_in_the_hash() -> None:
    record = event_record()
    others = [
        changed(record, sequence=8),
        changed(record, previous="cd" * 32),
        changed(record, worker="w2"),
        with_body(record, at=1.25),
    ]
    hashes = {decode_record(data).hash for data in (record.data, *others)}
    assert len(hashes) == 1 + len(others)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "another form"),
        (changed(event_record(), format=2), "another form"),
        (changed(event_record(), kind="note"), "another form"),
        (changed(event_record(), sequence="7"), "another form"),
        (changed(event_record(), sequence=True), "another form"),
        (changed(event_record(), sequence=-1), "another form"),
        (changed(event_record(), previous=None), "another form"),
        (changed(event_record(), worker=1), "another form"),
        (changed(event_record(), body=[]), "another form"),
        (changed(event_record(), worker="w2"), "another worker's"),
        (changed(event_record(), sequence=8), "chain is broken at record 7"),
        (changed(event_record(), previous="cd" * 32), "chain is broken at record 7"),
        (event_record().data + b" ", "canonical form"),
        (event_record().data.replace(b'"at":1.5', b'"at":NaN'), "canonical form"),
        (event_record().data.replace(b'"at":1.5', b'"at":1.50'), "canonical form"),
        (event_record().data.replace(b"\\u00e4", "ä".encode()), "canonical form"),
        (event_record().data.replace(b'"name"', b'"name":"x","name"'), "canonical form"),
        (without(event_record(), "name"), "an event has other fields"),
        (with_body(event_record(), more=1), "an event has other fields"),
        (with_body(event_record(), at=1), "field at of an event"),
        (with_body(event_record(), name=None), "field name of an event"),
        (with_body(event_record(), fields={}), "list of pairs"),
        (with_body(event_record(), fields=[["a"]]), "in place of a pair"),
        (with_body(event_record(), fields=[["a", "b", "c"]]), "in place of a pair"),
        (with_body(event_record(), fields=[["a", 1]]), "list of texts"),
        (with_body(event_record(), fields=["ab"]), "list of texts"),
        (without(row_record(), "tenant"), "a row has other fields"),
        (with_body(row_record(), more=1), "a row has other fields"),
        (with_body(row_record(), tenant=1), "field tenant of a row"),
        (with_body(row_record(), exit_code=1.0), "field exit_code of a row"),
        (with_body(row_record(), exit_code=True), "field exit_code of a row"),
        (with_body(row_record(), argv="gcc"), "list of texts"),
        (with_body(row_record(), outputs=[["a"]]), "in place of a pair"),
        (changed(row_record(), kind="event"), "an event has other fields"),
        (changed(event_record(), kind="row"), "a row has other fields"),
    ],
)  # fmt: skip
def test_what_a_peer_may_not_send_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(AuditDamagedError, match=said):
        taken(data)


def test_a_record_is_bounded_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = event_record().data
    monkeypatch.setattr(canonical_module, "MAX_RECORD_BYTES", len(data))
    assert taken(data).data == data
    monkeypatch.setattr(canonical_module, "MAX_RECORD_BYTES", len(data) - 1)
    with pytest.raises(AuditDamagedError, match="too large"):
        taken(data)


@settings(max_examples=examples(200))
@given(st.integers(0, len(row_record().data) - 1), st.integers(1, 255))
def test_a_damaged_record_is_refused_or_another_one(at: int, flip: int) -> None:
    record = row_record()
    damaged = bytearray(record.data)
    damaged[at] ^= flip
    try:
        found = taken(bytes(damaged))
    except AuditDamagedError:
        return
    assert found.hash != record.hash
    assert row_of(found) != row(3)
