"""Refusals cost an attacker nothing and us a sync each: above a rate they are only counted."""

from __future__ import annotations

from typing import Final

from hpcc.ports import AuditLog, Clock, SecurityEvent

EVENTS_PER_SECOND: Final = 20.0


class EventLimiter:
    """Records refusals up to a rate and counts the rest, which the next record tells."""

    def __init__(self, audit: AuditLog, clock: Clock) -> None:
        self._audit, self._clock = audit, clock
        self._allowance, self._at = EVENTS_PER_SECOND, clock.monotonic()
        self._suppressed = 0

    async def event(
        self,
        name: str,
        tenant: str,
        *fields: tuple[str, str],
        peer: str = "",
        request_id: str = "",
    ) -> None:
        now = self._clock.monotonic()
        refill = (now - self._at) * EVENTS_PER_SECOND
        self._allowance, self._at = min(self._allowance + refill, EVENTS_PER_SECOND), now
        if self._allowance < 1:
            self._suppressed += 1
            return
        self._allowance -= 1
        if self._suppressed:
            fields = (*fields, ("suppressed_before", str(self._suppressed)))
            self._suppressed = 0
        event = SecurityEvent(
            name=name, at=self._clock.now(), tenant=tenant, fields=fields, peer=peer,
            request_id=request_id,
        )  # fmt: skip
        await self._audit.event(event)
