"""The part of HTTP/2 that a guest may speak. Checks each frame before the HTTP/2 library sees it.

A guest is hostile, and it talks to a full HTTP/2 library. h2 accepts much that an agent never
sends: padding, priorities, unknown frame kinds, large header blocks. It also works for every frame,
even for an empty one. A guest could attack that code, or send cheap frames to occupy a processor
of the host.

An honest guest is a server of one gRPC method for one client, with hpcc's agent. It needs seven
kinds of frames with few flags. So the gate has two rules:

1. Form: a frame outside of that subset is refused, by the nine bytes of its head. The content of
   SETTINGS is checked too, because it changes what the host sends.
2. Rate: each frame takes one unit from an allowance. Time, execs, bytes that the host sent, and
   content of streams that wait for an answer add to it, up to `BURST_FRAMES`. DATA for a stream
   that nobody waits for costs extra.

Example: after a cancel, up to one window (4 MiB) of DATA may still be on its way. It costs 2048
units besides its frames, which a full allowance covers. A guest that sends empty DATA frames in a
loop exhausts the allowance after about 4096 frames, and then it is refused.

What must never happen: bytes reach h2 before the gate has accepted their frame's head; an honest
agent is refused; or a guest costs its host more than a small part of a processor, whatever it
sends. Further work of the host is per message, and the reply checker of `hpcc.runtime` limits the
number and size of messages. Violations of HTTP/2 itself are left to h2, which rejects them.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import IntEnum
from typing import Final

from hpcc.core import IntegrityError

PROTOCOL_VIOLATION: Final = "protocol-violation"
# The protocol's default. Neither side may raise it here.
MAX_FRAME_PAYLOAD_BYTES: Final = 16_384
# A response's headers and trailers are below 200 bytes, but a status message may be a sentence.
MAX_HEADER_BLOCK_BYTES: Final = 4096
# A guest sends two, and an answer to each of the host's. The rest is room for other libraries.
MAX_SETTINGS_FRAMES: Final = 16
_MAX_SETTINGS_BYTES: Final = 16 * 6
# Frames that a guest may send at once, and per second after that. A frame costs about 40 us, so
# this is 4 % of a processor. An honest guest sends about 10 per exec, and those below.
BURST_FRAMES: Final = 4096
FRAMES_PER_SECOND: Final = 1000
# Each further exec adds its own frames, and content adds the frames that it arrives in: pieces of
# 16 KiB if there is much of it.
FRAMES_PER_EXEC: Final = 64
CONTENT_BYTES_PER_FRAME: Final = 512
# Content that nobody waits for costs units. After a cancelled exec at most a window of 4 MiB is on
# its way, which is half of what a full allowance covers.
STRAY_BYTES_PER_FRAME: Final = 2048
# A guest sends a WINDOW_UPDATE for what it has read.
SENT_BYTES_PER_FRAME: Final = 16_384
_HEAD_BYTES: Final = 9
_SETTING_BYTES: Final = 6
_HEADER_TABLE_SIZE: Final = 1
_MAX_FRAME_SIZE: Final = 5
# The table size that libraries use to compress the host's headers. It allocates nothing at once.
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
# No padding and no priorities. Flags without a meaning for a kind are never set.
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
    """Checks all bytes after the link handshake. Call `feed` before anything else reads them.

    `opened` is the set of streams that wait for an answer. It may change between calls.
    """

    def __init__(self, opened: Collection[int], now: float) -> None:
        self._opened = opened
        self._head = bytearray()
        self._skip = 0
        # The content of a SETTINGS frame while it arrives.
        self._settings: bytearray | None = None
        self._settings_left = MAX_SETTINGS_FRAMES
        self._is_first = True
        self._allowance, self._at = float(BURST_FRAMES), now

    def earn(self, *, execs: int = 0, sent_bytes: int = 0) -> None:
        """Allow the frames that an honest guest sends in answer to the host's actions."""
        more = execs * FRAMES_PER_EXEC + sent_bytes / SENT_BYTES_PER_FRAME
        self._allowance = min(self._allowance + more, BURST_FRAMES)

    def feed(self, data: bytes, now: float) -> None:
        """Check bytes from the guest. `now` is in seconds, by a clock that never goes back.

        Raises:
            IntegrityError: a frame that an agent never sends, or too many allowed ones.
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
                # Check the length as soon as it is complete: more bytes may never arrive.
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
