"""The index of the open segment, in memory until the segment is sealed."""

from __future__ import annotations

from collections.abc import Iterable

from hpcc.audit.base.index_statement import IndexFacts
from hpcc.audit.base.segments import Placed
from hpcc.audit.lookup.index import IndexBuilder
from hpcc.core import InfrastructureError


class OpenIndex:
    """Follows the open segment. A failure of it harms no record: the segment gets no index then.

    One thread writes; others may ask for `size_bytes`.
    """

    def __init__(self) -> None:
        """Begin without an index."""
        self._builder: IndexBuilder | None = None
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
        try:
            self._builder.add((item.place, item.record) for item in placed)
            self.size_bytes = self._builder.size_bytes
        except InfrastructureError:
            self.close()

    def facts_or_none(self, count: int) -> IndexFacts | None:
        """Return the index of a segment of `count` records; None if it is not complete."""
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
        self._builder, self.size_bytes = None, 0
