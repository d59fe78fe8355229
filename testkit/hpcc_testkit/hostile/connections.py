"""Holds and opens many connections at one TLS server from one address, in a separate process.

They are three kinds: connections that send nothing, connections that finish their TLS handshake
and send nothing after it, and ones that are closed after the handshake, without end. What the
server ends is opened again.
"""

from __future__ import annotations

import asyncio
import json
import resource
import ssl
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

from hpcc_testkit.hostile.reporting import Reporting
from hpcc_testkit.suite.pipes import gone

_CONNECT_SECONDS: Final = 5.0
_HANDSHAKE_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Connections from the address `source`: how many of each kind at once."""

    port: int
    source: str
    silent: int = 0
    shaken: int = 0
    churning: int = 0


class RunningCrowd(Reporting):
    """A running crowd: how many connections were made, failed or ended, and are open now."""


@asynccontextmanager
async def crowd(asked: Crowd) -> AsyncGenerator[RunningCrowd]:
    """Connect while the block runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, json.dumps(asdict(asked)),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield RunningCrowd(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await gone(process)


class _Connections:
    def __init__(self, asked: Crowd) -> None:
        self._asked, self.counts = asked, Counter[str]()
        self._tls = ssl.create_default_context()
        self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE
        self._tls.set_alpn_protocols(["h2"])

    async def run(self) -> None:
        asked = self._asked
        async with asyncio.TaskGroup() as group:
            for is_shaken, is_held, count in (
                (False, True, asked.silent),
                (True, True, asked.shaken),
                (True, False, asked.churning),
            ):
                for _ in range(count):
                    group.create_task(self._again(is_shaken=is_shaken, is_held=is_held))

    async def _again(self, *, is_shaken: bool, is_held: bool) -> None:
        while True:
            try:
                await self._one(is_shaken=is_shaken, is_held=is_held)
            except TimeoutError:
                self.counts["unanswered"] += 1
            except (OSError, ssl.SSLError):
                self.counts["ended"] += 1

    async def _one(self, *, is_shaken: bool, is_held: bool) -> None:
        async with asyncio.timeout(_CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self._asked.port, local_addr=(self._asked.source, 0)
            )
        self.counts["connected"] += 1
        self.counts["open"] += 1
        try:
            if is_shaken:
                async with asyncio.timeout(_HANDSHAKE_SECONDS):
                    await writer.start_tls(self._tls)
                self.counts["handshakes"] += 1
            if is_held:
                while await reader.read(1 << 16):
                    continue
                self.counts["ended"] += 1
        finally:
            self.counts["open"] -= 1
            writer.transport.abort()


async def _main(asked: dict[str, Any]) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    connections = _Connections(Crowd(**asked))
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    async with asyncio.TaskGroup() as group:
        group.create_task(connections.run())
        while await commands.readline():
            sys.stdout.write(json.dumps(connections.counts) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main(json.loads(sys.argv[1])))
