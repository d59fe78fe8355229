"""Sends a service's security events to a collector, beside the trail and syslog.

The trail is the evidence; a collector hears of an event at once. `put` takes a place in a bounded
queue or counts a loss, and a thread sends what waits. No caller waits for that thread, also not at
the end: a resolver may hold it for minutes, so it is a daemon thread that nobody joins.

Records that a collector may take later stay in the queue and are sent again, so they may arrive
twice. Records that it refuses, and those for which the queue has no room, are counted as dropped.
"""

from __future__ import annotations

import logging
import threading
from asyncio import to_thread
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import islice
from typing import Final, Protocol

from hpcc import __version__
from hpcc.obs.metrics.service import ServiceMetrics
from hpcc.obs.otlp.events import record_of, service_resource
from hpcc.obs.otlp.messages import Attributes, logs_request
from hpcc.obs.otlp.sender import LOGS, CollectorAnswer, OtlpSender, PostEnding
from hpcc.obs.otlp.target import OtlpTarget
from hpcc.ports import Clock, SecurityEvent

_log: Final = logging.getLogger(__name__)
# Of at most 8 KiB each, as for syslog. A limiter passes on 20 a second of each kind.
MAX_WAITING: Final = 1024
# 2 MiB at most: collectors take 20 MiB by default.
_MAX_BATCH: Final = 256
_RETRY_SECONDS: Final = 1.0
_MAX_RETRY_SECONDS: Final = 60.0
# For what waits when the service ends.
_FLUSH_SECONDS: Final = 2.0


class Poster(Protocol):
    """What sends a request."""

    @property
    def place(self) -> str: ...

    def post(self, signal: str, body: bytes) -> CollectorAnswer: ...


class EventExport:
    """The queue and its thread. Any thread may call `put`."""

    def __init__(self, sender: Poster, resource: Attributes, clock: Clock) -> None:
        self._sender, self._resource, self._clock = sender, resource, clock
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._is_ending = self._has_ended = False
        # Lost since the last one that was queued.
        self._lost = 0
        self._is_troubled = False
        self.sent = self.dropped = 0

    def put(self, event: SecurityEvent) -> None:
        """Queue an event, or count it as dropped; the next queued one carries the number."""
        with self._changed:
            if len(self._waiting) >= MAX_WAITING:
                self.dropped += 1
                self._lost += 1
                return
            self._waiting.append(record_of(event, self._clock.now(), dropped=self._lost))
            self._lost = 0
            self._changed.notify_all()

    def show(self, metrics: ServiceMetrics) -> None:
        """Let the service's metrics read what was sent and dropped."""
        metrics.otlp_events.read = lambda: [
            (("sent",), self.sent), (("dropped",), self.dropped),
        ]  # fmt: skip

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="otlp", daemon=True).start()

    def end(self, seconds: float) -> None:
        """Let what waits be sent once more, for so long; log what is left."""
        with self._changed:
            self._is_ending = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._has_ended, seconds)
            count = len(self._waiting)
        if count:
            _log.warning("OTLP at %s did not get the last %d events", self._sender.place, count)

    def _run(self) -> None:
        try:
            delay = _RETRY_SECONDS
            while batch := self._next():
                answer = self._sender.post(LOGS, logs_request(self._resource, __version__, batch))
                if self._done(len(batch), answer):
                    delay = _RETRY_SECONDS
                elif self._pause(min(max(delay, answer.wait_seconds), _MAX_RETRY_SECONDS)):
                    delay = min(delay * 2, _MAX_RETRY_SECONDS)
                else:
                    break  # one try after the end began is the last
        except Exception:  # noqa: BLE001 - the root of a thread
            _log.exception("the export of events over OTLP has failed")
        finally:
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()

    def _next(self) -> list[bytes]:
        """Return records, which stay in the queue; wait for one. Empty when the end has come."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_ending)
            return list(islice(self._waiting, _MAX_BATCH))

    def _pause(self, seconds: float) -> bool:
        """Wait; return whether the service still runs."""
        with self._changed:
            was_ending = self._is_ending
            self._changed.wait_for(lambda: self._is_ending, seconds)
            return not was_ending

    def _done(self, count: int, answer: CollectorAnswer) -> bool:
        """Count a request's records and remove them; False if they stay."""
        is_taken = answer.ending is PostEnding.TAKEN
        if answer.what or answer.rejected:
            self._complain(answer.what or f"it rejected {answer.rejected} records")
        elif self._is_troubled:
            self._is_troubled = False
            _log.warning("OTLP at %s takes security events again", self._sender.place)
        if answer.ending is PostEnding.LATER:
            return False
        lost = min(answer.rejected, count) if is_taken else count
        with self._changed:
            for _ in range(count):
                self._waiting.popleft()
            self.sent += count - lost
            self.dropped += lost
        return True

    def _complain(self, what: str) -> None:
        if not self._is_troubled:
            _log.warning("OTLP at %s takes no security events: %s", self._sender.place, what)
        self._is_troubled = True


@asynccontextmanager
async def open_event_export(
    target: OtlpTarget | None, metrics: ServiceMetrics, clock: Clock, *, service: str, source: str
) -> AsyncGenerator[Callable[[SecurityEvent], None]]:
    """Export while the block runs, and for a moment after it; yield what takes an event.

    Without a target it takes events and does nothing.

    Raises:
        CallerError: a file that the target names cannot be used.
    """
    if target is None:
        yield lambda _: None
        return
    sender = await to_thread(OtlpSender.of, target)
    export = EventExport(sender, service_resource(service, source), clock)
    export.show(metrics)
    export.start()
    try:
        yield export.put
    finally:
        await to_thread(export.end, _FLUSH_SECONDS)
