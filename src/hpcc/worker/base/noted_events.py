"""The security events of this worker's trail that its heartbeats tell a scheduler, from memory.

The trail has all of them. A scheduler that starts anew has none, so each new stream of heartbeats
begins with what is held here: the last events of each name, in the order of the trail.

An event is cut to what a heartbeat may carry, and has no digest of an action: no scheduler gets
those, because they lead to a tenant's results.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from hpcc.core.name_lists import NameLists
from hpcc.ports import SecurityEvent
from hpcc.rpc.scheduler.recent_events import MAX_NOTED, SeenEvent, claimed, seen_event

# As many as a scheduler holds of a worker.
_OF_A_NAME: Final = 4
_MAX_NAMES: Final = 16
_ACTION: Final = "action"


class Noted(NamedTuple):
    """An event with its place in the order of all that were noted."""

    number: int
    event: SeenEvent


class NotedEvents:
    """The last events by name. A listener of the trail."""

    def __init__(self) -> None:
        self._held = NameLists[Noted](_OF_A_NAME, _MAX_NAMES)
        self._count = 0

    def put(self, event: SecurityEvent) -> None:
        """Hold an event; the oldest one of its name makes room."""
        self._count += 1
        kept = replace(event, fields=tuple(f for f in event.fields if f[0] != _ACTION))
        self._held.put(event.name, Noted(self._count, claimed(seen_event(kept))))

    def after(self, number: int) -> tuple[Noted, ...]:
        """Return the first events after a place, as many as one heartbeat carries."""
        if self._count <= number:
            return ()
        return tuple(sorted(one for one in self._held if one.number > number)[:MAX_NOTED])
