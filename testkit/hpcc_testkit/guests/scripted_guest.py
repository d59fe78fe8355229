"""A guest that is a script in the test's event loop, at the other end of a real warden's stream.

`scripted_guest` answers gRPC calls, `raw_guest` plays bytes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from grpclib.server import Server

from hpcc._proto.agent_grpc import AgentServiceBase
from hpcc.runtime.channel.channel import ChannelTiming, GuestChannel
from hpcc.runtime.channel.warden_launch import launch_warden
from hpcc.runtime.channel.warden_link import Launch
from hpcc.wire.link import TOKEN_BYTES, GuestLink

TOKEN: Final = b"t" * TOKEN_BYTES
_END_SECONDS: Final = 10.0

# The argument is a stream of grpclib's server, which has no types.
type Script = Callable[[Any], Awaitable[None]]
type Play = Callable[[socket.socket], Awaitable[None]]


async def welcome(sock: socket.socket) -> bytes:
    """Do the guest's part of the link handshake; return the bytes that followed it."""
    loop = asyncio.get_running_loop()
    link = GuestLink(TOKEN)
    while True:
        found = link.feed(await loop.sock_recv(sock, 65536))
        if found:
            await loop.sock_sendall(sock, found[0])
            return found[1]


@asynccontextmanager
async def raw_guest(
    play: Play, *, launch: Launch = launch_warden, timing: ChannelTiming | None = None
) -> AsyncIterator[GuestChannel]:
    """Yield a channel, not yet connected, whose guest end `play` serves."""
    before = asyncio.all_tasks()
    host, guest = socket.socketpair()
    guest.settimeout(0)
    channel = GuestChannel(host, TOKEN, launch=launch, timing=timing or ChannelTiming())

    async def player() -> None:
        await play(guest)

    task = asyncio.get_running_loop().create_task(player())
    try:
        yield channel
    finally:
        channel.close()
        task.cancel()
        await asyncio.wait([task])
        guest.close()
        others = asyncio.all_tasks() - before
        if others:
            await asyncio.wait(others, timeout=_END_SECONDS)  # a warden in this loop
        for _ in range(3):
            await asyncio.sleep(0)  # transports report their close in the next turns of the loop


class _Scripted(AgentServiceBase):
    def __init__(self, script: Script) -> None:
        self._script = script

    async def Exec(self, stream: Any) -> None:  # noqa: N802, ANN401 - the contract's name; no types
        await self._script(stream)


@asynccontextmanager
async def scripted_guest(
    script: Script, *, launch: Launch = launch_warden, timing: ChannelTiming | None = None
) -> AsyncIterator[GuestChannel]:
    """Yield a connected channel to a guest that answers each exec with `script`."""

    async def play(sock: socket.socket) -> None:
        rest = await welcome(sock)
        protocol = Server([_Scripted(script)])._protocol_factory()  # noqa: SLF001 - over our own socket
        transport, _ = await asyncio.get_running_loop().create_connection(
            lambda: protocol, sock=sock.dup()
        )
        try:
            if rest:
                protocol.data_received(rest)
            await asyncio.Event().wait()
        finally:
            transport.abort()

    async with raw_guest(play, launch=launch, timing=timing) as channel:
        await channel.connect()
        yield channel
