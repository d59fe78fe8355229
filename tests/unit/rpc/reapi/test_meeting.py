"""What a worker knows about an action, and the notes of callers: both ends read hostile bytes."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc._proto import meeting_pb2 as messages
from hpcc.core import Digest, GuestReuse, HpccError, Isolation
from hpcc.reapi.claims import ResultClaim, Voter
from hpcc.reapi.limits import ReapiError
from hpcc.rpc.base.method import MAX_CARRIED_BYTES
from hpcc.rpc.reapi.meeting import (
    MAX_CARRIED,
    MAX_NAMED,
    MAX_NOTES,
    Known,
    Made,
    carried,
    carried_claims,
    encode_known,
    encode_notes,
    parse_look,
    parse_notes,
)

ACTION = Digest.of(b"action")


def claim(number: int, guest: str = "g") -> ResultClaim:
    return ResultClaim(
        result="ab" * 32, voter=Voter(pseudonym=f"{number:032x}", epoch="k"), guest_id=guest,
        execs_before=1, is_overlapped=False, isolation=Isolation.QEMU_KVM,
        reuse=GuestReuse.PRINCIPAL, snapshot="", row="cd" * 16, made_at_ms=1, key_id="ef" * 16,
        signature=b"s" * 64,
    )  # fmt: skip


def test_what_is_known_comes_back_as_it_was() -> None:
    known = Known(("w1", "w2"), (claim(1), claim(2)))
    seen = parse_look(encode_known(known).SerializeToString())
    assert (seen.record, seen.known) == (None, known)


def test_no_more_claims_are_carried_than_a_call_may_have() -> None:
    assert len(carried_claims(carried(map(claim, range(12))))) == MAX_CARRIED
    long = [claim(n, "g" * 128) for n in range(MAX_CARRIED)]
    assert len(carried([*long, *long])) <= MAX_CARRIED_BYTES
    assert carried([]) == b""
    assert carried_claims(b"x" * (MAX_CARRIED_BYTES + 1)) == ()
    assert carried_claims(b"hpcc-claims-1\xff\xff") == ()


def test_an_answer_names_few_workers_and_only_such_as_may_exist() -> None:
    names = ["../etc", "W1", "", "w1", *[f"x{n}" for n in range(9)]]
    seen = parse_look(messages.LookAnswer(workers=names, claims=b"junk").SerializeToString())
    assert seen.known == Known(("w1",), ())
    assert len(names[:MAX_NAMED]) == MAX_NAMED


@given(st.binary(max_size=200))
def test_any_answer_is_read_or_refused(data: bytes) -> None:
    with suppress(HpccError):
        parse_look(data)


def test_notes_come_back_as_they_were() -> None:
    made = [Made(ACTION, "w1"), Made(Digest.of(b""), "w-2.x")]
    request = encode_notes("acme", made)
    assert request.instance_name == "acme"
    assert parse_notes(request) == tuple(made)


@pytest.mark.parametrize(
    "bad",
    [
        messages.Made(sha256=b"x" * 31, size_bytes=1, worker="w1"),
        messages.Made(sha256=b"x" * 32, size_bytes=1 << 62, worker="w1"),
        messages.Made(sha256=b"x" * 32, size_bytes=1, worker="w1\n"),
        messages.Made(sha256=b"x" * 32, size_bytes=1, worker="w" * 129),
    ],
)
def test_a_malformed_note_is_refused(bad: messages.Made) -> None:
    with pytest.raises(ReapiError) as caught:
        parse_notes(messages.NoteRequest(made=[bad]))
    assert caught.value.reason == "notes"


def test_too_many_notes_are_refused() -> None:
    request = encode_notes("acme", [Made(ACTION, "w1")] * (MAX_NOTES + 1))
    with pytest.raises(ReapiError) as caught:
        parse_notes(request)
    assert caught.value.reason == "notes"
