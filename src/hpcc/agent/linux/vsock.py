"""Serves the one session of a guest whose channel is vsock."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Final

from hpcc.agent.base.greeter import Greeter
from hpcc.agent.linux.port import PortTransport

_BACKLOG: Final = 4
# The host connects at most twice: to check that a guest is ready, and for its session.
_MAX_CONNECTIONS: Final = 16


def listen(port: int) -> socket.socket:
    """Listen for the host on a vsock port."""
    listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    listener.bind((socket.VMADDR_CID_ANY, port))
    listener.listen(_BACKLOG)
    listener.settimeout(0)
    return listener


async def accept_from_host(listener: socket.socket) -> int:
    """Return the descriptor of the host's next connection, non-blocking."""
    loop = asyncio.get_running_loop()
    while True:
        connection, (cid, _) = await loop.sock_accept(listener)
        connection.settimeout(0)
        if cid == socket.VMADDR_CID_HOST:
            return connection.detach()
        connection.close()


async def session_of_host(
    listener: socket.socket, greet: Callable[[Callable[[asyncio.Transport], None]], Greeter]
) -> PortTransport:
    """Accept connections until one starts its session, then close the listener and the others.

    `greet` makes a connection's greeter, which must call its argument when the session starts. A
    connection without a session may end, or be cut when a snapshot is taken; the next one works.
    """
    loop = asyncio.get_running_loop()
    begun: asyncio.Future[asyncio.Transport] = loop.create_future()

    def begin(transport: asyncio.Transport) -> None:
        if begun.done():
            transport.abort()
        else:
            begun.set_result(transport)

    transports: list[PortTransport] = []
    accepting = loop.create_task(_accept(listener, greet, begin, transports))
    ends: list[asyncio.Task[None] | asyncio.Future[asyncio.Transport]] = [accepting, begun]
    with closing(listener):
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        accepting.cancel()
        await asyncio.wait([accepting])
    if not begun.done():
        accepting.result()
    chosen = begun.result()
    for transport in transports:
        if transport is not chosen:
            transport.abort()
    return next(t for t in transports if t is chosen)


async def _accept(
    listener: socket.socket,
    greet: Callable[[Callable[[asyncio.Transport], None]], Greeter],
    begin: Callable[[asyncio.Transport], None],
    transports: list[PortTransport],
) -> None:
    loop = asyncio.get_running_loop()
    while len(transports) < _MAX_CONNECTIONS:
        fd = await accept_from_host(listener)
        transport = PortTransport(loop, fd, greet(begin))
        transport.ended.add_done_callback(partial(_close, fd))
        transports.append(transport)
    raise ConnectionError("connections without a session")


def _close(fd: int, _: object) -> None:
    os.close(fd)
