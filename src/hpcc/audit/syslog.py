"""Sends security events to a syslog server over TLS, beside the trail.

The trail is the evidence; syslog is how a SIEM hears of it at once. So syslog may lose what the
trail keeps, and never the other way round: `put` takes a place in a queue or counts a loss, and no
caller waits for a server that is slow, absent, or not the one that its name promises.

Syslog has no acknowledgement. What was handed to a connection counts as sent, so a server that
dies can lose the last few; an event whose sending failed is sent again on the next connection, and
may arrive twice.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from hpcc.audit.syslog_connection import AddressLookup, connect
from hpcc.audit.syslog_message import SyslogSource, framed
from hpcc.audit.syslog_target import SyslogTarget
from hpcc.obs.faults import connection_fault
from hpcc.obs.metrics.service import ServiceMetrics
from hpcc.ports import Clock, SecurityEvent

_log: Final = logging.getLogger(__name__)
# Of at most 8 KiB each. A limiter passes on 20 a second of each kind.
MAX_WAITING: Final = 1024
_SECONDS: Final = 10.0
_RETRY_SECONDS: Final = 1.0
_MAX_RETRY_SECONDS: Final = 60.0
_REFUSAL_SECONDS: Final = 0.2
_REFUSED: Final = "it ends the connection at once: does it want syslog_certificate?"
# For what waits when the service ends.
_FLUSH_SECONDS: Final = 2.0


class SyslogExport:
    """The queue and its connection. `put` and `run` belong to one event loop."""

    def __init__(
        self, target: SyslogTarget, context: ssl.SSLContext, source: SyslogSource, clock: Clock
    ) -> None:
        self._target, self._context, self._source = target, context, source
        self._clock = clock
        self._place = f"{target.host}:{target.port}"
        self._lookup = AddressLookup(target.host, target.port)
        self._waiting: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        # Lost since the last one that was queued.
        self._lost = 0
        self._is_troubled = False
        self.sent = self.dropped = 0

    def put(self, event: SecurityEvent) -> None:
        """Queue an event, or count it as dropped; the next queued one carries the number."""
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            self._lost += 1
            return
        self._waiting.append(framed(self._source, event, dropped=self._lost))
        self._lost = 0
        self._idle.clear()
        self._news.set()

    def show(self, metrics: ServiceMetrics) -> None:
        """Let the service's metrics read what was sent and dropped."""
        metrics.syslog_events.read = lambda: [
            (("sent",), self.sent), (("dropped",), self.dropped),
        ]  # fmt: skip

    async def wait_sent(self) -> None:
        """Wait until the queue is empty."""
        await self._idle.wait()

    def ended(self) -> None:
        """Log how many events were not sent, as the service ends."""
        if self._waiting:
            count = len(self._waiting)
            _log.warning("syslog at %s did not get the last %d events", self._place, count)

    async def run(self) -> None:
        """Send until cancelled; connect at once, so that a wrong setting shows in the log."""
        delay = _RETRY_SECONDS
        while True:
            before = self.sent
            try:
                await self._connected()
                if self.sent != before:
                    delay = _RETRY_SECONDS
            except Exception as error:  # noqa: BLE001 - the root of a task: TLS, DNS; it goes on
                self._complain(error)
            await self._clock.sleep(delay)
            delay = min(delay * 2, _MAX_RETRY_SECONDS)
            await self._news.wait()

    def _complain(self, error: Exception) -> None:
        if not self._is_troubled:
            what = connection_fault(error) or type(error).__name__
            _log.warning("syslog at %s takes no security events: %s", self._place, what)
        self._is_troubled = True

    async def _connected(self) -> None:
        target = self._target
        reader, writer = await connect(self._lookup, target.host, target.port, self._context)
        # A drain returns when the TLS layer has passed on all. asyncio's takes 0 for a full buffer.
        writer.transport.set_write_buffer_limits(high=1, low=0)
        # A server never says anything: what arrives is its end, or a breach of the protocol.
        ending = asyncio.Task(reader.read(1), name="syslog server")
        sending: asyncio.Task[None] | None = None
        try:
            # With TLS 1.3 a server refuses a client only after the client's handshake is over.
            if (await asyncio.wait((ending,), timeout=_REFUSAL_SECONDS))[0]:
                ending.result()
                raise ConnectionAbortedError(errno.ECONNABORTED, _REFUSED)
            sending = asyncio.Task(self._send(writer), name="syslog messages")
            await asyncio.wait((sending, ending), return_when=asyncio.FIRST_COMPLETED)
            for task in (sending, ending):
                if task.done():
                    task.result()
        finally:
            writer.transport.abort()
            for ended in (ending, sending):
                if ended is not None:
                    ended.cancel()
                    await asyncio.wait((ended,))
                    # Read, so that asyncio does not report it.
                    _ = ended.cancelled() or ended.exception()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        while True:
            await self._news.wait()
            while self._waiting:
                writer.write(self._waiting[0])
                async with asyncio.timeout(_SECONDS):
                    await writer.drain()
                self._waiting.popleft()
                self.sent += 1
                if self._is_troubled:
                    self._is_troubled = False
                    _log.warning("syslog at %s takes security events again", self._place)
            self._news.clear()
            self._idle.set()


@asynccontextmanager
async def open_syslog(
    target: SyslogTarget | None, metrics: ServiceMetrics, clock: Clock, *, service: str, source: str
) -> AsyncGenerator[Callable[[SecurityEvent], None]]:
    """Export while the block runs, and for a moment after it; yield what takes an event.

    Without a target it takes events and does nothing.

    Raises:
        CallerError: the file with the roots cannot be used.
    """
    if target is None:
        yield lambda _: None
        return
    context = await asyncio.to_thread(target.context)
    reporter = SyslogSource(service=service, source=source, enterprise=target.enterprise)
    export = SyslogExport(target, context, reporter, clock)
    export.show(metrics)
    sending = asyncio.Task(export.run(), name="syslog")
    try:
        yield export.put
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                await export.wait_sent()
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        export.ended()
