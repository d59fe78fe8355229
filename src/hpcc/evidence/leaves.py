"""The worker's tree as it follows from a trail that is read from its begin.

Leaves of records that retention removed come from the worker's own file of them, `tree-0`. They
are believed only because the root is then compared with a head that the worker signed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from hpcc.audit.base.canonical import AuditDamagedError, Record
from hpcc.audit.base.segments import open_trail_file
from hpcc.audit.tree.head import record_leaf, start_leaf
from hpcc.audit.tree.merkle import HASH_BYTES, LeafTree
from hpcc.core import NotFoundError
from hpcc.evidence.heads import WorkerHead

_FILE: Final = "tree-0"


class TrailLeaves:
    """The leaves of a trail. `first` is the number of the record that is leaf 1."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.tree, self.first = LeafTree(), 0

    def index_of(self, record: Record) -> int:
        """Return the number of a record's leaf."""
        return record.sequence - self.first + 1

    def skip(self, until: int) -> None:
        """Add the leaves of records that retention removed, up to record `until`.

        Raises:
            NotFoundError: the file of leaves is missing, or has fewer.
        """
        missing = until - self.first + 1 - self.tree.size
        if until <= self.first or missing <= 0:
            return
        lacking = NotFoundError(
            f"{self._directory / _FILE} lacks hashes of records that retention removed:"
            " copy the tree-… files with the trail"
        )
        try:
            with open_trail_file(self._directory / _FILE) as file:
                # Before anything is read: a forged seal can name any number.
                if file.seek(0, os.SEEK_END) < (self.tree.size + missing) * HASH_BYTES:
                    raise lacking
                file.seek(self.tree.size * HASH_BYTES)
                for _ in range(missing):
                    leaf = file.read(HASH_BYTES)
                    if len(leaf) != HASH_BYTES:
                        raise lacking
                    self.tree.append(leaf)
        except FileNotFoundError:
            raise lacking from None

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
        if self.tree.size and self.tree.root(head.size) != head.root:
            raise AuditDamagedError(
                f"{self._directory}: the records are not those of {known.where}: the trail was"
                " changed"
            )
