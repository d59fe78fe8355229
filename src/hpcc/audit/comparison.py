"""Compares the index beside a trail with the trail."""

from __future__ import annotations

from hpcc.audit.canonical import AuditDamagedError
from hpcc.audit.index import INDEX_NAME, AuditIndex, columns_of, database_errors
from hpcc.audit.segments import Placed


class IndexComparison:
    """Compares an index with the trail, while somebody reads that from its first record on.

    `list`, `query` and `export` print what the index has. Who can write it could hide or change
    records there, in an intact trail.
    """

    def __init__(self, index: AuditIndex) -> None:
        self._stored = index.stored()
        self._next: tuple[object, ...] | None = None
        self._advance()
        self._has_begun = False

    def take(self, placed: Placed) -> None:
        """Compare the next record of the trail.

        Raises:
            AuditDamagedError: the index has another one.
        """
        if not self._has_begun:
            self._has_begun = True
            self._skip(placed.record.sequence)
        # The last records may not be in the index yet.
        if self._next is None:
            return
        if self._next != columns_of(placed):
            raise _differs(placed.record.sequence)
        self._advance()

    def _advance(self) -> None:
        with database_errors():
            self._next = next(self._stored, None)

    def _skip(self, first: int) -> None:
        """Skip what retention removed. `catch_up` forgets it before anything is shown."""
        while self._next is not None and int(str(self._next[0])) < first:
            self._advance()

    def end(self, first: int) -> None:
        """Check, after the last record, that the index has no more.

        Retention removed the records before `first`.

        Raises:
            AuditDamagedError: it has more.
        """
        self._skip(first)
        if self._next is not None:
            raise AuditDamagedError(
                f"{INDEX_NAME} has record {self._next[0]}, which the trail does not have: the end"
                " of the trail may be missing. Verify with --anchors; if they match, delete the"
                " index, it is made again"
            )


def _differs(sequence: object) -> AuditDamagedError:
    return AuditDamagedError(
        f"{INDEX_NAME} differs from the trail at record {sequence}, and `hpcc audit list` would"
        " show that: delete it, it is made again"
    )
