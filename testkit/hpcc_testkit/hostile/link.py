"""Attacks of a guest that has no request to answer.

Attacks in `LINK` come before the end of the link handshake, attacks in `IDLE` after it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from hpcc_testkit.hostile import peer as raw
from hpcc_testkit.hostile.attack import ESCAPE, LOST, SILENT, VIOLATION, Attack, within
from hpcc_testkit.hostile.peer import GoneError, Peer

LINK: Final[dict[str, Attack]] = {}
IDLE: Final[dict[str, Attack]] = {}


# --- before the handshake -----------------------------------------------------------------------


@within(LINK, SILENT)
def _says_nothing(peer: Peer) -> None:
    peer.hold()


@within(LINK, "link-handshake")
def _junk_for_ever(peer: Peer) -> None:
    peer.flood(b"boot message\n")


@within(LINK, "link-handshake")
def _nearly_welcome_for_ever(peer: Peer) -> None:
    peer.flood(b"<hpc")


@within(LINK, "link-handshake")
def _wrong_token(peer: Peer) -> None:
    _, nonce = peer.hello()
    peer.flood(b"<hpcc" + b"x" * 32 + nonce)


@within(LINK, "link-handshake")
def _replayed_nonce(peer: Peer) -> None:
    token, _ = peer.hello()
    peer.flood(b"<hpcc" + token + bytes(16))


@within(LINK, SILENT)
def _half_a_welcome(peer: Peer) -> None:
    token, _ = peer.hello()
    peer.send(b"<hpcc" + token)
    peer.hold()


@within(LINK, SILENT)
def _drips_before_the_handshake(peer: Peer) -> None:
    while True:
        peer.send(b".")
        peer.pause(0.005)


@within(LINK, LOST)
def _closes_before_the_handshake(peer: Peer) -> None:
    peer.hello()
    raise GoneError


# --- after it, without being asked --------------------------------------------------------------


def _bytes(table: dict[str, Attack], name: str, sent: bytes, reason: str = VIOLATION) -> None:
    table[name] = Attack(lambda peer: peer.send(sent), reason)


_bytes(IDLE, "http1", b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n" * 400)
_bytes(IDLE, "tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500))
_bytes(IDLE, "garbage", b"\xff" * 5000)
_bytes(IDLE, "nuls", bytes(5000))


def _settled(name: str, sent: bytes, reason: str = VIOLATION) -> None:
    def run(peer: Peer) -> None:
        peer.settle()
        peer.send(sent)

    IDLE[name] = Attack(run, reason)


_settled("frame-of-16-mib-announced", b"\xff\xff\xff\x00\x00\x00\x00\x00\x01")
_settled("data-on-stream-0", raw.frame(raw.DATA, 0, 0, b"x"))
_settled("headers-on-stream-0", raw.headers(0))
_settled("headers-on-an-even-stream", raw.headers(2))
_settled("headers-on-an-unopened-stream", raw.headers(2**31 - 1))
_settled("data-on-an-unopened-stream", raw.data(99, b"x" * 100))
_settled("reset-of-an-unopened-stream", raw.frame(raw.RST_STREAM, 0, 99, bytes(4)))
_settled("continuation-of-nothing", raw.frame(raw.CONTINUATION, 4, 1, b""))
_settled("push-promise", raw.frame(raw.PUSH_PROMISE, 4, 1, b"\0\0\0\x02" + raw.OPENING))
_settled("unknown-frame", raw.frame(0xFA, 0xFF, 1, b"?" * 100))
_settled("priority", raw.frame(raw.PRIORITY, 0, 1, bytes(5)))
_settled("settings-on-a-stream", raw.frame(raw.SETTINGS, 0, 1))
_settled("settings-of-5-bytes", raw.frame(raw.SETTINGS, 0, 0, bytes(5)))
_settled("settings-ack-with-content", raw.frame(raw.SETTINGS, raw.ACK, 0, bytes(6)))
_settled("settings-window-too-large", raw.settings((4, 2**31)))
_settled("settings-frame-too-small", raw.settings((5, 10)))
_settled("settings-frame-of-16-mib", raw.settings((5, 2**24 - 1)))
_settled("settings-of-a-table-of-4-gib", raw.settings((1, 2**32 - 1)))
_settled("settings-of-many-names", raw.settings(*[(n, 0) for n in range(0x100, 0x600)]))
_settled("window-overflow", raw.frame(raw.WINDOW, 0, 0, (2**31 - 1).to_bytes(4, "big")) * 2)
_settled("window-of-nothing", raw.frame(raw.WINDOW, 0, 0, bytes(4)))
_settled("window-of-3-bytes", raw.frame(raw.WINDOW, 0, 0, bytes(3)))
_settled("ping-of-7-bytes", raw.frame(raw.PING, 0, 0, bytes(7)))
_settled("ping-on-a-stream", raw.frame(raw.PING, 0, 3, bytes(8)))
_settled("goaway", raw.frame(raw.GOAWAY, 0, 0, bytes(8)))
_settled("goaway-with-text", raw.frame(raw.GOAWAY, 0, 0, bytes(8) + ESCAPE.encode() * 500))


def _flooded(name: str, piece: bytes, *, reads: bool = False) -> None:
    def run(peer: Peer) -> None:
        peer.settle()
        if not reads:
            peer.flood(piece)
        while True:
            peer.send(piece * 100)
            with suppress(BlockingIOError):
                os.set_blocking(peer.fd, False)
                try:
                    while os.read(peer.fd, 1 << 16):
                        pass
                finally:
                    os.set_blocking(peer.fd, True)

    IDLE[name] = Attack(run, VIOLATION)


_PING = raw.frame(raw.PING, 0, 0, b"pingpong")
_flooded("ping-flood", _PING, reads=True)
_flooded("ping-flood-whose-answers-are-not-read", _PING)
_flooded("ping-answer-flood", raw.frame(raw.PING, raw.ACK, 0, b"unasked!"))
_flooded("settings-flood", raw.settings((4, 65_535)))
_settled("settings-100-times", raw.settings((4, 65_535)) * 100)
_bytes(IDLE, "ping-before-settings", _PING + raw.settings((4, 65_535)))
_flooded("settings-ack-flood", raw.frame(raw.SETTINGS, raw.ACK, 0))
_flooded("priority-flood", raw.frame(raw.PRIORITY, 0, 1, bytes(5)))
_flooded("window-flood", raw.frame(raw.WINDOW, 0, 0, b"\0\0\0\1"))
_flooded("unknown-frame-flood", raw.frame(0x20, 0, 0, b"\0" * 20))
_flooded("headers-flood", raw.headers(1))
_flooded("empty-headers-flood", raw.headers(1, b""))
_flooded("goaway-and-more", raw.frame(raw.GOAWAY, 0, 0, bytes(8)) + _PING)


@within(IDLE, LOST)
def _silence(peer: Peer) -> None:
    """Leave all pings unanswered."""
    peer.hold()


@within(IDLE, LOST)
def _half_a_frame(peer: Peer) -> None:
    peer.settle()
    peer.send(raw.frame(raw.PING, 0, 0, b"12345678")[:12])
    peer.hold()


@within(IDLE, LOST)
def _closes(peer: Peer) -> None:
    peer.settle()
    raise GoneError
