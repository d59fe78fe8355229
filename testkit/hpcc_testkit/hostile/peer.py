"""The raw bytes of a guest: hand-made HTTP/2 and gRPC without a library, so that it can misbehave.

A `Peer` runs on the other end of a socketpair, and as the agent of a real guest. So this module
imports only what the agent drive contains.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, NoReturn

from hpcc._proto import agent_pb2 as pb

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW, CONTINUATION = (
    range(10)
)
END_STREAM, END_HEADERS, PADDED, ACK = 0x1, 0x4, 0x8, 0x1
FRAME_BYTES: Final = 16_384
_PREFACE_BYTES: Final = 24
_HEAD_BYTES: Final = 9
_READ_BYTES: Final = 64 << 10
_HELLO: Final = b"hpcc>"
_HELLO_BYTES: Final = len(_HELLO) + 32 + 16
_PREFIX_BYTES: Final = 5
_HPACK_SHORT: Final = 127
_GRANT_BYTES: Final = 1 << 30


class GoneError(Exception):
    """The host has closed the stream."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame; fields are encoded as given, without checks."""
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def settings(*pairs: tuple[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    payload = b"".join(name.to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in pairs)
    return frame(SETTINGS, 0, 0, payload)


def literal(name: bytes, value: bytes, *, kind: int = 0x00) -> bytes:
    """Return an HPACK literal without Huffman; `kind` 0x40 adds it to the dynamic table."""
    return bytes([kind]) + _string(name) + _string(value)


def _string(raw: bytes) -> bytes:
    if len(raw) < _HPACK_SHORT:
        return bytes([len(raw)]) + raw
    rest, out = len(raw) - _HPACK_SHORT, bytearray([_HPACK_SHORT])
    while rest >= 1 << 7:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes(out) + bytes([rest]) + raw


def block(*pairs: tuple[bytes, bytes]) -> bytes:
    """Return a header block of literals."""
    return b"".join(literal(name, value) for name, value in pairs)


OPENING: Final = block((b":status", b"200"), (b"content-type", b"application/grpc+proto"))


def headers(stream: int, payload: bytes = OPENING, *, ends: bool = False) -> bytes:
    """Return a HEADERS frame that holds a whole block."""
    return frame(HEADERS, END_HEADERS | (END_STREAM if ends else 0), stream, payload)


def trailers(stream: int, *more: tuple[bytes, bytes], status: bytes = b"0") -> bytes:
    """Return the trailers that end a gRPC call."""
    return headers(stream, block((b"grpc-status", status), *more), ends=True)


def message(stream: int, body: pb.ServerFrame | bytes) -> bytes:
    """Return one gRPC message in DATA frames of the usual size."""
    raw = body if isinstance(body, bytes) else body.SerializeToString()
    return data(stream, b"\0" + len(raw).to_bytes(4, "big") + raw)


def data(stream: int, raw: bytes, size: int = FRAME_BYTES) -> bytes:
    """Return DATA frames of at most `size` bytes each."""
    return b"".join(frame(DATA, 0, stream, raw[at : at + size]) for at in range(0, len(raw), size))


class Peer:
    """A blocking byte stream with the steps of an honest guest, for attacks to start from."""

    def __init__(self, fd: int, on_sent: Callable[[int], None] = lambda _: None) -> None:
        self.fd, self._on_sent = fd, on_sent
        self._buffer = bytearray()
        self._is_greeted = False
        self._requests: dict[int, bytearray] = {}
        self._ended: set[int] = set()
        # The host's flow-control windows by stream; 0 is the connection.
        self._initial_window = 65_535
        self._windows = {0: 65_535}
        self.sent_bytes = 0

    def send(self, raw: bytes) -> None:
        view = memoryview(raw)
        while view:
            try:
                count = os.write(self.fd, view)
            except BlockingIOError:
                time.sleep(0.001)
                continue
            except OSError as error:
                raise GoneError from error
            view = view[count:]
            self.sent_bytes += count
            self._on_sent(self.sent_bytes)

    def flood(self, raw: bytes, *, at_least: int = 1) -> NoReturn:
        """Send `raw` repeatedly, many copies at once, until the host closes the stream."""
        piece = raw * max(at_least, _READ_BYTES // len(raw))
        while True:
            self.send(piece)

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def hello(self) -> tuple[bytes, bytes]:
        """Wait for the host's HELLO; return (token, nonce)."""
        while (at := self._buffer.find(_HELLO)) < 0 or len(self._buffer) < at + _HELLO_BYTES:
            self._fill()
        said = bytes(self._buffer[at + len(_HELLO) : at + _HELLO_BYTES])
        del self._buffer[: at + _HELLO_BYTES]
        return said[:32], said[32:]

    def welcome(self) -> None:
        token, nonce = self.hello()
        self.send(b"<hpcc" + token + nonce)

    def settle(self) -> None:
        """Send the settings of an HTTP/2 server with wide windows."""
        self.send(
            settings((4, _GRANT_BYTES))
            + frame(WINDOW, 0, 0, _GRANT_BYTES.to_bytes(4, "big"))
            + frame(SETTINGS, ACK, 0)
        )

    def request(self) -> tuple[int, pb.ClientFrame]:
        """Wait for the next Exec's header frame; return its stream and the frame."""
        while True:
            for stream, raw in list(self._requests.items()):
                size = int.from_bytes(raw[1:_PREFIX_BYTES], "big")
                if len(raw) >= _PREFIX_BYTES + size:
                    del self._requests[stream]
                    body = bytes(raw[_PREFIX_BYTES : _PREFIX_BYTES + size])
                    return stream, pb.ClientFrame.FromString(body)
            self.step()

    def step(self) -> None:
        """Read one frame from the host and react as a server must."""
        kind, flags, stream, payload = self._frame()
        if kind == SETTINGS and not flags & ACK:
            self._obey(payload)
            self.send(frame(SETTINGS, ACK, 0))
        elif kind == WINDOW:
            self._windows[stream] = self._windows.get(stream, 0) + int.from_bytes(payload, "big")
        elif kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))
        elif kind == HEADERS:
            self._requests[stream] = bytearray()
            self._windows[stream] = self._initial_window
        elif kind == DATA:
            if stream in self._requests:
                self._requests[stream] += payload
            if flags & END_STREAM:
                self._ended.add(stream)

    def _obey(self, payload: bytes) -> None:
        for at in range(0, len(payload), 6):
            if payload[at : at + 2] == b"\0\4":
                value = int.from_bytes(payload[at + 2 : at + 6], "big")
                for stream in self._windows.keys() - {0}:
                    self._windows[stream] += value - self._initial_window
                self._initial_window = value

    def send_within(self, stream: int, content: bytes) -> None:
        """Send one DATA frame as soon as the host's window allows it."""
        size = len(content)
        while min(self._windows[0], self._windows[stream]) < size:
            self.step()
        self._windows[0] -= size
        self._windows[stream] -= size
        self.send(frame(DATA, 0, stream, content))

    def wait_end(self, stream: int) -> None:
        """Wait until the host has half-closed a stream."""
        while stream not in self._ended:
            self.step()

    def serve(self) -> NoReturn:
        """Continue as a server that answers only pings."""
        while True:
            self.step()

    def hold(self) -> NoReturn:
        """Neither read nor send."""
        while True:
            time.sleep(3600)

    def drain(self) -> None:
        """Read and discard until the host closes the stream."""
        try:
            while True:
                self._buffer.clear()
                self._fill()
        except GoneError:
            pass

    def _frame(self) -> tuple[int, int, int, bytes]:
        if not self._is_greeted:
            self._take(_PREFACE_BYTES)
            self._is_greeted = True
        head = self._take(_HEAD_BYTES)
        payload = self._take(int.from_bytes(head[:3], "big"))
        return head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, payload

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._fill()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _fill(self) -> None:
        while True:
            try:
                found = os.read(self.fd, _READ_BYTES)
            except BlockingIOError:
                time.sleep(0.001)
                continue
            except OSError as error:
                raise GoneError from error
            if not found:
                raise GoneError
            self._buffer += found
            return
