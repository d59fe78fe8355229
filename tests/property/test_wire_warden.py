"""Frames between worker and warden: each decodes to the original; bad bytes give the one error."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.core import MAX_PATH_BYTES, IntegrityError
from hpcc.wire import warden as wire
from hpcc.wire.exec_frames import CHUNK_BYTES, MAX_DETAIL_BYTES
from hpcc.wire.link import TOKEN_BYTES

DIGEST = st.binary(min_size=wire.DIGEST_BYTES, max_size=wire.DIGEST_BYTES)
DATA = st.binary(max_size=200)
TEXT = st.text(st.characters(codec="utf-8"), max_size=60)
SECONDS = st.floats(allow_nan=False)
REPLIES = st.one_of(
    st.builds(wire.NeedReply, st.lists(DIGEST, max_size=5).map(tuple), st.booleans()),
    st.builds(wire.StdioReply, st.integers(0, 255), DATA),
    st.builds(wire.OutputReply, TEXT, DATA, st.booleans(), st.booleans()),
    st.builds(
        wire.ResultReply,
        exit_code=st.integers(0, 2**32 - 1),
        signal=st.integers(0, 2**32 - 1),
        reason=st.integers(-(2**31), 2**31 - 1),
        wall_seconds=SECONDS,
        user_seconds=SECONDS,
        system_seconds=SECONDS,
        stage_seconds=SECONDS,
        max_rss_bytes=st.integers(0, 2**64 - 1),
        detail=TEXT,
    ),
)
KINDS = sorted(wire.TO_WARDEN | wire.TO_WORKER)


@given(REPLIES)
def test_every_reply_reads_back(reply: wire.Reply) -> None:
    kind, pieces = wire.encode_reply(reply)
    body = b"".join(pieces)
    assert wire.decode_reply(kind, body) == reply
    head = wire.head(kind, 7, len(body))
    assert wire.parse_head(head, wire.TO_WORKER) == (kind, 7, len(body))


@given(st.sampled_from(KINDS), st.binary(max_size=300))
def test_any_body_is_a_reply_that_writes_back_or_the_one_error(kind: int, body: bytes) -> None:
    try:
        reply = wire.decode_reply(kind, body)
    except IntegrityError as error:
        assert error.reason == wire.WARDEN_PROTOCOL
    else:
        if not (isinstance(reply, wire.ResultReply) and math.isnan(_sum(reply))):
            assert (kind, body) == (kind, b"".join(wire.encode_reply(reply)[1]))


def _sum(reply: wire.ResultReply) -> float:
    return sum((reply.wall_seconds, reply.user_seconds, reply.system_seconds, reply.stage_seconds))


@given(st.binary(max_size=12))
def test_any_head_is_one_of_its_direction_or_the_one_error(data: bytes) -> None:
    for limits in (wire.TO_WORKER, wire.TO_WARDEN):
        try:
            kind, number, length = wire.parse_head(data, limits)
        except IntegrityError as error:
            assert error.reason == wire.WARDEN_PROTOCOL
        else:
            assert length <= limits[kind]
            assert wire.head(kind, number, length) == data


@given(st.binary(max_size=300))
def test_any_other_body_is_a_value_or_the_one_error(body: bytes) -> None:
    for decode in (wire.decode_lost, wire.decode_start, wire.decode_chunk, wire.decode_spawn):
        try:
            decode(body)
        except IntegrityError as error:
            assert error.reason == wire.WARDEN_PROTOCOL


@given(st.sampled_from(wire.LostCode), st.text(max_size=400))
def test_last_words_read_back_bounded_and_printable(code: wire.LostCode, text: str) -> None:
    body = wire.encode_lost(code, text)
    assert len(body) <= wire.TO_WORKER[wire.LOST]
    found, said = wire.decode_lost(body)
    assert found is code
    assert said.isprintable()


def test_start_and_chunk_read_back() -> None:
    start = wire.Start(b"t" * TOKEN_BYTES, 20_000, 60_000)
    assert wire.decode_start(wire.encode_start(start)) == start
    body = wire.chunk_prefix(b"d" * 32, last=True) + b"data"
    assert wire.decode_chunk(body) == (b"d" * 32, b"data", True)
    assert [wire.decode_spawn(wire.encode_spawn(uid)) for uid in (None, 0, 7)] == [None, 0, 7]


@pytest.mark.parametrize(
    "reply",
    [
        wire.StdioReply(1, bytes(CHUNK_BYTES + 1)),
        wire.StdioReply(256, b"x"),
        wire.StdioReply(-1, b"x"),
        wire.OutputReply("p" * (MAX_PATH_BYTES + 1), b"", True, True),
        wire.OutputReply("p", bytes(CHUNK_BYTES + 1), True, True),
        wire.NeedReply((b"short",), False),
        wire.NeedReply((bytes(32),) * 16_385, False),
    ],
)
def test_what_no_guest_may_answer_is_not_written(reply: wire.Reply) -> None:
    with pytest.raises(IntegrityError):
        wire.encode_reply(reply)


def test_a_detail_has_an_end() -> None:
    fixed = dict.fromkeys(
        ("exit_code", "signal", "reason", "wall_seconds", "user_seconds", "system_seconds",
         "stage_seconds", "max_rss_bytes"), 0,
    )  # fmt: skip
    wire.encode_reply(wire.ResultReply(**fixed, detail="x" * MAX_DETAIL_BYTES))
    with pytest.raises(IntegrityError):
        wire.encode_reply(wire.ResultReply(**fixed, detail="x" * (MAX_DETAIL_BYTES + 1)))


def test_lengths_are_refused_before_anything_is_read() -> None:
    for kind, limit in (wire.TO_WORKER | wire.TO_WARDEN).items():
        with pytest.raises(IntegrityError):
            wire.head(kind, 1, limit + 1)
        raw = bytes([kind]) + (1).to_bytes(4, "little") + (limit + 1).to_bytes(4, "little")
        for limits in (wire.TO_WORKER, wire.TO_WARDEN):
            with pytest.raises(IntegrityError):
                wire.parse_head(raw, limits)
