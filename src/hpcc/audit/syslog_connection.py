"""Connects to a syslog server; neither DNS nor a machine that vanished holds a service up.

asyncio asks DNS in the threads that also write the trail, and Python waits for each of them at its
end. A resolver that hangs would take one thread after another. So one thread asks at a time, and
nobody waits for its end.

A machine that loses its power does not end its connections, and for a quarter of an hour the system
takes what is sent to it. So it ends a connection that acknowledges nothing for half a minute.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

_SECONDS: Final = 10.0
_MAX_ADDRESSES: Final = 4
SILENT_SECONDS: Final = 30
# Names that the system may lack. Keepalive also notices a dead connection that nothing was sent on.
_OPTIONS: Final = (
    ("TCP_KEEPIDLE", SILENT_SECONDS), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", SILENT_SECONDS * 1000),
)  # fmt: skip


class AddressLookup:
    """Asks for the addresses of one host, with one thread at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._asking: asyncio.Future[list[str]] | None = None

    async def addresses(self) -> list[str]:
        """Return at most a few addresses, the preferred one first.

        Raises:
            OSError: the name has none, or there was no answer in time.
            ValueError: no name can be so.
        """
        if self._asking is None:
            loop = asyncio.get_running_loop()
            asking = loop.create_future()
            asking.add_done_callback(self._answered)
            thread = threading.Thread(
                target=self._ask, args=(loop, asking), name="syslog lookup", daemon=True
            )
            thread.start()  # before it counts: a machine may have no thread left
            self._asking = asking
        async with asyncio.timeout(_SECONDS):
            return await asyncio.shield(self._asking)

    def _answered(self, asking: asyncio.Future[list[str]]) -> None:
        self._asking = None
        # Read, so that asyncio does not report it if nobody waited.
        _ = asking.cancelled() or asking.exception()

    def _ask(self, loop: asyncio.AbstractEventLoop, asking: asyncio.Future[list[str]]) -> None:
        give: Callable[[], None]
        try:
            answers = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
            give = partial(asking.set_result, found[:_MAX_ADDRESSES])
        except Exception as error:  # noqa: BLE001 - the root of a thread: who waits gets it
            give = partial(asking.set_exception, error)
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(give)


async def connect(
    lookup: AddressLookup, host: str, port: int, context: ssl.SSLContext
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection to the first address that is reached and proves to be `host`.

    Raises:
        OSError: there is none, or the last one failed so; also ssl.SSLError.
        ValueError: no name can be so.
    """
    failure: Exception = socket.gaierror(socket.EAI_NONAME, "no address")
    for address in await lookup.addresses():
        try:
            async with asyncio.timeout(_SECONDS):
                reader, writer = await asyncio.open_connection(
                    address, port, ssl=context, server_hostname=host
                )
        except (OSError, ValueError) as error:
            failure = error
            continue
        end_when_silent(writer.get_extra_info("socket"))
        return reader, writer
    raise failure


def end_when_silent(connection: socket.socket) -> None:
    """Let the system end a connection whose other side acknowledges nothing."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS:
        option = getattr(socket, name, None)
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
