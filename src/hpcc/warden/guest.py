"""The warden's end of a guest's byte stream: link handshake, HTTP/2, gRPC, protobuf."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError
from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.encoding.base import CodecBase
from grpclib.protocol import H2Protocol

from hpcc._proto import agent_pb2 as pb
from hpcc._proto.agent_grpc import AgentServiceStub
from hpcc.core import IntegrityError
from hpcc.wire import warden as wire
from hpcc.wire.exec_frames import MAX_FRAME_BYTES
from hpcc.wire.frame_gate import FrameGate
from hpcc.wire.link import NONCE_BYTES, HostLink

if TYPE_CHECKING:
    from grpclib.client import Stream

    type ExecStream = Stream[pb.ClientFrame, pb.ServerFrame]
    type OnLost = Callable[[wire.LostCode, str], None]

_READ_BYTES: Final = 64 << 10
_PREFIX_BYTES: Final = 5
# Answers to SETTINGS and PING that the guest does not read. Data that waits for a window does not
# count, because grpclib stops sending it.
_MAX_UNREAD_BYTES: Final = 8 << 20
# Four streams' windows: an exec with a slow consumer must not delay the others in its guest.
_CONNECTION_WINDOW_BYTES: Final = 16 << 20


class _GuardedProtocol(H2Protocol):
    """HTTP/2 that reports its end, and treats any error over hostile bytes as the end."""

    def __init__(self, channel: Channel, on_end: OnLost) -> None:
        inner = channel._protocol_factory()  # noqa: SLF001 - how grpclib's own transports are made
        super().__init__(inner.handler, inner.config, inner.h2_config)
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._paid_execs = self._paid_bytes = 0
        self._is_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._gate = FrameGate(self.processor.streams, self._loop.time())
        close = self.connection.close

        def end() -> None:
            self._is_ended = True
            # Closing is not enough: it would wait without limit for a guest that reads nothing.
            close()
            transport.abort()

        self.connection.close = end  # type: ignore[method-assign]  # grpclib's own timers call it

    def data_received(self, data: bytes) -> None:
        try:
            self._earn()
            self._gate.feed(data, self._loop.time())
            super().data_received(data)
            if self._transport.get_write_buffer_size() > _MAX_UNREAD_BYTES:
                self._break("it asks and does not read")
        except IntegrityError as error:
            self._break(str(error))
        except Exception as error:  # noqa: BLE001 - whatever a parser does on hostile bytes ends this guest
            self._break(type(error).__name__)
        # grpclib has ended the connection; a transport that failed reports that itself soon.
        if self._is_ended:
            self._on_end(wire.LostCode.BREACH, "HTTP/2")

    def _earn(self) -> None:
        execs, sent_bytes = self.connection.streams_started, self.connection.data_sent
        self._gate.earn(execs=execs - self._paid_execs, sent_bytes=sent_bytes - self._paid_bytes)
        self._paid_execs, self._paid_bytes = execs, sent_bytes

    def _break(self, what: str) -> None:
        self._on_end(wire.LostCode.BREACH, what)
        self.connection_lost(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._on_end(wire.LostCode.ENDED, "")
        super().connection_lost(exc)


class _Codec(CodecBase):
    """Sends encoded messages and messages; decodes nothing."""

    __content_subtype__ = "proto"

    def encode(self, message: bytes | pb.ClientFrame, message_type: object) -> bytes:
        del message_type
        return message if isinstance(message, bytes) else message.SerializeToString()

    def decode(self, data: bytes, message_type: object) -> object:
        raise NotImplementedError


class GuestConnection(Channel):
    """grpclib's channel over one connected socket, which starts with the link handshake.

    `on_lost` is called, perhaps several times, when the stream ends or breaks HTTP/2.
    """

    def __init__(self, sock: socket.socket, start: wire.Start, on_lost: OnLost) -> None:
        config = Configuration(
            _keepalive_time=start.keepalive_ms / 1000,
            _keepalive_timeout=start.keepalive_timeout_ms / 1000,
            _keepalive_permit_without_calls=True,
            _http2_max_pings_without_data=0,
            _http2_min_sent_ping_interval_without_data=start.keepalive_ms / 2000,
            http2_connection_window_size=_CONNECTION_WINDOW_BYTES,
        )
        super().__init__(path="guest", config=config, codec=_Codec())
        self._sock: socket.socket | None = sock
        self._token, self._on_lost = start.token, on_lost
        self.stub = AgentServiceStub(self)

    async def _create_connection(self) -> H2Protocol:
        sock, self._sock = self._sock, None
        if sock is None:
            raise ConnectionResetError("a guest has one connection in its life")
        try:
            early = await self._shake_hands(sock)
        except BaseException:
            sock.close()
            raise
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_connection(
            lambda: _GuardedProtocol(self, self._on_lost), sock=sock
        )
        del transport
        if early:
            protocol.data_received(early)
        return protocol

    async def _shake_hands(self, sock: socket.socket) -> bytes:
        """Do the link handshake; return the bytes that followed it."""
        loop = asyncio.get_running_loop()
        link = HostLink(self._token, os.urandom(NONCE_BYTES))
        await loop.sock_sendall(sock, link.hello)
        early: bytes | None = None
        while early is None:
            data = await loop.sock_recv(sock, _READ_BYTES)
            if not data:
                raise ConnectionResetError("the guest's stream ended")
            early = link.feed(data)
        return early

    def close(self) -> None:
        # grpclib drops its connection silently if nothing was ever sent.
        with suppress(AttributeError):
            super().close()
        if self._sock is not None:
            self._sock.close()


async def receive(stream: ExecStream) -> wire.Reply | None:
    """Return the guest's next reply, None at the end. Its length is checked before it is read.

    Raises:
        IntegrityError: the frame exceeds `MAX_FRAME_BYTES`, or is not a frame.
        Exception: what grpclib and h2 raise for a broken stream; they document no list.
    """
    if not stream._recv_initial_metadata_done:  # noqa: SLF001 - as grpclib's recv_message does
        await stream.recv_initial_metadata()
    # grpclib's recv_message would trust the announced length, so use its inner stream (0.4.x).
    with stream._wrapper:  # noqa: SLF001 - as above
        raw: Callable[[int], Awaitable[bytes]] = stream._stream.recv_data  # noqa: SLF001 - as above
        prefix = await raw(_PREFIX_BYTES)
        if not prefix:
            return None
        size = int.from_bytes(prefix[1:], "big")
        if prefix[0] or size > MAX_FRAME_BYTES:
            raise IntegrityError(f"a frame of {size} bytes")
        data = await raw(size)
    try:
        return reply_of(pb.ServerFrame.FromString(data))
    except DecodeError as error:
        raise IntegrityError("not a ServerFrame") from error


def reply_of(frame: pb.ServerFrame) -> wire.Reply:
    """Return the frame's content; the worker checks the values.

    Raises:
        IntegrityError: the frame is empty.
    """
    match frame.WhichOneof("frame"):
        case "need":
            return wire.NeedReply(tuple(frame.need.digests), frame.need.more)
        case "stdio":
            return wire.StdioReply(frame.stdio.stream, frame.stdio.data)
        case "output":
            chunk = frame.output
            return wire.OutputReply(chunk.path, chunk.data, chunk.is_executable, chunk.last)
        case "result":
            result = frame.result
            return wire.ResultReply(
                exit_code=result.exit_code,
                signal=result.signal,
                reason=result.reason,
                wall_seconds=result.wall_seconds,
                user_seconds=result.user_seconds,
                system_seconds=result.system_seconds,
                stage_seconds=result.stage_seconds,
                max_rss_bytes=result.max_rss_bytes,
                detail=result.detail,
            )
        case _:
            raise IntegrityError("an empty frame")
