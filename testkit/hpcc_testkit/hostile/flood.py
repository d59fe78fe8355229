"""Holds many hostile calls at one gRPC server, from a separate process: `Flood`.

It speaks HTTP/2 itself: a stock client sends whole messages only.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

from hpcc_testkit.hostile.reporting import Reporting
from hpcc_testkit.suite.pipes import gone

MESSAGE_BYTES: Final = 16 << 20
_CALLS_OF_CONNECTION: Final = 50
_PREFIX_BYTES: Final = 5
_PIECE: Final = 16 << 10
# Calls that were ended are started again after this time. A faster caller costs CPU time, too.
_REST_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Hostile:
    """Calls that one flood holds: `count` of them at `path`, again and again as they end.

    Each announces a message of `announced` bytes and sends `sent` bytes of it; with `announced` 0
    it sends headers only. `sources` is how many loopback addresses they come from.
    """

    path: str
    count: int
    announced: int = MESSAGE_BYTES
    sent: int = MESSAGE_BYTES - 1
    headers: Mapping[str, str] = field(default_factory=dict)
    sources: int = 4


class Flood(Reporting):
    """A running flood: how many calls are open or ended by status, and how many bytes went."""


@asynccontextmanager
async def flood(host: str, port: int, *hostile: Hostile) -> AsyncGenerator[Flood]:
    """Hold hostile calls while the block runs; it begins when each was started once."""
    plan = {"host": host, "port": port, "hostile": [asdict(h) for h in hostile]}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, json.dumps(plan),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        await asyncio.wait_for(process.stdout.readline(), 120)
        yield Flood(process)
    finally:
        process.kill()
        await gone(process)


class _Attacker:
    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self.counts: Counter[str] = Counter()
        self._started = 0
        self._changed = asyncio.Condition()

    async def all_started(self, wanted: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._started >= wanted)

    async def _note(self, calls: int) -> None:
        async with self._changed:
            self._started += calls
            self._changed.notify_all()

    async def hold(self, hostile: Hostile, calls: int, source: str) -> None:
        """Keep a connection with this many calls until cancelled."""
        is_first = True
        while True:
            with suppress(OSError, ProtocolError, ssl.SSLError, asyncio.IncompleteReadError):
                await self._hold_once(hostile, calls, source, is_first=is_first)
                is_first = False
            self.counts["connections ended"] += 1
            if is_first:
                await self._note(calls)
                is_first = False
            await asyncio.sleep(_REST_SECONDS)

    async def _hold_once(
        self, hostile: Hostile, calls: int, source: str, *, is_first: bool
    ) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        reader, writer = await asyncio.open_connection(
            self._host, self._port, ssl=context, local_addr=(source, 0)
        )
        held = _Held(hostile, self.counts)
        try:
            held.open(calls)
            writer.write(held.h2.data_to_send())
            if is_first:
                await self._note(calls)
            now = asyncio.get_running_loop().time
            opened_at = now()
            while not reader.at_eof():
                with suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        held.receive(await reader.read(1 << 16))
                if now() - opened_at >= _REST_SECONDS:
                    opened_at = now()
                    held.open(calls - len(held.left))
                held.pump()
                writer.write(held.h2.data_to_send())
                await writer.drain()
        finally:
            self.counts["open"] -= len(held.left)
            writer.close()


class _Held:
    """The calls of one connection: which are open, and how many bytes each has still to send."""

    def __init__(self, hostile: Hostile, counts: Counter[str]) -> None:
        self._hostile, self._counts = hostile, counts
        self.h2 = H2Connection(H2Configuration(client_side=True))
        self.h2.initiate_connection()
        self.left: dict[int, int] = {}

    def open(self, calls: int) -> None:
        limit = self.h2.remote_settings.max_concurrent_streams
        for _ in range(min(calls, limit - self.h2.open_outbound_streams)):
            stream = self.h2.get_next_available_stream_id()
            self.h2.send_headers(
                stream,
                [
                    (":method", "POST"),
                    (":scheme", "https"),
                    (":path", self._hostile.path),
                    (":authority", "hostile"),
                    ("content-type", "application/grpc"),
                    ("te", "trailers"),
                    *self._hostile.headers.items(),
                ],
            )
            self.left[stream] = self._hostile.sent
            self._counts["open"] += 1
            self._counts["calls"] += 1
            if self._hostile.announced:
                size = self._hostile.announced.to_bytes(_PREFIX_BYTES - 1, "big")
                self.h2.send_data(stream, b"\0" + size)
        self.pump()

    def pump(self) -> None:
        """Send as much of each message as the server takes."""
        if not self._hostile.announced:
            return
        for stream, unsent in self.left.items():
            left = unsent
            while left > 0:
                size = min(left, _PIECE, self.h2.local_flow_control_window(stream))
                if size <= 0:
                    break
                self.h2.send_data(stream, b"\x08" * size)
                self._counts["bytes"] += size
                left -= size
            self.left[stream] = left

    def receive(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            match event:
                case TrailersReceived() | ResponseReceived():
                    for name, value in event.headers:
                        if name == b"grpc-status":
                            self._counts[f"status {value.decode()}"] += 1
                case StreamEnded() | StreamReset():
                    assert event.stream_id is not None
                    if self.left.pop(event.stream_id, None) is not None:
                        self._counts["open"] -= 1
                case DataReceived():
                    self.h2.acknowledge_received_data(
                        event.flow_controlled_length or 0, event.stream_id or 0
                    )
                case ConnectionTerminated():
                    raise ConnectionResetError
                case _:
                    pass


async def _main(plan: dict[str, Any]) -> None:
    attacker = _Attacker(plan["host"], plan["port"])
    async with asyncio.TaskGroup() as group:
        wanted = 0
        for number, described in enumerate(plan["hostile"]):
            hostile = Hostile(**described)
            wanted += hostile.count
            for index, at in enumerate(range(0, hostile.count, _CALLS_OF_CONNECTION)):
                source = f"127.0.{number + 1}.{index % hostile.sources + 1}"
                calls = min(_CALLS_OF_CONNECTION, hostile.count - at)
                group.create_task(attacker.hold(hostile, calls, source))
        await attacker.all_started(wanted)
        print(json.dumps({"started": wanted}), flush=True)
        # One line on standard input asks for a report.
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(attacker.counts), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(json.loads(sys.argv[1])))
