"""Holds what workers say of the security events in their trails, for operators who look.

A worker sends the events of its trail with its heartbeats. Its certificate proves who it is, and
nothing proves what it says: it may invent names, tenants and times, or send without end. So what a
worker says is shown under its name, is short, and takes only this worker's room: `OF_A_NAME` events
of a name and `MAX_NAMES` names. If all workers together have more than `MAX_HELD`, the worker that
has most loses one. A later time than this scheduler's own becomes the time of its arrival.

What must never happen: an event of one worker makes another one's invisible; a worker's claim looks
like an event of a scheduler.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final, NamedTuple

from hpcc.core.name_lists import NameLists
from hpcc.ports import Clock
from hpcc.rpc.scheduler.recent_events import MAX_EVENTS, SeenEvent, fair

OF_A_NAME: Final = 4
MAX_NAMES: Final = 16
MAX_HELD: Final = 4096


class _Claimed(NamedTuple):
    """An event as it is shown, and the time that the worker said."""

    event: SeenEvent
    said_at: float


class WorkerEvents:
    """The last events of each worker by name."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[str, NameLists[_Claimed]] = {}
        self._count = 0

    def note(self, worker_id: str, events: Iterable[SeenEvent]) -> None:
        """Hold what a worker said. A worker that opens a new stream says it again."""
        now = self._clock.now()
        for event in events:
            lists = self._held.setdefault(worker_id, NameLists(OF_A_NAME, MAX_NAMES))
            shown = replace(event, worker=worker_id, at=min(event.at, now))
            if any(_is_same(one, shown, event.at) for one in lists.of(event.name)):
                continue
            before = len(lists)
            lists.put(event.name, _Claimed(shown, event.at))
            self._count += len(lists) - before
            while self._count > MAX_HELD:
                self._drop_one()

    def shown(self) -> tuple[SeenEvent, ...]:
        """Return the newest ones, in which each worker has a part."""
        return fair((one.event for lists in self._held.values() for one in lists), MAX_EVENTS)

    def _drop_one(self) -> None:
        worker_id = max(self._held, key=lambda one: len(self._held[one]))
        self._held[worker_id].drop_one()
        if not self._held[worker_id]:
            del self._held[worker_id]
        self._count -= 1


def _is_same(held: _Claimed, event: SeenEvent, said_at: float) -> bool:
    return held.said_at == said_at and replace(held.event, at=event.at) == event
