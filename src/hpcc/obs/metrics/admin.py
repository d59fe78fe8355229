"""The admin port: shows metrics and health over HTTP, from a separate thread.

The problem: the moment when an operator wants figures is the moment when the service is busy. So a
thread with an event loop answers, and asks the service's loop only for what is read on demand. A
loop that does not answer within `ASK_SECONDS` is itself a figure: `hpcc_event_loop_up` is 0, and
all that is counted is shown as usual. Whether the service lives is known without a question: its
loop notes the time twice a second.

A client that reaches the port reads the figures; there is no login. It is off unless it is
configured, and meant for loopback or a network of operators (docs/operate.md). What comes in is
hostile all the same: a request has at most 8 KiB and five seconds, few are served at once, none has
a body, and a page in a browser on this machine cannot read loopback under a name that it made up.

A flood must not keep a probe out, because a kubelet restarts a service whose `/livez` fails, and
running compiles end with it. So there are separate places for those who have not sent a request,
for `/readyz` and for `/metrics`, and `/livez` needs none. When the first are full, one more ends
the connection that has been silent for the longest time: a probe sends its request at once.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

from hpcc.core import InfrastructureError
from hpcc.core.endpoints import is_loopback
from hpcc.obs.health.page import live_page, ready_page
from hpcc.obs.metrics.address import split_address
from hpcc.obs.metrics.process import process_values
from hpcc.obs.metrics.registry import Family, Kind
from hpcc.obs.metrics.service import LogCounter, ServiceMetrics
from hpcc.obs.metrics.text import CONTENT_TYPE, exposition
from hpcc.ports import Clock

_log: Final = logging.getLogger(__name__)
_MAX_HEAD_BYTES: Final = 8 << 10
_MAX_CONNECTIONS: Final = 16
_BACKLOG: Final = 16
_REQUEST_SECONDS: Final = 5.0
ASK_SECONDS: Final = 2.0
# The service's loop is asked at most so often for one page, whatever comes. All who asked meanwhile
# get the same answer.
_PAUSE_SECONDS: Final = 0.05
_LAG_SECONDS: Final = 0.5
_JOIN_SECONDS: Final = 5.0
UP: Final = Family(
    name="hpcc_event_loop_up",
    kind=Kind.GAUGE,
    text="Whether the service answered in time when it was asked for these figures.",
    labels=(),
    most=1,
)
_OK: Final = 200
_PHRASES: Final = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed",
    421: "Misdirected Request", 500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip
# The service's loop is asked for these. Each other answer is ready at once, and fits in a buffer
# of the kernel, so that a client that does not read holds no place.
_ASKED_OF_SERVICE: Final = frozenset({"/metrics", "/readyz", "/healthz"})
# Status, target and whether it is HEAD.
type _Request = tuple[int, str, bool]
_PLAIN: Final = "text/plain; charset=utf-8"


@asynccontextmanager
async def serve_admin(address: str, metrics: ServiceMetrics, clock: Clock) -> AsyncGenerator[str]:
    """Serve while the block runs; yield the address that is bound. "" serves nothing.

    Raises:
        CallerError: not an address.
        InfrastructureError: it cannot be bound.
    """
    if not address:
        yield ""
        return
    listener = await asyncio.to_thread(_listen, address)
    port = _AdminPort(listener, metrics, clock)
    port.start()
    counter = LogCounter(metrics)
    logging.getLogger().addHandler(counter)

    def awake(late_seconds: float) -> None:
        port.awake_at = clock.monotonic()
        metrics.loop_lag.observe(late_seconds)

    lag = asyncio.Task(_watch_lag(clock, awake), name="loop lag")
    try:
        yield port.address
    finally:
        logging.getLogger().removeHandler(counter)
        lag.cancel()
        with suppress(asyncio.CancelledError):
            await lag
        await asyncio.to_thread(port.stop)


def _listen(address: str) -> socket.socket:
    host, port = split_address("admin", address)
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
        raise InfrastructureError(
            f"admin: cannot listen on {address}: {error.strerror or error}", reason="listen"
        ) from error
    return listener


async def _watch_lag(clock: Clock, observe: Callable[[float], None]) -> None:
    while True:
        asleep = clock.monotonic()
        await clock.sleep(_LAG_SECONDS)
        observe(clock.monotonic() - asleep - _LAG_SECONDS)


class _Shared[T]:
    """Reads something for all who wait, at most once in `_PAUSE_SECONDS`.

    What they get was read after they had asked.
    """

    def __init__(self, read: Callable[[], Coroutine[None, None, T]]) -> None:
        self._read, self._read_at = read, float("-inf")
        self._next: asyncio.Task[T] | None = None

    async def get(self) -> T:
        if self._next is None:
            self._next = asyncio.Task(self._read_next())
        # One who leaves does not end it for the others.
        return await asyncio.shield(self._next)

    async def _read_next(self) -> T:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._read_at + _PAUSE_SECONDS - loop.time())
        self._next, self._read_at = None, loop.time()
        return await self._read()


class _AdminPort:
    """The thread with its loop. `start` and `stop` are for the service's thread."""

    def __init__(self, listener: socket.socket, metrics: ServiceMetrics, clock: Clock) -> None:
        self._listener, self._registry = listener, metrics.registry
        self._health, self._clock = metrics.health, clock
        # When the service's loop ran last.
        self.awake_at = clock.monotonic()
        host, port = listener.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._is_loopback = ipaddress.ip_address(host).is_loopback
        self._service = asyncio.get_running_loop()
        self._own: asyncio.AbstractEventLoop | None = None
        self._end = asyncio.Event()
        self._is_up = threading.Event()
        # Tasks of connections without a whole request, the oldest first.
        self._silent: dict[asyncio.Task[None], None] = {}
        # How many connections wait for one of these pages, or read it.
        self._asking = dict.fromkeys(_ASKED_OF_SERVICE, 0)
        self._figures = _Shared(self._exposed)
        self._conditions = _Shared(partial(self._from_service, self._health.conditions))
        self._thread = threading.Thread(target=self._run, name="hpcc-admin", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._is_up.wait()

    def stop(self) -> None:
        """End the thread; a request that is answered now is cut off."""
        if self._own is not None:
            with suppress(RuntimeError):  # its loop has ended
                self._own.call_soon_threadsafe(self._end.set)
        self._thread.join(_JOIN_SECONDS)
        self._listener.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:  # noqa: BLE001 - the root of a thread: the service goes on without figures
            _log.exception("the admin port has ended")
        finally:
            self._is_up.set()

    async def _serve(self) -> None:
        self._own = asyncio.get_running_loop()
        server = await asyncio.start_server(
            self._connected, sock=self._listener, limit=_MAX_HEAD_BYTES
        )
        self._is_up.set()
        try:
            await self._end.wait()
        finally:
            # Requests are cut off when `asyncio.run` cancels their tasks.
            server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                head = await self._head(reader)
                request = read_request(head, loopback_only=self._is_loopback)
                await self._serve_request(request, writer)
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
        if len(self._silent) >= _MAX_CONNECTIONS:
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

    async def _serve_request(self, request: _Request, writer: asyncio.StreamWriter) -> None:
        path = request[1].partition("?")[0]
        if path not in self._asking:
            await self._write(request, writer)
        elif self._asking[path] < _MAX_CONNECTIONS:
            self._asking[path] += 1
            try:
                await self._write(request, writer)
            finally:
                self._asking[path] -= 1

    async def _write(self, request: _Request, writer: asyncio.StreamWriter) -> None:
        writer.write(await self._answer(request))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def _answer(self, request: _Request) -> bytes:
        status, target, is_head = request
        body, kind = f"{_PHRASES[status]}\n".encode(), _PLAIN
        if status == _OK:
            try:
                status, body, kind = await self._page(*target.partition("?")[::2])
            except Exception:  # noqa: BLE001 - the root of a request: the next one may succeed
                _log.exception("%s cannot be shown", target.partition("?")[0])
                status, body = 500, b"see the log of the service\n"
        lines = (
            f"HTTP/1.1 {status} {_PHRASES[status]}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "X-Content-Type-Options: nosniff",
            "Connection: close",
        )
        return "\r\n".join((*lines, "", "")).encode() + (b"" if is_head else body)

    async def _page(self, path: str, query: str) -> tuple[int, bytes, str]:
        match path:
            case "/metrics":
                return _OK, await self._figures.get(), CONTENT_TYPE
            case "/livez":
                status, text = live_page(self._clock.monotonic() - self.awake_at)
            case "/readyz" | "/healthz":
                status, text = ready_page(await self._conditions.get(), query)
            case _:
                status, text = 404, "here are /metrics, /livez and /readyz\n"
        return status, text.encode(), _PLAIN

    async def _exposed(self) -> bytes:
        asked = await self._from_service(self._registry.ask)
        extra = ((UP, float(asked is not None)), *process_values())
        return exposition(self._registry, asked or {}, extra)

    async def _from_service[T](self, read: Callable[[], T]) -> T | None:
        """Read something in the service's loop; None if that does not answer in time."""

        async def ask() -> T:
            return read()

        future = asyncio.run_coroutine_threadsafe(ask(), self._service)
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            return None


def read_request(head: bytes, *, loopback_only: bool) -> _Request:
    """Return status, target and whether it is HEAD, from a request up to its empty line.

    With `loopback_only` the host must be a name of this machine. A page from elsewhere can make a
    browser here ask a name of the page's own that leads to 127.0.0.1; then it reads the answer.
    """
    first, *fields = head.decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    target, _, version = rest.partition(" ")
    hosts = [v.strip() for n, _, v in (f.partition(":") for f in fields) if n.lower() == "host"]
    if not target.startswith("/") or version not in {"HTTP/1.0", "HTTP/1.1"}:
        return 400, "", False
    if len(hosts) != 1:
        return 400, "", False
    if method not in {"GET", "HEAD"}:
        return 405, "", False
    if loopback_only and not is_loopback(_host_of(hosts[0])):
        return 421, "", False
    return _OK, target, method == "HEAD"


def _host_of(text: str) -> str:
    """Return the host of `host:port`, `host`, `[v6]:port` or `[v6]`."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].lower()
