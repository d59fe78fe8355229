"""Arbitrary bytes from a guest: the host's parsers return events or raise their one error."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcc._proto import agent_pb2 as pb
from hpcc.core import ExecEvent, IntegrityError, OutputEvent, StdioEvent
from hpcc.runtime.channel.replies import ReplyChecker
from hpcc.warden.guest import reply_of
from hpcc.wire import warden as wire
from hpcc.wire.exec_frames import MAX_FRAME_BYTES
from hpcc.wire.frame_gate import PROTOCOL_VIOLATION, FrameGate
from hpcc.wire.link import HostLink
from hpcc_testkit.hostile.guest_bytes import NONCE, REQUEST, STREAM, TOKEN, seeds
from hpcc_testkit.suite.examples import examples

CORPUS = Path(__file__).parent / "corpus" / "guest_stream"
INPUTS = {path.name: path.read_bytes() for path in sorted(CORPUS.iterdir())}
# The last is a warden's own, which it tells as a breach.
REASONS = {"protocol-violation", "link-handshake", "warden-protocol", "integrity"}
DATA, HEAD_BYTES = 0, 9
PREFIX = struct.Struct(">BI")
SMALL = sorted(data for data in INPUTS.values() if len(data) < 10_000)


def take_stream(data: bytes) -> list[ExecEvent]:
    """Read a guest's stream from its first byte: handshake, HTTP/2, one answer.

    Raises:
        IntegrityError: an honest guest would not send this.
    """
    link = HostLink(TOKEN, NONCE)
    session = link.feed(data)
    if session is None:
        raise IntegrityError("no handshake", reason="link-handshake")
    FrameGate({STREAM}, 0.0).feed(session, 0.0)
    return take_answer(content_of(session))


def content_of(session: bytes) -> bytes:
    """Return the content of the answer's DATA frames, without the h2 library."""
    content, at = bytearray(), 0
    while at + HEAD_BYTES <= len(session):
        head = session[at : at + HEAD_BYTES]
        end = at + HEAD_BYTES + int.from_bytes(head[:3], "big")
        if head[3] == DATA and int.from_bytes(head[5:], "big") == STREAM:
            content += session[at + HEAD_BYTES : end]
        at = end
    return bytes(content)


def take_answer(content: bytes) -> list[ExecEvent]:
    """Read gRPC messages, as the warden does, and check them, as the worker does.

    Raises:
        IntegrityError: it is not one good answer.
    """
    checker, at = ReplyChecker(REQUEST), 0
    events: list[ExecEvent] = []
    while at < len(content):
        if at + PREFIX.size > len(content):
            raise IntegrityError("half a prefix", reason=PROTOCOL_VIOLATION)
        flag, size = PREFIX.unpack_from(content, at)
        at += PREFIX.size
        if flag or size > MAX_FRAME_BYTES or at + size > len(content):
            raise IntegrityError("no message", reason=PROTOCOL_VIOLATION)
        try:
            frame = pb.ServerFrame.FromString(content[at : at + size])
        except DecodeError as error:
            raise IntegrityError("no frame", reason=PROTOCOL_VIOLATION) from error
        at += size
        kind, pieces = wire.encode_reply(reply_of(frame))
        event = checker.feed(wire.decode_reply(kind, b"".join(pieces)))
        if event is not None:
            events.append(event)
    checker.end()
    return events


def read(data: bytes) -> bool:
    """Read the bytes; return whether they were a good answer."""
    try:
        events = take_stream(data)
    except IntegrityError as error:
        assert error.reason in REASONS
        return False
    assert sum(len(e.data) for e in events if isinstance(e, StdioEvent)) <= 64
    assert {e.path for e in events if isinstance(e, OutputEvent)} <= set(REQUEST.outputs)
    return True


def test_the_corpus_has_todays_seeds() -> None:
    assert set(seeds()) <= set(INPUTS)
    assert all(INPUTS[name] == data for name, data in seeds().items()), (
        "run: python -m hpcc_testkit.hostile.guest_bytes tests/fuzz/corpus/guest_stream"
    )


@pytest.mark.parametrize("name", INPUTS)
def test_each_input_is_an_answer_or_the_one_error(name: str) -> None:
    assert read(INPUTS[name]) is name.startswith("good-")


@settings(max_examples=examples(300))
@given(st.sampled_from(SMALL), st.data())
def test_each_input_may_be_damaged(seed: bytes, data: st.DataObject) -> None:
    damaged = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged)))
        damaged[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    read(bytes(damaged))


@settings(max_examples=examples(200))
@given(st.sampled_from(SMALL), st.lists(st.integers(1, 40), max_size=30))
def test_the_gate_sees_the_same_however_the_bytes_are_cut(seed: bytes, cuts: list[int]) -> None:
    whole, pieces = FrameGate({1}, 0.0), FrameGate({1}, 0.0)
    session = seed[53:]
    verdicts = []
    for gate, parts in ((whole, [session]), (pieces, _cut(session, cuts))):
        try:
            for part in parts:
                gate.feed(part, 0.0)
            verdicts.append("")
        except IntegrityError as error:
            verdicts.append(str(error))
    assert verdicts[0] == verdicts[1]


def _cut(data: bytes, sizes: list[int]) -> list[bytes]:
    parts, at = [], 0
    for size in sizes:
        parts.append(data[at : at + size])
        at += size
    return [*parts, data[at:]]


@settings(max_examples=examples(200))
@given(st.binary(max_size=400))
def test_any_bytes_are_an_answer_or_the_one_error(data: bytes) -> None:
    read(b"<hpcc" + b"t" * 32 + b"n" * 16 + data)
    assert not read(data)
