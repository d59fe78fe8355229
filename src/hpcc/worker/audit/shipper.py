"""Sends the worker's trail on to its sinks; until they have it, the spool holds it."""

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
# Between looks at a trail that has nothing new.
_IDLE_SECONDS: Final = 0.5
_RETRY_SECONDS: Final = 1.0
_MAX_RETRY_SECONDS: Final = 30.0


class Receiver(Protocol):
    """Who takes records: `AuditClient`, for a scheduler."""

    async def append(self, worker_id: str, first: int, records: Sequence[bytes]) -> AuditPlace: ...


class Shipper:
    """Keeps one sink up with the trail. `acknowledged`: it has the records below this number."""

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
        # Until it has answered once, nothing is known to be there.
        self.acknowledged = 0
        self._is_ours = False
        self._complaint = ""

    async def run(self) -> None:
        """Send until cancelled; a sink that is down or refuses is asked again, ever later."""
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
        """Send what there is; returns when the sink has it."""
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
                raise IntegrityError("the sink took nothing", reason="audit-sink-stuck")
            following = place.next

    async def _prove(self, following: int) -> None:
        """Find out once whether what the sink has is this trail: by its last record, sent again.

        A trail that was lost begins anew under the worker's name. What the sink has of the old one
        must not be taken for a copy of this one, of which retention would then let go.

        Raises:
            IntegrityError: it is another's, or longer.
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
        """Say once what is wrong; a refusal, which time alone will not mend, also in the trail."""
        reason = error.reason if isinstance(error, HpccError) else "audit-read"
        if reason == self._complaint:
            return
        self._complaint = reason
        _log.warning("audit records wait for their sink: %s", error)
        if isinstance(error, IntegrityError | CallerError):
            fields = (("reason", reason),)
            event = SecurityEvent(name="audit-sink-refused", at=self._clock.now(), fields=fields)
            await self._log.event(event)
