"""The admin port: shows metrics and health over HTTP, from a separate thread.

The problem: the moment when an operator wants figures is the moment when the service is busy. So a
thread with an event loop answers, and asks the service's loop only for what is read on demand. A
loop that does not answer within `ASK_SECONDS` is itself a figure: `hpcc_event_loop_up` is 0, and
all that is counted is shown as usual. Whether the service lives is known without a question: its
loop notes the time twice a second.

A client that reaches the port reads the figures; there is no login. It is off unless it is
configured, and meant for loopback or a network of operators (docs/operate.md). What comes in is
hostile all the same, and `hpcc.obs.http` bounds it.

A flood must not keep a probe out, because a kubelet restarts a service whose `/livez` fails, and
running compiles end with it. So there are separate places for `/readyz` and for `/metrics`, and
`/livez` needs none.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Final

from hpcc.obs.health.page import live_page, ready_page
from hpcc.obs.http.request import Request
from hpcc.obs.http.serve import MAX_HEAD_BYTES, BoundedServer, HttpAnswer, listen
from hpcc.obs.metrics.address import split_address
from hpcc.obs.metrics.process import process_values
from hpcc.obs.metrics.registry import Family, Kind
from hpcc.obs.metrics.service import LogCounter, ServiceMetrics
from hpcc.obs.metrics.text import CONTENT_TYPE, exposition
from hpcc.ports import Clock

_log: Final = logging.getLogger(__name__)
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
# The service's loop is asked for these. Each other answer is ready at once, and fits in a buffer
# of the kernel, so that a client that does not read holds no place.
_ASKED_OF_SERVICE: Final = frozenset({"/metrics", "/readyz", "/healthz"})


@dataclass(frozen=True, slots=True)
class AdminPage:
    """A page of one service. `read` runs in the service's loop, like what is read for metrics.

    With a `token` only its holders get the page: `Authorization: Bearer …`.
    """

    read: Callable[[], HttpAnswer]
    token: str = field(default="", repr=False)


@asynccontextmanager
async def serve_admin(
    address: str,
    metrics: ServiceMetrics,
    clock: Clock,
    pages: Mapping[str, AdminPage] | None = None,
) -> AsyncGenerator[str]:
    """Serve while the block runs; yield the address that is bound. "" serves nothing.

    `pages` are more pages by their path.

    Raises:
        CallerError: not an address.
        InfrastructureError: it cannot be bound.
    """
    if not address:
        yield ""
        return
    listener = await asyncio.to_thread(listen, "admin", *split_address("admin", address))
    port = _AdminPort(listener, metrics, clock, pages or {})
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


def _is_admitted(request: Request, page: AdminPage) -> bool:
    if not page.token:
        return True
    kind, _, shown = request.header("authorization").partition(" ")
    is_token = hmac.compare_digest(shown.strip().encode(), page.token.encode())
    return kind.lower() == "bearer" and is_token


class _AdminPort:
    """The thread with its loop. `start` and `stop` are for the service's thread."""

    def __init__(
        self,
        listener: socket.socket,
        metrics: ServiceMetrics,
        clock: Clock,
        pages: Mapping[str, AdminPage],
    ) -> None:
        self._listener, self._registry = listener, metrics.registry
        self._pages = pages
        self._read = {
            path: _Shared(partial(self._from_service, page.read)) for path, page in pages.items()
        }
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
        bounded = BoundedServer(self._page, self._place_of, loopback_only=self._is_loopback)
        server = await asyncio.start_server(
            bounded.connected, sock=self._listener, limit=MAX_HEAD_BYTES
        )
        self._is_up.set()
        try:
            await self._end.wait()
        finally:
            # Requests are cut off when `asyncio.run` cancels their tasks.
            server.close()

    def _place_of(self, request: Request) -> str:
        page = self._pages.get(request.path)
        is_asked = request.path in _ASKED_OF_SERVICE or (
            page is not None and _is_admitted(request, page)
        )
        return request.path if is_asked else ""

    async def _page(self, request: Request) -> HttpAnswer:
        if page := self._pages.get(request.path):
            return await self._more(request, page)
        match request.path:
            case "/metrics":
                return HttpAnswer(HTTPStatus.OK, await self._figures.get(), CONTENT_TYPE)
            case "/livez":
                status, text = live_page(self._clock.monotonic() - self.awake_at)
            case "/readyz" | "/healthz":
                status, text = ready_page(await self._conditions.get(), request.query)
            case _:
                names = ", ".join(("/metrics", "/livez", *self._pages))
                status, text = 404, f"here are {names} and /readyz\n"
        return HttpAnswer(HTTPStatus(status), text.encode())

    async def _more(self, request: Request, page: AdminPage) -> HttpAnswer:
        if not _is_admitted(request, page):
            asks = (("WWW-Authenticate", "Bearer"),)
            text = b"a bearer token is needed\n"
            return HttpAnswer(HTTPStatus.UNAUTHORIZED, text, headers=asks)
        answer = await self._read[request.path].get()
        if answer is None:
            text = b"the service does not answer in time\n"
            return HttpAnswer(HTTPStatus.SERVICE_UNAVAILABLE, text)
        return answer

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
