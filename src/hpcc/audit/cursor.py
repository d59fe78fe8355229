"""Reads a trail in batches while its writer runs, for the sinks that copy it elsewhere."""

from __future__ import annotations

from pathlib import Path

from hpcc.audit.base.frames import frame_bytes
from hpcc.audit.base.segments import Placed, seals
from hpcc.audit.base.trail import Retired, TrailStart, first_kept, walk
from hpcc.core import NotFoundError


class TrailCursor:
    """Stores where the next batch begins. Its methods block: call them in a thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._next: TrailStart | None = None

    def first_kept(self) -> int:
        """Return the number of the first record that retention has not removed."""
        return first_kept(self._directory)

    def read(self, sequence: int, *, limit: int, max_bytes: int) -> list[bytes]:
        """Return records from number `sequence` on, in order.

        They are at most `limit` records and `max_bytes` bytes, but at least one record if there is
        one.

        Raises:
            NotFoundError: reason `audit-gap`: retention removed some of them.
            AuditDamagedError: the trail was changed.
        """
        start = self._next
        if start is None or start.sequence != sequence:
            start = self._locate(sequence)
        batch: list[bytes] = []
        size = 0
        for item in walk(self._directory, start):
            if isinstance(item, Retired):
                if item.seal.end > sequence:
                    raise NotFoundError(
                        f"audit records before {item.seal.end} are not kept here any more",
                        reason="audit-gap",
                    )
                continue
            if item.record.sequence >= sequence:
                size += len(item.record.data)
                if batch and (len(batch) >= limit or size > max_bytes):
                    break
                batch.append(item.record.data)
            start = _behind(item, start)
        self._next = start
        return batch

    def _locate(self, sequence: int) -> TrailStart:
        """Return the start of the segment that contains this record."""
        start = TrailStart()
        for seal in seals(self._directory):
            if sequence < seal.end:
                break
            start = TrailStart(seal.end, seal.signed.head, 0, seal.end, seal.signed.head)
        return start


def _behind(item: Placed, before: TrailStart) -> TrailStart:
    record = item.record
    is_first = item.place == 0
    return TrailStart(
        item.segment,
        record.previous if is_first else before.previous,
        item.place + frame_bytes(record),
        record.sequence + 1,
        record.hash,
    )
