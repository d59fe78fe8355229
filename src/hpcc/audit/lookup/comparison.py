"""Compares the index of each sealed segment with the segment, while somebody reads the trail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hpcc.audit.base.canonical import AuditDamagedError
from hpcc.audit.base.segments import Placed, Seal
from hpcc.audit.lookup.index import SegmentIndex, index_row
from hpcc.audit.lookup.sealed import IndexChangedError, read_index_or_none, statements_of


class IndexComparison:
    """Compares indexes with a trail that is read from its first record on.

    A digest shows that an index is the sealed one. Only this comparison shows that the worker
    sealed one that hides nothing. The first difference is kept until `end`, because a segment
    that was changed is the worse damage and must be named.
    """

    def __init__(self, directory: Path, sealed: list[Seal]) -> None:
        self._directory = directory
        self._seals = {seal.first: seal for seal in sealed}
        self._segment = -1
        self._index: SegmentIndex | None = None
        self._rows: Iterator[tuple[object, ...]] = iter(())
        self._trouble: AuditDamagedError | None = None
        self.compared = 0

    def take(self, placed: Placed) -> None:
        """Compare the next record of the trail."""
        try:
            if placed.segment != self._segment:
                self._finish()
                self._open(placed.segment)
            if self._index is not None and next(self._rows, None) != index_row(
                placed.place, placed.record
            ):
                self._differs(placed.record.sequence)
        except AuditDamagedError as error:
            self._keep(error)

    def end(self) -> None:
        """Check the last index, and report what was found.

        Raises:
            IndexChangedError: an index is not the one that was sealed.
            AuditDamagedError: a sealed index has other records than its segment.
        """
        try:
            self._finish()
        except AuditDamagedError as error:
            self._keep(error)
        if self._trouble is not None:
            raise self._trouble

    def _open(self, first: int) -> None:
        self._segment = first
        seal = self._seals.get(first)
        if seal is None:
            return
        self._index = read_index_or_none(
            self._directory, seal, statements_of(self._directory, seal)
        )
        if self._index is not None:
            self._rows = self._index.rows()
            self.compared += 1

    def _finish(self) -> None:
        if self._index is not None and next(self._rows, None) is not None:
            self._differs(f"after the end of segment {self._segment}")
        self.close()

    def _differs(self, where: object) -> None:
        first = self._segment
        self.close()
        raise AuditDamagedError(
            f"the sealed index of segment {first} differs from the segment at record {where}: the"
            " worker sealed another one than it should have. Read with --exhaustive"
        )

    def _keep(self, error: AuditDamagedError) -> None:
        self.close()
        # An index that lies under a good signature is the worse finding.
        if self._trouble is None or isinstance(self._trouble, IndexChangedError):
            self._trouble = error

    def close(self) -> None:
        """Free the memory of the index that is compared."""
        if self._index is not None:
            self._index.close()
        self._index, self._rows = None, iter(())
