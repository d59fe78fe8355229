"""What a warden does all its life: pass execs on to its guest, and the guest's answers back.

It checks that the guest's bytes are HTTP/2, gRPC and agent.proto. What they mean is checked by the
worker, which believes a warden no more than a guest.
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

# The last words to a worker that may not listen.
_FAREWELL_SECONDS: Final = 5.0
_READ_BYTES: Final = 64 << 10


class _LostGuestError(Exception):
    """The guest is given up; ends the session."""

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
    """The same, where the way to the worker is no socket."""
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
        pass  # the worker is gone, or wants this guest no more
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
        """Take the START and serve.

        Raises:
            _LostGuestError: the guest is lost.
            IncompleteReadError, OSError: the worker is.
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
        """Send a small frame, in order with all others."""
        self._writer.write(frame)

    async def send(self, *pieces: bytes) -> None:
        """Send a frame and wait while the worker is slow."""
        if self._writer.is_closing():
            raise ConnectionResetError("the worker is gone")
        self._writer.writelines(pieces)
        await self._writer.drain()

    def ended(self, number: int) -> None:
        """Tell the worker that nothing more comes of this exec."""
        self._calls.pop(number, None)
        if not self._lost.done():
            self.say(wire.frame(wire.END, number))


class _Call:
    """One Exec on the guest's stream."""

    def __init__(
        self, session: _Session, connection: GuestConnection, number: int, header: bytes
    ) -> None:
        self._session, self._connection, self._number = session, connection, number
        self._credit = asyncio.Semaphore(wire.REPLIES_AHEAD)
        # None: no more. The worker keeps the number of chunks bounded.
        self._chunks: asyncio.Queue[pb.ClientFrame | None] = asyncio.Queue()
        self._is_finished = False
        self.task = asyncio.get_running_loop().create_task(self._run(header))
        self._is_cancelled = False
        # Not in the task itself: one that is cancelled before its first step does nothing.
        self.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        # grpclib cancels whoever waits for a stream that ends. Whatever the cause, an answer whose
        # end was not seen to be good is none.
        if not self._is_cancelled and (task.cancelled() or task.exception() is not None):
            self._session.give_up(wire.LostCode.FAILED, "an exec without an end")
        self._session.ended(self._number)

    def take(self, kind: int, body: bytes) -> None:
        """Do what the worker's frame says."""
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
                sender.exception()  # the stream's end says it better

    async def _send_chunks(self, stream: ExecStream) -> None:
        while (chunk := await self._chunks.get()) is not None:
            await stream.send_message(chunk)
            await self._session.send(wire.frame(wire.TAKEN, self._number))
        await stream.end()
        self._is_finished = True
