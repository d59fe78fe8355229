"""An `AuditLog` in memory, with faults on demand."""

from __future__ import annotations

from hpcc.core import InfrastructureError
from hpcc.ports import AuditRow, SecurityEvent


class MemoryAuditLog:
    """Keeps rows and events in lists.

    `is_broken` makes `append` fail, `is_full` refuses new work, and `crowded` are the tenants that
    have no room.
    """

    def __init__(self) -> None:
        self.rows: list[AuditRow] = []
        self.events: list[SecurityEvent] = []
        self.is_broken = False
        self.is_full = False
        self.crowded: set[str] = set()

    async def append(self, row: AuditRow) -> None:
        if self.is_broken:
            raise InfrastructureError("the audit disk is full", reason="audit")
        self.rows.append(row)

    async def event(self, event: SecurityEvent) -> None:
        self.events.append(event)

    def require_room(self, tenant: str = "") -> None:
        if self.is_full:
            raise InfrastructureError("the audit trail has no room", reason="audit-full")
        if tenant in self.crowded:
            raise InfrastructureError("it is full of this tenant's rows", reason="audit-share")

    def names(self) -> list[str]:
        """Return the names of the events, in order."""
        return [e.name for e in self.events]
