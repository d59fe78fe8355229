"""A guest with a lot of output, sent by the agent's own library, is not treated as hostile."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from grpclib.server import Server

from hpcc._proto import agent_pb2 as pb
from hpcc._proto.agent_grpc import AgentServiceBase
from hpcc.core import ExecLimits, OutputEvent, StdioEvent
from hpcc.runtime.channel.channel import GuestChannel
from hpcc.wire.exec_frames import CHUNK_BYTES
from hpcc.wire.link import GuestLink
from hpcc_testkit.guests.guest_contract import MemoryBlobs, request

TOKEN = b"t" * 32
MIB = 1 << 20
INPUT = bytes(range(256)) * (48 * MIB // 256)
OUTPUT_CHUNKS = 48 * MIB // CHUNK_BYTES
PIECES = 2000
LIMITS = ExecLimits(wall_seconds=60.0, output_bytes=64 * MIB)
Script = Callable[[Any], Awaitable[None]]


class Scripted(AgentServiceBase):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def Exec(self, stream: Any) -> None:  # noqa: N802 - the contract's name
        await self.script(stream)


@asynccontextmanager
async def guest(script: Script) -> AsyncIterator[GuestChannel]:
    host, ours = socket.socketpair()
    ours.setblocking(False)
    channel = GuestChannel(host, TOKEN)
    loop = asyncio.get_running_loop()

    async def greet() -> asyncio.BaseTransport:
        link = GuestLink(TOKEN)
        while (found := link.feed(await loop.sock_recv(ours, 65536))) is None:
            pass
        await loop.sock_sendall(ours, found[0])
        protocol = Server([Scripted(script)])._protocol_factory()
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        if found[1]:
            protocol.data_received(found[1])
        return transport

    greeting = loop.create_task(greet())
    try:
        await channel.connect()
        transport = await greeting
        yield channel
        transport.abort()
    finally:
        channel.close()
        for _ in range(3):
            await asyncio.sleep(0)


async def talkative(stream: Any) -> None:
    header = (await stream.recv_message()).header
    need = pb.Need(digests=[i.digest for i in header.inputs])
    await stream.send_message(pb.ServerFrame(need=need))
    while await stream.recv_message() is not None:
        pass
    for _ in range(PIECES):
        await stream.send_message(
            pb.ServerFrame(stdio=pb.Stdio(stream=pb.Stdio.STREAM_STDERR, data=b"w"))
        )
    await stream.send_message(pb.ServerFrame(result=pb.Result(reason=pb.Result.REASON_ENDED)))
    for number in range(OUTPUT_CHUNKS if header.outputs else 0):
        chunk = pb.OutputChunk(path="o", data=bytes(CHUNK_BYTES), last=number == OUTPUT_CHUNKS - 1)
        await stream.send_message(pb.ServerFrame(output=chunk))


async def compile_once(channel: GuestChannel, *, is_big: bool) -> tuple[int, int]:
    data = INPUT if is_big else b"small"
    asked = request("cc", inputs=[("a", data)], outputs=("o",) if is_big else (), limits=LIMITS)
    events = [e async for e in channel.exec(asked, MemoryBlobs(data))]
    return (
        sum(len(e.data) for e in events if isinstance(e, StdioEvent)),
        sum(len(e.data) for e in events if isinstance(e, OutputEvent)),
    )


async def test_much_input_and_output_and_many_small_pieces_pass() -> None:
    async with guest(talkative) as channel, asyncio.timeout(90):
        assert await compile_once(channel, is_big=True) == (PIECES, 48 * MIB)
        assert not channel.lost.done()


async def test_many_execs_after_one_another_pass() -> None:
    async def brief(stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(pb.ServerFrame(need=pb.Need()))
        while await stream.recv_message() is not None:
            pass
        await stream.send_message(pb.ServerFrame(result=pb.Result(reason=pb.Result.REASON_ENDED)))

    async with guest(brief) as channel, asyncio.timeout(90):
        for _ in range(400):
            await compile_once(channel, is_big=False)
        assert not channel.lost.done()


async def test_cancelled_execs_with_content_on_its_way_pass() -> None:
    async with guest(talkative) as channel, asyncio.timeout(90):
        for _ in range(4):
            data = b"small"
            asked = request("cc", inputs=[("a", data)], outputs=("o",), limits=LIMITS)
            events = channel.exec(asked, MemoryBlobs(data))
            async for event in events:
                if isinstance(event, OutputEvent):
                    break
            await events.aclose()
        assert await compile_once(channel, is_big=True) == (PIECES, 48 * MIB)
        assert not channel.lost.done()
