"""What a trail's signer parses: messages of its worker, and its state on the disk."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress

from hpcc.audit.base.canonical import decode_record
from hpcc.audit.base.trail_signer import IndexDigest, WantedHead, WantedIndex, WantedSeal
from hpcc.audit.signer.fields import SignerMessageError
from hpcc.audit.signer.ledger import Ledger, begun
from hpcc.audit.signer.messages import (
    MessageKind,
    encode_end,
    encode_records,
    encode_wanted,
    message,
    read_message,
)
from hpcc.audit.signer.served import Served
from hpcc.audit.signer.slots import decode_state, encode_state
from hpcc_testkit.farm.audit_rows import KEY
from hpcc_testkit.signer.records import EMPTY, chain

_INDEX = IndexDigest(sha256="ab" * 32, size_bytes=4096, since=1.0, until=2.0)


def signer_messages(data: bytes) -> None:
    """Messages one after the other: no number gets two records, or the documented error."""
    by_number: dict[int, bytes] = {}

    def store(state: bytes) -> None:
        for record, _ in decode_state(state)[0].pending:
            number = decode_record(record).sequence
            assert by_number.setdefault(number, record) == record

    file = io.BytesIO(data)

    def receive(size: int) -> bytes:
        found = file.read(size)
        if len(found) < size:
            raise EOFError
        return found

    served = Served(Ledger("w1", KEY), None, "w1", store)
    with suppress(SignerMessageError, EOFError):
        while True:
            served.answer(*read_message(receive))


def signer_messages_seeds() -> Mapping[str, bytes]:
    """Return what workers send."""
    records = chain(3)
    begin = message(MessageKind.BEGIN, encode_end(EMPTY))
    group = message(MessageKind.RECORDS, encode_records(records[:2]))
    seal = message(*encode_wanted(WantedSeal(first=0, signed_from=0, at=1.0, index=_INDEX)))
    index = message(*encode_wanted(WantedIndex(first=0, index=_INDEX)))
    head = message(*encode_wanted(WantedHead(2, 1.0)))
    return {
        "begun": begin + message(MessageKind.STATE), "again": begin + group + group,
        "sealed": begin + group + index + seal
        + message(MessageKind.RECORDS, encode_records(records[2:])),
        "head": begin + group + head,
    }  # fmt: skip


def signer_state(data: bytes) -> None:
    """A state: one that is written as it was read, or the documented error."""
    with suppress(SignerMessageError):
        state, key = decode_state(data)
        assert encode_state(state, key) == data


def signer_state_seeds() -> Mapping[str, bytes]:
    """Return the states of a signer."""
    ledger = Ledger("w1", KEY)
    first = begun("w1", EMPTY)
    second, _ = ledger.records(first, chain(2))
    sealed, _ = ledger.text(second, WantedSeal(first=0, signed_from=0, at=1.0, index=None))
    states = {"begun": first, "group": second, "sealed": sealed}
    return {name: encode_state(state, b"k" * 32) for name, state in states.items()}
