"""The handshake that starts the one session of a stream."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from hpcc.wire.link import READY, GuestLink


class Greeter(asyncio.Protocol):
    """Sends READY, waits for HELLO, answers WELCOME, and gives the transport to the session.

    `on_session` receives the transport then; `on_lost` is called if the stream ends before.
    """

    def __init__(
        self,
        link: GuestLink,
        session: Callable[[], asyncio.Protocol],
        on_session: Callable[[asyncio.Transport], object] = lambda _: None,
        on_lost: Callable[[Exception | None], object] = lambda _: None,
    ) -> None:
        self._link, self._session, self._on_session = link, session, on_session
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(READY)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        found = self._link.feed(data)
        if found is None:
            return
        welcome, rest = found
        session = self._session()
        self._on_session(self._transport)
        self._transport.set_protocol(session)
        self._transport.write(welcome)
        session.connection_made(self._transport)
        if rest:
            session.data_received(rest)

    def connection_lost(self, exc: Exception | None) -> None:
        print("hpcc-agent: no session:", exc, file=sys.stderr)  # noqa: T201 - the guest's console is its log
        self._on_lost(exc)
