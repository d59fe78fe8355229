"""Answers connections with one request each, inside limits."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, NamedTuple

from hpcc.core import InfrastructureError
from hpcc.obs.http.request import Request, read_request

_log: Final = logging.getLogger(__name__)
MAX_HEAD_BYTES: Final = 8 << 10
MAX_CONNECTIONS: Final = 16
_BACKLOG: Final = 16
REQUEST_SECONDS: Final = 5.0
PLAIN: Final = "text/plain; charset=utf-8"


class HttpAnswer(NamedTuple):
    """What one request gets. The server adds length, `nosniff` and the end of the connection."""

    status: HTTPStatus
    body: bytes
    kind: str = PLAIN
    headers: tuple[tuple[str, str], ...] = ()


class BoundedServer:
    """Serves connections of `asyncio.start_server`, whose limit must be `MAX_HEAD_BYTES`.

    A request has `REQUEST_SECONDS` for its head. Its answer has the rest of them, or
    `answer_seconds` if they are given. `always` are headers of each answer, refusals too.

    `place_of` names what a request waits for; each name has `MAX_CONNECTIONS` places. "" needs no
    place: its answer is ready at once, and fits in a buffer of the kernel, so that a client that
    does not read holds nothing. Those who have not sent a request have as many places. When these
    are full, one more ends the connection that has been silent for the longest time.
    """

    def __init__(
        self,
        answer: Callable[[Request], Awaitable[HttpAnswer]],
        place_of: Callable[[Request], str],
        *,
        loopback_only: bool,
        answer_seconds: float | None = None,
        always: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self._answer, self._place_of = answer, place_of
        self._loopback_only, self._always = loopback_only, always
        self._answer_seconds = answer_seconds
        # Tasks of connections without a whole request, the oldest first.
        self._silent: dict[asyncio.Task[None], None] = {}
        # How many connections wait for something, or read it.
        self._asking = Counter[str]()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and end the connection."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS) as limit:
                head = await self._head(reader)
                if self._answer_seconds is not None:
                    limit.reschedule(asyncio.get_running_loop().time() + self._answer_seconds)
                request = read_request(head, loopback_only=self._loopback_only)
                await self._serve(request, writer)
        except (TimeoutError, asyncio.IncompleteReadError, OSError):
            return  # too slow, or gone
        finally:
            # Also drops what a slow reader has left in the buffer.
            writer.transport.abort()

    async def _head(self, reader: asyncio.StreamReader) -> bytes:
        """Return a request up to its empty line; b"" for one that is too long."""
        # The loop reads what came with the connection: a probe is never silent.
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        if len(self._silent) >= MAX_CONNECTIONS:
            oldest = next(iter(self._silent))
            del self._silent[oldest]
            oldest.cancel()
        self._silent[task] = None
        try:
            return await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return b""
        finally:
            self._silent.pop(task, None)

    async def _serve(self, request: Request | HTTPStatus, writer: asyncio.StreamWriter) -> None:
        place = self._place_of(request) if isinstance(request, Request) else ""
        if not place:
            await self._write(request, writer)
        elif self._asking[place] < MAX_CONNECTIONS:
            self._asking[place] += 1
            try:
                await self._write(request, writer)
            finally:
                self._asking[place] -= 1

    async def _write(self, request: Request | HTTPStatus, writer: asyncio.StreamWriter) -> None:
        writer.write(await self._bytes(request))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def _bytes(self, request: Request | HTTPStatus) -> bytes:
        if isinstance(request, HTTPStatus):
            answer = HttpAnswer(request, f"{request.phrase}\n".encode())
        else:
            try:
                answer = await self._answer(request)
            except Exception:  # noqa: BLE001 - the root of a request: the next one may succeed
                _log.exception("a page cannot be shown")
                text = b"see the log of the service\n"
                answer = HttpAnswer(HTTPStatus.INTERNAL_SERVER_ERROR, text)
        lines = (
            f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
            f"Content-Type: {answer.kind}",
            f"Content-Length: {len(answer.body)}",
            "X-Content-Type-Options: nosniff",
            *(f"{name}: {value}" for name, value in (*self._always, *answer.headers)),
            "Connection: close",
        )
        is_head = isinstance(request, Request) and request.is_head
        return "\r\n".join((*lines, "", "")).encode("ascii") + (b"" if is_head else answer.body)


def listen(name: str, host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 lets the system choose.

    Raises:
        InfrastructureError: it cannot be bound (reason `listen`).
    """
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        try:
            if sys.platform != "win32":  # there it would let another process take the port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise InfrastructureError(
            f"{name}: cannot listen on {address}: {error.strerror or error}", reason="listen"
        ) from error
    return listener
