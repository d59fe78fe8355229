"""Divides the trail's room, so that no tenant fills it for all others.

Problem: each hit writes a row, so a tenant can fill any trail with calls that cost it nothing, and
a full trail stops the remote work of every tenant.

Rule: a tenant has room as long as its records take at most twice what is free. The first tenant
that writes without end gets two thirds of the room, and the next one two thirds of the rest. So a
ninth is left for all others, without a list of tenants. A third one that does the same gets to the
sixteenth that is kept for compiles that run. The factor is above one because a trail that every
sink has stays at half its room: its tenants must not be refused there.

A packed segment counts as what it takes then. Counted are the records that this process wrote and
that retention did not remove. Those of an earlier process belong to no tenant: they only make the
room smaller.

What must never happen: the rows of one tenant are the reason why another gets no row.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from typing import Final

from hpcc.audit.base.segments import Placed

_TIMES_FREE: Final = 2
# About what a record takes in the index of its segment.
_INDEX_BYTES: Final = 256


class TenantRoom:
    """Counts the bytes of each tenant's records. Thread-safe."""

    def __init__(self) -> None:
        self._by_segment: dict[int, Counter[str]] = {}
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, placed: Iterable[Placed]) -> None:
        """Count records that were written; those that belong to no tenant are not counted."""
        for item in placed:
            tenant = str(item.record.body.get("tenant") or "")
            size = len(item.record.data) + _INDEX_BYTES
            if tenant:
                with self._lock:
                    self._by_segment.setdefault(item.segment, Counter())[tenant] += size
                    self._held[tenant] += size

    def shrink(self, segment: int, size: int) -> None:
        """Count a segment that was packed as `size` bytes, in the parts that its tenants had."""
        with self._lock:
            before = self._by_segment.get(segment, Counter())
            total = before.total()
            for tenant, held in before.items():
                before[tenant] = min(held * size // max(total, 1), held)
                self._held[tenant] -= held - before[tenant]

    def forget(self, before: int) -> None:
        """Take away the segments that begin below record `before`, which retention removed."""
        with self._lock:
            for segment in [first for first in self._by_segment if first < before]:
                self._held -= self._by_segment.pop(segment)

    def has_room(self, tenant: str, free_bytes: int) -> bool:
        """Return whether a tenant may write more, while `free_bytes` of the trail are free."""
        return self._held[tenant] <= _TIMES_FREE * free_bytes
