"""The index of the open segment, in memory until the segment is sealed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hpcc.audit.base.canonical import Record
from hpcc.audit.base.index_statement import MAX_INDEX_BYTES, IndexFacts
from hpcc.audit.base.segments import Placed
from hpcc.audit.lookup.index import IndexBuilder
from hpcc.core import InfrastructureError

# A transaction costs more than the rows in it: they wait for one another.
_MAX_WAITING: Final = 128
_MAX_WAITING_BYTES: Final = 1 << 20
# About what a record takes in an index.
_ROW_BYTES: Final = 160


class OpenIndex:
    """Follows the open segment. A failure of it harms no record: the segment gets no index then.

    One thread writes; others may ask for `size_bytes`.
    """

    def __init__(self) -> None:
        """Begin without an index."""
        self._builder: IndexBuilder | None = None
        self._waiting: list[tuple[int, Record]] = []
        self._waiting_bytes = 0
        self.size_bytes = 0

    def begin(self) -> None:
        """Begin the index of an empty segment."""
        self.close()
        try:
            self._builder = IndexBuilder()
        except InfrastructureError:
            self._builder = None

    def add(self, placed: Iterable[Placed]) -> None:
        """Add records that were written."""
        if self._builder is None:
            return
        before = len(self._waiting)
        self._waiting += [(item.place, item.record) for item in placed]
        self._waiting_bytes += sum(len(r.data) for _, r in self._waiting[before:])
        self.size_bytes += (len(self._waiting) - before) * _ROW_BYTES
        if len(self._waiting) >= _MAX_WAITING or self._waiting_bytes >= _MAX_WAITING_BYTES:
            self._insert()

    def _insert(self) -> None:
        """Give the database what waits for it."""
        if self._builder is None:
            return
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        try:
            self._builder.add(waiting)
            self.size_bytes = self._builder.size_bytes
            if self.size_bytes > MAX_INDEX_BYTES:
                self.close()  # no reader takes it
        except InfrastructureError:
            self.close()

    def facts_or_none(self, count: int) -> IndexFacts | None:
        """Return the index of a segment of `count` records; None if it is not complete."""
        self._insert()
        if self._builder is None or self._builder.count != count:
            return None
        try:
            return self._builder.facts()
        except InfrastructureError:
            self.close()
            return None

    def close(self) -> None:
        """Free the memory."""
        if self._builder is not None:
            self._builder.close()
        self._builder, self._waiting, self._waiting_bytes, self.size_bytes = None, [], 0, 0
