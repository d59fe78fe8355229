"""Services of this host that a machine in another network reaches at its own loopback.

Machines have no way out of their bridge. `Lender` opens a listener inside a machine's network and
connects to a port of the network that the lender's thread was made in. A site's provider, registry
and mirror of packages are such services. `Mirror` is the last one: a proxy for apt.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from hpcc_testkit.services.tcp_proxy import forward

_MIRRORS: Final = frozenset({"deb.debian.org", "security.debian.org"})
_SECONDS: Final = 60.0
_MOST_BYTES: Final = 256 << 20


def _listener(pid: int, port: int) -> socket.socket:
    """Return a socket that listens at the loopback of a process's network."""

    def open_there() -> socket.socket:
        descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            os.setns(descriptor, os.CLONE_NEWNET)
        finally:
            os.close(descriptor)
        return socket.create_server(("127.0.0.1", port))

    # The thread ends with the pool, and its network with it.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(open_there).result(_SECONDS)


class Lender:
    """Lends ports of the network in which it was entered; leaving it ends all connections."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._thread = threading.Thread(target=self._run, name="lender", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)

    def lend(self, pid: int, port: int, target: int) -> None:
        """Let the machine with this process reach `target` at its own `port`."""
        listener = _listener(pid, port)
        starts = forward("127.0.0.1", target, listener)
        server, _ = asyncio.run_coroutine_threadsafe(starts, self._loop).result(_SECONDS)
        self._servers.append(server)

    def _run(self) -> None:
        self._loop.run_forever()
        for server in self._servers:
            server.close()
        self._loop.run_until_complete(_end_all())
        self._loop.close()


async def _end_all() -> None:
    """Cancel what else runs on this loop, and let transports close their sockets."""
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=_SECONDS)
    for _ in range(2):
        await asyncio.sleep(0)


class Mirror:
    """A proxy for apt on loopback, to Debian's mirror only. It keeps packages in `directory`."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                _answer(self, directory)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _answer(handler: BaseHTTPRequestHandler, directory: Path) -> None:
    url = handler.path
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname not in _MIRRORS:
        handler.send_error(403, "this mirror has Debian's packages only")
        return
    # A package's name holds its version: its bytes do not change.
    kept = directory / hashlib.sha256(url.encode()).hexdigest()
    is_package = parts.path.endswith(".deb")
    if is_package and kept.exists():
        body = kept.read_bytes()
    else:
        try:
            with urllib.request.urlopen(url, timeout=_SECONDS) as answer:  # noqa: S310 - http, checked above
                body = answer.read(_MOST_BYTES)
        except OSError as error:
            handler.send_error(getattr(error, "code", 502))
            return
        if is_package:
            new = kept.with_name(f"{kept.name}.{os.getpid()}.{threading.get_ident()}")
            new.write_bytes(body)
            new.rename(kept)
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    with suppress(ConnectionError):
        handler.wfile.write(body)
