"""Serves one guest for its whole life: a hostile guest's bytes end here.

The problem: HTTP/2, HPACK, gRPC and protobuf are large parsers, and a guest that runs a tenant's
code can send them anything. A fault in one of them must not reach the worker, which has every
tenant's blobs and keys.

The rule: one warden process per guest parses the guest's bytes. Before its first byte it has
dropped its identity, its descriptors and all system calls that a parser does not need (`sandbox`,
`filter`). To the worker it sends only the fixed frames of `hpcc.wire.warden`: a kind, an exec's
number, a length, and fields of known types. What the fields mean (paths, digests, order, limits) is
checked by the worker, which trusts a warden no more than a guest.

Each rule bounds what a guest can cost:

- A frame's length is checked before its content is read (`guest.receive`).
- `wire.REPLIES_AHEAD` replies may be on their way to the worker; the next one waits for CREDIT.
- A breach, a parser's exception or a stream without a proper end gives the guest up: the first
  reason is sent as LOST, and the session ends with all its execs.
- A response counts only if its stream ended cleanly; otherwise the guest is reported as lost.

Example: a guest sends a protobuf message that makes the decoder raise an unknown exception.
`_Call._run` catches it, the worker receives LOST with `BREACH`, and both the guest and this process
end. The other guests of the worker have separate wardens and continue.

What must never happen: a guest's bytes reach the worker unparsed; an exec ends as if it were
complete after its stream broke; a guest makes its warden wait without limit or hold unbounded
memory.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

from grpclib import GRPCError
from grpclib.exceptions import StreamTerminatedError

from hpcc._proto import agent_pb2 as pb
from hpcc.core import IntegrityError
from hpcc.warden.guest import GuestConnection, receive
from hpcc.wire import warden as wire

if TYPE_CHECKING:
    from hpcc.warden.guest import ExecStream

# How long to send the reason of an end to a worker that may not read it.
_FAREWELL_SECONDS: Final = 5.0
_READ_BYTES: Final = 64 << 10


class _LostGuestError(Exception):
    """The guest is given up, which ends the session."""

    def __init__(self, code: wire.LostCode, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


async def serve(guest: socket.socket, worker: socket.socket) -> None:
    """Serve one guest until it is lost or the worker hangs up. Closes both sockets."""
    reader, writer = await asyncio.open_connection(sock=worker)
    await serve_streams(guest, reader, writer)


async def serve_streams(
    guest: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Serve as `serve` does, over a worker connection that is not a socket."""
    try:
        await _Session(guest, reader, writer).run()
    except _LostGuestError as error:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                writer.write(wire.frame(wire.LOST, 0, wire.encode_lost(error.code, error.text)))
                # Until the worker hangs up: sending to a closed socket would cost it the LOST.
                while await reader.read(_READ_BYTES):
                    pass
    except (asyncio.IncompleteReadError, OSError):
        pass  # the worker is gone, or has no use for this guest any more
    finally:
        guest.close()
        writer.close()


class _Session:
    def __init__(
        self, guest: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._guest, self._reader, self._writer = guest, reader, writer
        self._lost: asyncio.Future[tuple[wire.LostCode, str]]
        self._lost = asyncio.get_running_loop().create_future()
        self._calls: dict[int, _Call] = {}

    async def run(self) -> None:
        """Read START, then serve.

        Raises:
            _LostGuestError: the guest is lost.
            IncompleteReadError, OSError: the worker hung up.
        """
        kind, _, body = await self._read()
        if kind != wire.START:
            raise ConnectionResetError("no START")
        connection = GuestConnection(self._guest, wire.decode_start(body), self.give_up)
        loop = asyncio.get_running_loop()
        connecting = loop.create_task(self._connect(connection))
        obeying = loop.create_task(self._obey(connection))
        try:
            ends: list[asyncio.Future[None] | asyncio.Future[tuple[wire.LostCode, str]]]
            ends = [obeying, self._lost]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._lost.done():
                raise _LostGuestError(*self._lost.result())
            obeying.result()
        finally:
            running = [connecting, obeying, *(c.task for c in self._calls.values())]
            for task in running:
                task.cancel()
            await asyncio.wait(running)
            connection.close()

    def give_up(self, code: wire.LostCode, text: str) -> None:
        """End the session; the first reason counts."""
        if not self._lost.done():
            self._lost.set_result((code, text))

    async def _connect(self, connection: GuestConnection) -> None:
        try:
            await connection.__connect__()
        except IntegrityError as error:
            self.give_up(wire.LostCode.HANDSHAKE, error.reason)
        except Exception as error:  # noqa: BLE001 - as in _Call._run
            self.give_up(wire.LostCode.ENDED, str(error))
        else:
            self.say(wire.frame(wire.READY))

    async def _obey(self, connection: GuestConnection) -> None:
        while True:
            kind, number, body = await self._read()
            if kind == wire.PING:
                self.say(wire.frame(wire.PONG))
            elif kind == wire.EXEC:
                self._calls[number] = _Call(self, connection, number, body)
            elif call := self._calls.get(number):
                call.take(kind, body)

    async def _read(self) -> tuple[int, int, bytes]:
        header = await self._reader.readexactly(wire.HEADER_BYTES)
        kind, number, length = wire.parse_head(header, wire.TO_WARDEN)
        return kind, number, await self._reader.readexactly(length)

    def say(self, frame: bytes) -> None:
        """Queue a small frame, in order with all others."""
        self._writer.write(frame)

    async def send(self, *pieces: bytes) -> None:
        """Send a frame, and wait while the worker reads slowly.

        Raises:
            ConnectionResetError: the worker is gone.
        """
        if self._writer.is_closing():
            raise ConnectionResetError("the worker is gone")
        self._writer.writelines(pieces)
        await self._writer.drain()

    def ended(self, number: int) -> None:
        """Tell the worker that no more frames come for this exec."""
        self._calls.pop(number, None)
        if not self._lost.done():
            self.say(wire.frame(wire.END, number))


class _Call:
    """One Exec call on the guest's connection."""

    def __init__(
        self, session: _Session, connection: GuestConnection, number: int, header: bytes
    ) -> None:
        self._session, self._connection, self._number = session, connection, number
        self._credit = asyncio.Semaphore(wire.REPLIES_AHEAD)
        # None ends the input. The worker bounds the number of chunks in the queue.
        self._chunks: asyncio.Queue[pb.ClientFrame | None] = asyncio.Queue()
        self._is_finished = False
        self.task = asyncio.get_running_loop().create_task(self._run(header))
        self._is_cancelled = False
        # Not in the task itself: a task that is cancelled before its first step never runs.
        self.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        # grpclib cancels the task that waits for a stream when the stream ends. A response counts
        # only if its stream ended cleanly; otherwise the guest is reported as lost.
        if not self._is_cancelled and (task.cancelled() or task.exception() is not None):
            self._session.give_up(wire.LostCode.FAILED, "an exec without an end")
        self._session.ended(self._number)

    def take(self, kind: int, body: bytes) -> None:
        """Handle a frame of the worker for this exec."""
        if kind == wire.CREDIT:
            self._credit.release()
        elif kind == wire.CHUNK:
            digest, data, last = wire.decode_chunk(body)
            chunk = pb.InputChunk(digest=digest, data=data, last=last)
            self._chunks.put_nowait(pb.ClientFrame(chunk=chunk))
        elif kind == wire.FINISH:
            self._chunks.put_nowait(None)
        elif kind == wire.CANCEL:
            self._is_cancelled = True
            self.task.cancel()

    async def _run(self, header: bytes) -> None:
        try:
            async with self._connection.stub.Exec.open() as stream:
                await self._talk(stream, header)
        except IntegrityError as error:
            self._session.give_up(wire.LostCode.BREACH, str(error))
        except (GRPCError, StreamTerminatedError) as error:
            self._session.give_up(wire.LostCode.FAILED, f"{type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001 - whatever a parser does on hostile bytes ends this guest
            self._session.give_up(wire.LostCode.BREACH, f"{type(error).__name__}: {error}")

    async def _talk(self, stream: ExecStream, header: bytes) -> None:
        # The worker has encoded it; _Codec passes it on.
        await stream.send_message(cast("pb.ClientFrame", header))
        sender = asyncio.get_running_loop().create_task(self._send_chunks(stream))
        try:
            while (reply := await receive(stream)) is not None:
                kind, pieces = wire.encode_reply(reply)
                length = sum(map(len, pieces))
                await self._credit.acquire()
                await self._session.send(wire.head(kind, self._number, length), *pieces)
            if not self._is_finished:
                raise IntegrityError("the answer ended before the request")
        finally:
            sender.cancel()
            await asyncio.wait([sender])
            if not sender.cancelled():
                sender.exception()  # retrieved, not raised: the stream's end tells more

    async def _send_chunks(self, stream: ExecStream) -> None:
        while (chunk := await self._chunks.get()) is not None:
            await stream.send_message(chunk)
            await self._session.send(wire.frame(wire.TAKEN, self._number))
        await stream.end()
        self._is_finished = True
