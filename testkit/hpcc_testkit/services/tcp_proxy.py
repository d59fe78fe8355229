"""A TCP proxy on loopback between a client and a real server; a test controls its network.

Open `tcp_proxy` and set the fields of the `Proxy` that it yields.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

_CHUNK: Final = 16 << 10


@dataclass(slots=True)
class Proxy:
    """How bytes are handled; a test may change it while connections are open.

    `is_stalled`: no bytes move in either direction and new connections get no answer.
    `cut_up_after`, `cut_down_after`: a connection ends when so many bytes have gone to, or come
    from, the server.
    """

    host: str = "127.0.0.1"
    port: int = 0
    is_stalled: bool = False
    cut_up_after: int | None = None
    cut_down_after: int | None = None
    connections: int = 0
    _moves: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def stall(self) -> None:
        self.is_stalled = True
        self._moves.clear()

    def resume(self) -> None:
        self.is_stalled = False
        self._moves.set()

    async def _serve(
        self,
        target: tuple[str, int],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.connections += 1
        try:
            up_reader, up_writer = await asyncio.open_connection(*target)
        except OSError:
            writer.transport.abort()
            return
        up = asyncio.ensure_future(self._copy(reader, up_writer, is_up=True))
        down = asyncio.ensure_future(self._copy(up_reader, writer, is_up=False))
        try:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (up, down):
                task.cancel()
            for side in (writer, up_writer):
                side.close()
                side.transport.abort()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_up: bool
    ) -> None:
        moved = 0
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._moves.wait()
                limit = self.cut_up_after if is_up else self.cut_down_after
                moved += len(data)
                if limit is not None and moved > limit:
                    writer.write(data[: max(0, len(data) - (moved - limit))])
                    await writer.drain()
                    return
                writer.write(data)
                await writer.drain()


async def forward(
    host: str, port: int, listener: socket.socket, proxy: Proxy | None = None
) -> tuple[asyncio.Server, set[asyncio.Task[None]]]:
    """Forward the connections of a listening socket to host and port; return what does it."""
    if proxy is None:
        proxy = Proxy()
        proxy.resume()
    tasks: set[asyncio.Task[None]] = set()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(proxy._serve((host, port), reader, writer))  # noqa: SLF001 - this module's
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return await asyncio.start_server(serve, sock=listener), tasks


@asynccontextmanager
async def tcp_proxy(host: str, port: int) -> AsyncIterator[Proxy]:
    """Forward to host and port while the block runs."""
    proxy = Proxy()
    proxy.resume()
    listener = socket.create_server((proxy.host, 0))
    server, tasks = await forward(host, port, listener, proxy)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in [*tasks]:
            task.cancel()
        if tasks:
            await asyncio.wait([*tasks], timeout=10)
