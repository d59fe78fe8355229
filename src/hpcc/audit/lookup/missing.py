"""Makes the indexes that older segments lack, for the writer of a trail."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from hpcc.audit.base.segments import Seal
from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc.audit.base.trail_signer import TrailSigner
from hpcc.audit.lookup.making import lacks_index, reindex_segment


class SealedSegments(Protocol):
    """The sealed segments that exist."""

    seals: list[Seal]

    def measure(self, first: int) -> None:
        """Count again what a segment takes of the disk."""
        ...


class SealedTrail(Protocol):
    """A trail: its sealed segments, its limits, and how many bytes it may still take."""

    @property
    def kept(self) -> SealedSegments:
        """Return the sealed segments that exist."""
        ...

    @property
    def limits(self) -> SpoolLimits:
        """Return the limits."""
        ...

    @property
    def free_bytes(self) -> int:
        """Return how many bytes the trail may still take."""
        ...


class MissingIndexes:
    """Makes indexes one at a time. Any thread may call it: a sealed segment does not change."""

    def __init__(self, directory: Path, signer: TrailSigner, trail: SealedTrail) -> None:
        self._directory, self._signer, self._trail = directory, signer, trail
        self._unindexable: set[int] = set()

    def make_one(self) -> bool:
        """Make one index that is missing; return whether there may be more.

        Raises:
            AuditDamagedError: a segment was changed.
            OSError: the index cannot be written.
            InfrastructureError: the database failed, or nothing signs.
        """
        least = self._trail.limits.max_bytes // 8
        for seal in list(self._trail.kept.seals):
            if seal.first in self._unindexable or not lacks_index(self._directory, seal):
                continue
            # An index is a help. It must not take the room that records need.
            if self._trail.free_bytes < least + seal.size_bytes // 2:
                return False
            # Once in this process: a segment that fails would be read every minute.
            self._unindexable.add(seal.first)
            try:
                reindex_segment(self._directory, seal, self._signer)
            except FileNotFoundError:
                continue  # retention removed the segment
            self._unindexable.discard(seal.first)
            self._trail.kept.measure(seal.first)
            return True
        return False
