"""A TCP proxy before an S3 server: counts requests and bytes, and delays both directions.

The delay is half of a round trip for each piece, in order and without a limit on bytes in flight. A
connection's own handshake is delayed only by the kernel's netem, which `remote_cache.py` uses where
the kernel has it.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

_CHUNK: Final = 64 << 10
# The first line of a request. A body that holds one is not likely: bodies are compressed.
_REQUEST: Final = re.compile(rb"(?:GET|PUT|HEAD|POST|DELETE) \S{1,2000} HTTP/1\.1\r\n")


@dataclass(slots=True)
class Traffic:
    """What has gone through. `delay_seconds` is that of one direction."""

    port: int = 0
    delay_seconds: float = 0.0
    requests: int = 0
    connections: int = 0
    up_bytes: int = 0
    down_bytes: int = 0

    def counts(self) -> dict[str, int]:
        return {
            "requests": self.requests,
            "connections": self.connections,
            "up_bytes": self.up_bytes,
            "down_bytes": self.down_bytes,
        }


@contextmanager
def counting_proxy(target: int) -> Iterator[Traffic]:
    """Run a proxy to a port of this machine in a thread until the block ends."""
    traffic, loop, ready = Traffic(), asyncio.new_event_loop(), threading.Event()

    async def serve() -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _serve(traffic, target, reader, writer)

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        traffic.port = server.sockets[0].getsockname()[1]
        ready.set()

    def run() -> None:
        loop.run_until_complete(serve())
        loop.run_forever()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield traffic
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _serve(
    traffic: Traffic, target: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    traffic.connections += 1
    up_reader, up_writer = await asyncio.open_connection("127.0.0.1", target)
    ways = [
        asyncio.ensure_future(_copy(traffic, reader, up_writer, is_up=True)),
        asyncio.ensure_future(_copy(traffic, up_reader, writer, is_up=False)),
    ]
    try:
        await asyncio.wait(ways)
    finally:
        for way in ways:
            way.cancel()
        for end in (writer, up_writer):
            with suppress(OSError, RuntimeError):
                end.close()


async def _copy(
    traffic: Traffic, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_up: bool
) -> None:
    """Copy until the end; pieces wait in a queue, so a delay does not limit what is in flight."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            due, piece = await queue.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not piece:
                with suppress(OSError):
                    sink.write_eof()
                return
            sink.write(piece)
            await sink.drain()

    delivery = asyncio.ensure_future(deliver())
    try:
        with suppress(OSError):
            while piece := await source.read(_CHUNK):
                if is_up:
                    traffic.up_bytes += len(piece)
                    traffic.requests += len(_REQUEST.findall(piece))
                else:
                    traffic.down_bytes += len(piece)
                queue.put_nowait((loop.time() + traffic.delay_seconds, piece))
        queue.put_nowait((loop.time() + traffic.delay_seconds, b""))
        with suppress(OSError):
            await delivery
    finally:
        delivery.cancel()
