"""Holds the newest security events of this scheduler in memory, for operators who look.

The trail has all of them; this is what a page shows without reading it. Any client can cause events
of some names, so each name has a separate short list: a flood of refused logins hides no worker
that came with a foreign certificate. Memory is bounded: `MAX_NAMES` lists of `OF_A_NAME` events,
each of at most `MAX_FIELDS` short texts.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from hpcc.ports import Clock, SecurityEvent
from hpcc.rpc.scheduler.recent_events import (
    MAX_EVENTS,
    SeenEvent,
    SeenEvents,
    newest_first,
    seen_event,
)

OF_A_NAME: Final = 10
# More than there are. The names are hpcc's own; further ones share a list.
MAX_NAMES: Final = 64
_OTHERS: Final = ""


class RecentEvents:
    """The last events by name. A listener of the trail."""

    def __init__(self, clock: Clock) -> None:
        self._since = clock.now()
        self._kinds: dict[str, deque[SeenEvent]] = {}

    def put(self, event: SecurityEvent) -> None:
        """Hold an event; the oldest one of its name makes room."""
        name = event.name
        if name not in self._kinds and len(self._kinds) >= MAX_NAMES:
            name = _OTHERS
        self._kinds.setdefault(name, deque(maxlen=OF_A_NAME)).append(seen_event(event))

    def shown(self) -> SeenEvents:
        """Return the newest events, of each name first the last one, then the one before."""
        found: list[SeenEvent] = []
        for rank in range(1, OF_A_NAME + 1):
            found += [held[-rank] for held in self._kinds.values() if len(held) >= rank]
        return SeenEvents(self._since, newest_first(found[:MAX_EVENTS]))
