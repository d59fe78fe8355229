"""The host's end of a guest's byte stream: link handshake, HTTP/2, Exec."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import h2.exceptions
from google.protobuf.message import DecodeError
from grpclib import GRPCError
from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.exceptions import ProtocolError, StreamTerminatedError
from grpclib.protocol import H2Protocol

from hpcc._proto import agent_pb2 as pb
from hpcc._proto.agent_grpc import AgentServiceStub
from hpcc.core import CallerError, Digest, ExecEvent, ExecRequest, IntegrityError, ResultEvent
from hpcc.ports import BlobSource, GuestLostError
from hpcc.runtime._replies import PROTOCOL_VIOLATION, Phase, ReplyChecker
from hpcc.wire import (
    CHUNK_BYTES,
    MAX_FRAME_BYTES,
    MAX_HEADER_FRAME_BYTES,
    NONCE_BYTES,
    HostLink,
    check_exec_request,
)

if TYPE_CHECKING:
    from grpclib.client import Stream

    type ExecStream = Stream[pb.ClientFrame, pb.ServerFrame]

# From the request to the last input's arrival: 1 GiB at the slowest rate that was measured is 40 s.
STAGE_SECONDS: Final = 300.0
# What the agent may need beyond its own deadline to kill, collect and send.
GRACE_SECONDS: Final = 60.0
_READ_BYTES: Final = 64 << 10
_PREFIX_BYTES: Final = 5
# Events between the guest and a slow consumer: at most 8 chunks of 256 KiB.
_EVENTS_AHEAD: Final = 8
# A busy guest under emulation may be slow to answer a ping; a dead one never does.
_CONFIG: Final = Configuration(
    _keepalive_time=20.0,
    _keepalive_timeout=60.0,
    _keepalive_permit_without_calls=True,
    _http2_max_pings_without_data=0,
    _http2_min_sent_ping_interval_without_data=10.0,
)
_FOREIGN_ERRORS: Final = (
    GRPCError,
    ProtocolError,
    StreamTerminatedError,
    h2.exceptions.H2Error,
    OSError,
    AssertionError,  # grpclib's answer to a stream that ends in mid-message
    AttributeError,  # grpclib's answer to a connection that closed under a call
    NotImplementedError,  # compressed messages, unknown HTTP/2 events
    DecodeError,
    ValueError,
    KeyError,
)


class _GuardedProtocol(H2Protocol):
    """HTTP/2 that reports its end, and takes any error over hostile bytes for one."""

    def __init__(self, channel: Channel, on_end: Callable[[str], None]) -> None:
        inner = channel._protocol_factory()  # noqa: SLF001 - how grpclib's own transports are made
        super().__init__(inner.handler, inner.config, inner.h2_config)
        self._on_end = on_end

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except Exception as error:  # noqa: BLE001 - whatever a parser does on hostile bytes ends this guest, not the worker
            self._on_end(f"{PROTOCOL_VIOLATION}: {type(error).__name__}")
            self.connection_lost(None)
        if self.connection.is_closing() or self._waits_for_an_overlong_frame():
            self._on_end(f"{PROTOCOL_VIOLATION}: HTTP/2")

    def _waits_for_an_overlong_frame(self) -> bool:
        """Say whether h2 is collecting a frame of up to 16 MiB that it will refuse in the end."""
        inner = self.connection._connection  # noqa: SLF001 - grpclib gives no way to its h2
        header = inner.incoming_buffer._data[:3]  # noqa: SLF001 - h2 has no check of its own before
        return int.from_bytes(header, "big") > inner.max_inbound_frame_size

    def connection_lost(self, exc: BaseException | None) -> None:
        self._on_end("the guest's stream ended")
        super().connection_lost(exc)


class _SocketChannel(Channel):
    """grpclib's channel over one connected socket, whose stream needs the link handshake first."""

    def __init__(self, sock: socket.socket, token: bytes, on_end: Callable[[str], None]) -> None:
        super().__init__(path="guest", config=_CONFIG)
        self._sock, self._token, self._on_end = sock, token, on_end

    async def _create_connection(self) -> H2Protocol:
        if self._sock.fileno() < 0:
            raise ConnectionResetError("a guest has one connection in its life")
        loop = asyncio.get_running_loop()
        link = HostLink(self._token, os.urandom(NONCE_BYTES))
        await loop.sock_sendall(self._sock, link.hello)
        early: bytes | None = None
        while early is None:
            data = await loop.sock_recv(self._sock, _READ_BYTES)
            if not data:
                raise ConnectionResetError("the guest's stream ended")
            early = link.feed(data)
        sock, self._sock = self._sock, socket.socket()
        self._sock.close()
        transport, protocol = await loop.create_connection(
            lambda: _GuardedProtocol(self, self._on_end), sock=sock
        )
        del transport
        if early:
            protocol.data_received(early)
        return protocol

    def close(self) -> None:
        super().close()
        self._sock.close()


class GuestChannel:
    """Execs over one stream. Takes the socket over; `close` it in the end.

    `lost` completes with a reason as soon as the stream ends or the guest breaks the protocol.
    """

    def __init__(self, sock: socket.socket, token: bytes) -> None:
        sock.settimeout(0)
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self._channel = _SocketChannel(sock, token, self.retire)
        self._stub = AgentServiceStub(self._channel)
        # What the agent said of its latest failure; for logs, hostile.
        self.last_detail = ""

    async def connect(self) -> None:
        """Do the handshake; without a deadline, the caller has one.

        Raises:
            GuestLostError: the stream ended or was not a guest's.
        """
        try:
            await self._channel.__connect__()
        except IntegrityError as error:
            raise self._lost_error(error.reason) from error
        except _FOREIGN_ERRORS as error:
            raise self._lost_error(str(error)) from error

    def retire(self, reason: str) -> None:
        """Give the guest up: every exec fails, none starts."""
        if not self.lost.done():
            self.lost.set_result(reason)

    def close(self) -> None:
        self.retire("closed")
        # grpclib drops its connection without a word when nothing was ever sent.
        with suppress(AttributeError):
            self._channel.close()

    async def exec(
        self, request: ExecRequest, blobs: BlobSource, birth: pb.Guest | None = None
    ) -> AsyncGenerator[ExecEvent]:
        """Run one compile; see `hpcc.ports.Guest.exec`."""
        check_exec_request(request)
        header = _header(request, birth)
        if self.lost.done():
            raise self._lost_error("")
        call = _Call(self._stub, request, header, blobs)
        # Its own task: grpclib cancels the task that waits for a stream that ends, and would
        # cancel the consumer's with it.
        pump = self._loop.create_task(call.run())

        def give_up(_: object) -> None:
            # grpclib tells only the calls that it knew of when the stream ended.
            pump.cancel()

        self.lost.add_done_callback(give_up)
        try:
            while (event := await call.next_event()) is not None:
                self.last_detail = call.detail
                yield event
            await self._outcome(call, pump)
        finally:
            self.lost.remove_done_callback(give_up)
            pump.cancel()
            # Its error has been raised above, or the consumer has left and does not want it.
            await asyncio.wait([pump])
            if not pump.cancelled():
                pump.exception()

    async def _outcome(self, call: _Call, pump: asyncio.Task[None]) -> None:
        await asyncio.wait([pump])
        if pump.cancelled():
            raise self._lost_error("")
        try:
            pump.result()
        except IntegrityError as error:
            if error is call.source_error:
                raise
            self.retire(error.reason)
            raise self._lost_error(str(error), error.reason) from error
        except TimeoutError as error:
            self.retire("no answer in time")
            raise self._lost_error("no answer in time", "guest-silent") from error
        except _FOREIGN_ERRORS as error:
            if error is call.source_error:
                raise
            self.retire(f"stream failed: {type(error).__name__}")
            raise self._lost_error(str(error)) from error

    def _lost_error(self, text: str, reason: str | None = None) -> GuestLostError:
        self.retire(text or "lost")
        cause = self.lost.result()
        if reason is None and cause.startswith(PROTOCOL_VIOLATION):
            reason = PROTOCOL_VIOLATION
        return GuestLostError(f"guest lost: {text or cause}", reason=reason)


class _Call:
    """One Exec on the wire: `run` in its own task, `next_event` for the consumer."""

    def __init__(
        self,
        stub: AgentServiceStub,
        request: ExecRequest,
        header: pb.ClientFrame,
        blobs: BlobSource,
    ) -> None:
        self._stub, self._request, self._header, self._blobs = stub, request, header, blobs
        self._events: asyncio.Queue[ExecEvent | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(_EVENTS_AHEAD)
        # What the host's own store raised: no fault of the guest.
        self.source_error: Exception | None = None
        self.detail = ""

    async def next_event(self) -> ExecEvent | None:
        """Return the next event; None when `run` has ended, well or not."""
        event = await self._events.get()
        self._room.release()
        return event

    async def run(self) -> None:
        try:
            async with asyncio.timeout(STAGE_SECONDS) as deadline, self._stub.Exec.open() as stream:
                await self._talk(stream, deadline)
        finally:
            self._events.put_nowait(None)

    async def _talk(self, stream: ExecStream, deadline: asyncio.Timeout) -> None:
        checker = ReplyChecker(self._request)
        await stream.send_message(self._header)
        while checker.phase is Phase.NEED:
            checker.feed(_present(await _receive(stream)))
        for digest in checker.needed:
            await self._send_blob(stream, digest)
        await stream.end()
        loop = asyncio.get_running_loop()
        deadline.reschedule(loop.time() + self._request.limits.wall_seconds + GRACE_SECONDS)
        while (frame := await _receive(stream)) is not None:
            event = checker.feed(frame)
            assert event is not None
            if isinstance(event, ResultEvent):
                self.detail = checker.detail
                deadline.reschedule(loop.time() + STAGE_SECONDS)
            await self._room.acquire()
            self._events.put_nowait(event)
        checker.end()

    async def _send_blob(self, stream: ExecStream, digest: Digest) -> None:
        try:
            data = await self._blobs.read(digest)
        except Exception as error:
            self.source_error = error
            raise
        raw = bytes.fromhex(digest.hash)
        for at in range(0, max(len(data), 1), CHUNK_BYTES):
            last = at + CHUNK_BYTES >= len(data)
            chunk = pb.InputChunk(digest=raw, data=data[at : at + CHUNK_BYTES], last=last)
            await stream.send_message(pb.ClientFrame(chunk=chunk))


def _present(frame: pb.ServerFrame | None) -> pb.ServerFrame:
    if frame is None:
        raise IntegrityError("the answer ended before its first Need", reason=PROTOCOL_VIOLATION)
    return frame


async def _receive(stream: ExecStream) -> pb.ServerFrame | None:
    """Return the next frame, None at the end; its length is checked before it is read.

    Raises:
        IntegrityError: it is too large or not a frame.
    """
    if not stream._recv_initial_metadata_done:  # noqa: SLF001 - as grpclib's recv_message does
        await stream.recv_initial_metadata()
    # grpclib's recv_message would trust the announced length: hence its inner stream (0.4.x).
    with stream._wrapper:  # noqa: SLF001 - as above
        raw: Callable[[int], Awaitable[bytes]] = stream._stream.recv_data  # noqa: SLF001 - as above
        prefix = await raw(_PREFIX_BYTES)
        if not prefix:
            return None
        size = int.from_bytes(prefix[1:], "big")
        if prefix[0] or size > MAX_FRAME_BYTES:
            raise IntegrityError(f"a frame of {size} bytes", reason=PROTOCOL_VIOLATION)
        data = await raw(size)
    try:
        return pb.ServerFrame.FromString(data)
    except DecodeError as error:
        raise IntegrityError("not a ServerFrame", reason=PROTOCOL_VIOLATION) from error


def _header(request: ExecRequest, birth: pb.Guest | None) -> pb.ClientFrame:
    limits = request.limits
    header = pb.Header(
        exec_id=request.exec_id,
        argv=request.argv,
        env=[pb.Variable(name=n, value=v) for n, v in request.env],
        cwd=request.cwd,
        inputs=[
            pb.Input(
                path=f.path,
                digest=bytes.fromhex(f.digest.hash),
                size_bytes=f.digest.size_bytes,
                is_executable=f.is_executable,
            )
            for f in request.inputs
        ],
        outputs=request.outputs,
        limits=pb.Limits(
            wall_seconds=limits.wall_seconds,
            memory_bytes=limits.memory_bytes,
            pids=limits.pids,
            output_bytes=limits.output_bytes,
            stdio_bytes=limits.stdio_bytes,
        ),
        guest=birth,
    )
    frame = pb.ClientFrame(header=header)
    if frame.ByteSize() > MAX_HEADER_FRAME_BYTES:
        raise CallerError(f"the request is larger than {MAX_HEADER_FRAME_BYTES} bytes")
    return frame
