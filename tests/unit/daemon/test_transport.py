"""Receiving one frame from a launcher's socket: whole, in pieces, or not at all."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from hpcc.core import CallerError
from hpcc.daemon.transport import receive_frame
from hpcc.daemon.unix_connection import UnixConnection
from hpcc.wire import launcher as wire

BODY = b"12345678"
FRAME = wire.frame(wire.ADMIN, BODY)
LARGE = wire.frame(wire.REPORT, bytes(wire.MAX_REPORT_BYTES))
# A guard against a hang; only a test of silence waits it out, and that has its own.
PATIENCE = 60.0


@pytest.fixture
def pair() -> Iterator[tuple[UnixConnection, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield UnixConnection(ours), theirs


Pair = tuple[UnixConnection, socket.socket]


@pytest.mark.parametrize("here", [0, 1, wire.HEADER_BYTES, len(FRAME) - 1, len(FRAME)])
def test_a_frame_is_read_whatever_is_here_already(pair: Pair, here: int) -> None:
    ours, theirs = pair
    theirs.sendall(FRAME[here:])
    assert receive_frame(ours, PATIENCE, FRAME[:here]) == (wire.ADMIN, BODY)


def test_a_frame_without_a_body_is_its_header(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(wire.WAIT_FRAME)
    assert receive_frame(ours, PATIENCE) == (wire.WAIT, b"")


def test_a_frame_larger_than_the_sockets_buffers_is_sent_and_read(pair: Pair) -> None:
    ours, theirs = pair
    sender = threading.Thread(target=UnixConnection(theirs).send, args=(LARGE, PATIENCE))
    sender.start()
    kind, body = receive_frame(ours, PATIENCE)
    sender.join(PATIENCE)
    assert (kind, body) == (wire.REPORT, LARGE[wire.HEADER_BYTES :])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (FRAME + b"x", "bytes after its end"),
        (wire.WAIT_FRAME * 2, "bytes after its end"),
        (b"GET / HTTP/1.1\r\n", "wrong magic"),
        (wire.MAGIC + b"\xff" * 8, "unknown type"),
    ],
)
def test_what_is_no_single_frame_is_refused(pair: Pair, data: bytes, said: str) -> None:
    ours, theirs = pair
    theirs.sendall(data)
    with pytest.raises(CallerError, match=said) as caught:
        receive_frame(ours, PATIENCE)
    assert caught.value.reason == "malformed-frame"


@pytest.mark.parametrize("sent", [0, 5, wire.HEADER_BYTES, len(FRAME) - 1])
def test_a_peer_that_closes_before_the_end_is_gone(pair: Pair, sent: int) -> None:
    ours, theirs = pair
    theirs.sendall(FRAME[:sent])
    theirs.close()
    with pytest.raises(ConnectionResetError):
        receive_frame(ours, PATIENCE)


@pytest.mark.parametrize("sent", [0, 5, wire.HEADER_BYTES, len(FRAME) - 1])
def test_a_peer_that_stops_in_the_middle_is_given_up(pair: Pair, sent: int) -> None:
    ours, theirs = pair
    theirs.sendall(FRAME[:sent])
    with pytest.raises(TimeoutError):
        receive_frame(ours, 0.01)


def test_a_peer_that_does_not_read_is_given_up(pair: Pair) -> None:
    ours, _ = pair
    with pytest.raises(TimeoutError):
        ours.send(LARGE, 0.01)
