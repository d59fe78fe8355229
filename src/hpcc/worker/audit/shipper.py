"""Sends the worker's trail to its sinks; the spool keeps records until every sink has them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Protocol

from hpcc.audit.cursor import TrailCursor
from hpcc.audit.log import SpoolAuditLog
from hpcc.core import CallerError, HpccError, IntegrityError
from hpcc.ports import Clock, SecurityEvent
from hpcc.rpc.scheduler.audit_api import AuditPlace

_log: Final = logging.getLogger(__name__)
_BATCH_RECORDS: Final = 500
_BATCH_BYTES: Final = 1 << 20
# Pause when the trail has nothing new.
_IDLE_SECONDS: Final = 0.5
_RETRY_SECONDS: Final = 1.0
_MAX_RETRY_SECONDS: Final = 30.0


class Receiver(Protocol):
    """Takes records: `AuditClient` for a scheduler."""

    async def append(self, worker_id: str, first: int, records: Sequence[bytes]) -> AuditPlace:
        """Append records, the first of which has number `first`; return where the sink is then."""
        ...


class Shipper:
    """Keeps one sink current. The sink has the records below `acknowledged`."""

    def __init__(
        self,
        log: SpoolAuditLog,
        cursor: TrailCursor,
        receiver: Receiver,
        *,
        worker: str,
        clock: Clock,
    ) -> None:
        self._log, self._cursor, self._receiver = log, cursor, receiver
        self._worker, self._clock = worker, clock
        self.name = "scheduler"
        # 0 until the sink has answered once.
        self.acknowledged = 0
        self._is_ours = False
        self._complaint = ""

    async def run(self) -> None:
        """Send until cancelled; after a failure or refusal retry with growing pauses."""
        delay = _RETRY_SECONDS
        while True:
            try:
                await self._follow()
            except (HpccError, OSError) as error:
                await self._complain(error)
                await self._clock.sleep(delay)
                delay = min(delay * 2, _MAX_RETRY_SECONDS)
            else:
                delay = _RETRY_SECONDS
                await self._clock.sleep(_IDLE_SECONDS)

    async def _follow(self) -> None:
        """Send all records that the sink lacks; return when it has them."""
        place = await self._receiver.append(self._worker, 0, ())
        following = place.next
        if place.is_empty:
            following = await asyncio.to_thread(self._cursor.first_kept)
        else:
            await self._prove(following)
        while True:
            self.acknowledged = following
            count, _ = self._log.anchor
            if following >= count:
                self._complaint = ""
                return
            batch = await asyncio.to_thread(
                self._cursor.read, following, limit=_BATCH_RECORDS, max_bytes=_BATCH_BYTES
            )
            if not batch:
                return
            place = await self._receiver.append(self._worker, following, batch)
            if place.next <= following:
                raise IntegrityError("the sink accepted nothing", reason="audit-sink-stuck")
            following = place.next

    async def _prove(self, following: int) -> None:
        """Check once that the sink's copy is of this trail, by sending its last record again.

        After a trail was lost, a new one begins under the worker's name. The sink's copy of the old
        trail must not count as a copy of the new one, because retention would then delete records
        that no sink has.

        Raises:
            IntegrityError: the copy is of another trail, or is longer than this one.
        """
        count, _ = self._log.anchor
        if following > count:
            self._is_ours, self.acknowledged = False, 0
            raise IntegrityError(
                f"the sink has {following} records and this trail {count}: its end was cut",
                reason="audit-sink-ahead",
            )
        if self._is_ours:
            return
        if following > await asyncio.to_thread(self._cursor.first_kept):
            last = await asyncio.to_thread(
                self._cursor.read, following - 1, limit=1, max_bytes=_BATCH_BYTES
            )
            await self._receiver.append(self._worker, following - 1, last)
        self._is_ours = True

    async def _complain(self, error: Exception) -> None:
        """Log a failure once; record a refusal, which time does not fix, in the trail as well."""
        reason = error.reason if isinstance(error, HpccError) else "audit-read"
        if reason == self._complaint:
            return
        self._complaint = reason
        _log.warning("audit records wait for their sink: %s", error)
        if isinstance(error, IntegrityError | CallerError):
            fields = (("reason", reason),)
            event = SecurityEvent(name="audit-sink-refused", at=self._clock.now(), fields=fields)
            await self._log.event(event)
