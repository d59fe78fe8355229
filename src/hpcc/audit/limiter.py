"""Refusals cost an attacker nothing and us a sync each: above a rate they are only counted.

Each kind and tenant has a rate of its own: a flood that anybody can send hides nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hpcc.ports import AuditLog, Clock, SecurityEvent

EVENTS_PER_SECOND: Final = 20.0
# More than a farm has; those beyond share one rate.
_MAX_KINDS: Final = 4096


@dataclass(slots=True)
class _Kind:
    allowance: float
    at: float
    suppressed: int = 0

    def may_be_written(self, now: float) -> bool:
        refill = (now - self.at) * EVENTS_PER_SECOND
        self.allowance, self.at = min(self.allowance + refill, EVENTS_PER_SECOND), now
        if self.allowance < 1:
            self.suppressed += 1
            return False
        self.allowance -= 1
        return True


class EventLimiter:
    """Records refusals up to a rate and counts the rest, which the next of its kind tells."""

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
