"""Holds the newest security events of this scheduler in memory, for operators who look.

The trail has all of them; this is what a page shows without reading it. Any client can cause events
of some names, so each name has a separate short list: a flood of refused logins hides no worker
that came with a foreign certificate. Memory is bounded: `MAX_NAMES` lists of `OF_A_NAME` events,
each of at most `MAX_FIELDS` short texts.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from hpcc.core.name_lists import NameLists
from hpcc.ports import Clock, SecurityEvent
from hpcc.rpc.scheduler.recent_events import (
    MAX_EVENTS,
    SeenEvent,
    SeenEvents,
    newest_first,
    seen_event,
)
from hpcc.scheduler.audit.worker_events import WorkerEvents

OF_A_NAME: Final = 10
# More than there are. The names are hpcc's own; further ones share a list.
MAX_NAMES: Final = 64


class RecentEvents:
    """The last events by name, and those that workers told of. A listener of the trail."""

    def __init__(self, clock: Clock) -> None:
        self._since = clock.now()
        self._held = NameLists[SeenEvent](OF_A_NAME, MAX_NAMES)
        self.workers: Final = WorkerEvents(clock)

    def put(self, event: SecurityEvent) -> None:
        """Hold an event; the oldest one of its name makes room."""
        self._held.put(event.name, seen_event(event))

    def shown(self) -> SeenEvents:
        """Return the newest events, of each name first the last one, then the one before."""
        found = newest_first(islice(self._held, MAX_EVENTS))
        return SeenEvents(self._since, found, of_workers=self.workers.shown())
