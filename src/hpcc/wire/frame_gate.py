"""The small part of HTTP/2 that a guest has to speak, checked frame by frame before any library.

A guest is a server of one gRPC method for one client, with our agent's library. What h2 would take
and an agent never sends is refused here, by the nine bytes of a frame's head; and what it may send
is rationed, so that a guest costs its host no more than a small part of a processor, whatever it
sends: the rest of the host's work is done for messages, and their number and size are limited by
`hpcc.runtime`'s reply checker. What breaks HTTP/2 itself is left to h2, which refuses it.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import IntEnum
from typing import Final

from hpcc.core import IntegrityError

PROTOCOL_VIOLATION: Final = "protocol-violation"
# The protocol's default, which neither side may raise here.
MAX_FRAME_PAYLOAD_BYTES: Final = 16_384
# An answer's headers and trailers are below 200 bytes, but a status message may be a sentence.
MAX_HEADER_BLOCK_BYTES: Final = 4096
# Two of the guest's own and an answer to each of ours; some room for other versions of a library.
MAX_SETTINGS_FRAMES: Final = 16
_MAX_SETTINGS_BYTES: Final = 16 * 6
# Frames that a guest may send at once, and in a second from then on. A frame costs about 40 us: 4 %
# of a processor. An honest guest sends about 10 in an exec, and those below.
BURST_FRAMES: Final = 4096
FRAMES_PER_SECOND: Final = 1000
# Each further exec pays for its own frames, and content for the frames that it comes in: pieces of
# 16 KiB where there is much of it.
FRAMES_PER_EXEC: Final = 64
CONTENT_BYTES_PER_FRAME: Final = 512
# Content that nobody waits for any more pays: of a cancelled exec at most a window of 4 MiB is on
# its way, which is half of what this allows at once.
STRAY_BYTES_PER_FRAME: Final = 2048
# A guest opens its window for what it has read.
SENT_BYTES_PER_FRAME: Final = 16_384
_HEAD_BYTES: Final = 9
_SETTING_BYTES: Final = 6
_HEADER_TABLE_SIZE: Final = 1
_MAX_FRAME_SIZE: Final = 5
# What a library compresses our own headers with; a number for it, no memory at once.
_MAX_TABLE_BYTES: Final = 65_536


class _Kind(IntEnum):
    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8


_END_STREAM: Final = 0x1
_END_HEADERS: Final = 0x4
_ACK: Final = 0x1
# No padding, no priorities; flags that have no meaning for a kind are never set.
_FLAGS: Final = {
    _Kind.DATA: _END_STREAM,
    _Kind.HEADERS: _END_STREAM | _END_HEADERS,
    _Kind.RST_STREAM: 0,
    _Kind.SETTINGS: _ACK,
    _Kind.PING: _ACK,
    _Kind.GOAWAY: 0,
    _Kind.WINDOW_UPDATE: 0,
}


class FrameGate:
    """Feed it all bytes after the link handshake, before anything else sees them.

    `opened` is the set of streams that wait for an answer; it may change between calls.
    """

    def __init__(self, opened: Collection[int], now: float) -> None:
        self._opened = opened
        self._head = bytearray()
        self._skip = 0
        # A SETTINGS frame's content, while it comes.
        self._settings: bytearray | None = None
        self._settings_left = MAX_SETTINGS_FRAMES
        self._is_first = True
        self._allowance, self._at = float(BURST_FRAMES), now

    def earn(self, *, execs: int = 0, sent_bytes: int = 0) -> None:
        """Allow the frames that what the host did makes an honest guest send."""
        more = execs * FRAMES_PER_EXEC + sent_bytes / SENT_BYTES_PER_FRAME
        self._allowance = min(self._allowance + more, BURST_FRAMES)

    def feed(self, data: bytes, now: float) -> None:
        """Check what came; `now` is in seconds, by any clock that does not go back.

        Raises:
            IntegrityError: it has what a guest never sends, or too much of what it may.
        """
        more = max(now - self._at, 0.0) * FRAMES_PER_SECOND
        self._allowance, self._at = min(self._allowance + more, BURST_FRAMES), now
        at = 0
        while at < len(data):
            if self._skip:
                taken = data[at : at + self._skip]
                if self._settings is not None:
                    self._settings += taken
                self._skip -= len(taken)
                at += len(taken)
            else:
                taken = data[at : at + _HEAD_BYTES - len(self._head)]
                self._head += taken
                at += len(taken)
                # The length is refused as soon as it is known: there may never be more.
                _check_length(self._head)
                if len(self._head) < _HEAD_BYTES:
                    return
                self._begin(bytes(self._head))
                self._head.clear()
            if not self._skip and self._settings is not None:
                _check_settings(self._settings)
                self._settings = None

    def _begin(self, head: bytes) -> None:
        size, flags = int.from_bytes(head[:3], "big"), head[4]
        stream = int.from_bytes(head[5:], "big")
        try:
            kind = _Kind(head[3])
        except ValueError:
            raise _breach(f"a frame of kind {head[3]}") from None
        _check_frame(kind, flags, size)
        if self._is_first and (kind is not _Kind.SETTINGS or flags & _ACK):
            raise _breach("a connection that does not begin with its settings")
        self._is_first = False
        self._allowance -= 1.0
        if kind is _Kind.SETTINGS:
            self._settings_left -= 1
            self._settings = bytearray()
        elif kind is _Kind.DATA and stream in self._opened:
            self._allowance = min(self._allowance + size / CONTENT_BYTES_PER_FRAME, BURST_FRAMES)
        elif kind is _Kind.DATA:
            self._allowance -= size / STRAY_BYTES_PER_FRAME
        if self._allowance < 0 or self._settings_left < 0:
            raise _breach("too many frames")
        self._skip = size


def _check_length(head: bytearray) -> None:
    if len(head) >= 3 and int.from_bytes(head[:3], "big") > MAX_FRAME_PAYLOAD_BYTES:  # noqa: PLR2004 - the field's size
        raise _breach("an overlong frame")


def _check_frame(kind: _Kind, flags: int, size: int) -> None:
    if flags & ~_FLAGS[kind]:
        raise _breach(f"{kind.name} with flags {flags:#x}")
    if kind is _Kind.HEADERS and (size > MAX_HEADER_BLOCK_BYTES or not flags & _END_HEADERS):
        raise _breach("headers that are too long")
    if kind is _Kind.SETTINGS and (
        size % _SETTING_BYTES or size > (0 if flags & _ACK else _MAX_SETTINGS_BYTES)
    ):
        raise _breach(f"SETTINGS of {size} bytes")


def _check_settings(content: bytearray) -> None:
    for at in range(0, len(content), _SETTING_BYTES):
        name = int.from_bytes(content[at : at + 2], "big")
        value = int.from_bytes(content[at + 2 : at + _SETTING_BYTES], "big")
        if (name == _MAX_FRAME_SIZE and value != MAX_FRAME_PAYLOAD_BYTES) or (
            name == _HEADER_TABLE_SIZE and value > _MAX_TABLE_BYTES
        ):
            raise _breach(f"a setting {name} of {value}")


def _breach(what: str) -> IntegrityError:
    return IntegrityError(f"the guest broke the protocol: {what}", reason=PROTOCOL_VIOLATION)
