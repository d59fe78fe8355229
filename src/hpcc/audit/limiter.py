"""Limits how many refusals are recorded per second; above the rate they are only counted.

A refusal costs an attacker nothing and costs the trail one sync. Each pair of event name and tenant
has a separate rate, so that a flood of one kind, which any client can send, hides no other event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hpcc.ports import AuditLog, Clock, SecurityEvent

EVENTS_PER_SECOND: Final = 20.0
# More pairs than a farm has; further ones share one rate.
_MAX_KINDS: Final = 4096


@dataclass(slots=True)
class _Kind:
    allowance: float
    at: float
    suppressed: int = 0

    def may_be_written(self, now: float) -> bool:
        """Take one token at the monotonic time `now`; without one, count the event."""
        refill = (now - self.at) * EVENTS_PER_SECOND
        self.allowance, self.at = min(self.allowance + refill, EVENTS_PER_SECOND), now
        if self.allowance < 1:
            self.suppressed += 1
            return False
        self.allowance -= 1
        return True


class EventLimiter:
    """Records refusals up to a rate and counts the rest; the next recorded one has the count."""

    def __init__(self, audit: AuditLog, clock: Clock) -> None:
        self._audit, self._clock = audit, clock
        self._kinds: dict[tuple[str, str], _Kind] = {}

    async def event(
        self,
        name: str,
        tenant: str,
        *fields: tuple[str, str],
        peer: str = "",
        request_id: str = "",
    ) -> None:
        """Record a security event, or count it if its kind is above the rate."""
        now = self._clock.monotonic()
        kind = self._kind((name, tenant), now)
        if not kind.may_be_written(now):
            return
        if kind.suppressed:
            fields = (*fields, ("suppressed_before", str(kind.suppressed)))
            kind.suppressed = 0
        event = SecurityEvent(
            name=name, at=self._clock.now(), tenant=tenant, fields=fields, peer=peer,
            request_id=request_id,
        )  # fmt: skip
        await self._audit.event(event)

    def _kind(self, key: tuple[str, str], now: float) -> _Kind:
        if key not in self._kinds and len(self._kinds) >= _MAX_KINDS:
            key = ("", "")
        return self._kinds.setdefault(key, _Kind(EVENTS_PER_SECOND, now))
