"""The worker's tree as it follows from a trail that is read from its begin.

Of records that retention removed only hashes are left, in the worker's own files of the tree. They
are believed because the root is then compared with a head that the worker signed. A few of them
are enough, so files of any size cost no memory.
"""

from __future__ import annotations

from pathlib import Path

from hpcc.audit.base.canonical import AuditDamagedError, Record
from hpcc.audit.tree.head import record_leaf, start_leaf
from hpcc.audit.tree.kept import KeptHashes
from hpcc.audit.tree.merkle import LeafTree, TreeRange, is_consistent
from hpcc.evidence.heads import WorkerHead


class TrailLeaves:
    """The leaves of a trail. `first` is the number of the record that is leaf 1."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.tree, self.first = LeafTree(), 0
        # What retention removed, and the right border of it.
        self._kept, self._border = KeptHashes(directory, 0), TreeRange()

    def index_of(self, record: Record) -> int:
        """Return the number of a record's leaf."""
        return record.sequence - self.first + 1

    def skip(self, until: int) -> None:
        """Go on behind the leaves of records that retention removed, up to record `until`.

        Raises:
            NotFoundError: a file of hashes is missing, or has fewer.
            AuditDamagedError: one is not a regular file.
        """
        if until > self.first:
            self._kept = KeptHashes(self._directory, until - self.first + 1)
            self._border = self._kept.border()
            self.tree = LeafTree(before=self._border)

    def add(self, record: Record) -> None:
        """Add the next record, unless it is older than the tree."""
        if record.sequence < self.first:
            return
        if not self.tree.size:
            self.tree.append(start_leaf(self.first, record.previous))
        self.tree.append(record_leaf(record))

    def check(self, known: WorkerHead) -> None:
        """Compare the tree with a head that its worker signed.

        Raises:
            AuditDamagedError: records are missing that the head covers, or were changed.
        """
        head = known.head
        if head.size > max(self.tree.size, 1):
            raise AuditDamagedError(
                f"{self._directory}: the end is missing: {known.where} is of {head.count} records."
                " Of a running worker: copy the trail after its head was printed"
            )
        if self.tree.size and not self._has(head.size, head.root):
            raise AuditDamagedError(
                f"{self._directory}: the records are not those of {known.where}: the trail was"
                " changed"
            )

    def _has(self, size: int, root: bytes) -> bool:
        """Return whether the first `size` leaves have this root."""
        if size >= self._border.size:
            return self.tree.root(size) == root
        # An older head. The border, of which the tree goes on, must extend it.
        proof = self._kept.consistency(size, self._border.size)
        return is_consistent(size, self._border.size, root, self._border.root(), proof)
