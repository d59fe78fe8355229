"""What waits for the writer of a trail: a record, and who wants to know that it is durable."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hpcc.audit.base.segments import Seal
from hpcc.core import InfrastructureError
from hpcc.ports import AuditRow, SecurityEvent


@dataclass(slots=True, eq=False)
class Waiting:
    """One record of the queue."""

    # None asks to seal the open segment without a record.
    content: AuditRow | SecurityEvent | None
    done: asyncio.Future[None]
    # Segments to remove once this record is durable.
    segments: list[Seal] = field(default_factory=list)
    # Written although the trail is full: what follows makes room.
    is_forced: bool = False
    # Why it is not durable, after its group was written.
    error: InfrastructureError | None = None


def new_future() -> asyncio.Future[None]:
    """Return a future of the running loop."""
    return asyncio.get_running_loop().create_future()


def fail(part: list[Waiting], error: InfrastructureError) -> None:
    """Note an error for those that have none."""
    for waiting in part:
        waiting.error = waiting.error or error


def settle(group: list[Waiting]) -> None:
    """Tell each that waits how it ended."""
    for waiting in group:
        if waiting.done.done():
            continue
        if waiting.error is None:
            waiting.done.set_result(None)
        else:
            waiting.done.set_exception(waiting.error)
