"""Hashes of removed records, read from the files of the tree: a few, however large the files are.

`tree-0` of a copy can be a sparse file of terabytes, and a seal can name any number of records. So
nothing here depends on the size of a file: each hash is computed from at most 128 of one file.

What is read proves nothing. The caller compares a root with a head that the worker signed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from hpcc.audit.base.canonical import AuditDamagedError
from hpcc.audit.base.segments import open_trail_file
from hpcc.audit.tree.merkle import HASH_BYTES, MAX_SIZE, ProofMaker, TreeRange, node_hash
from hpcc.core import NotFoundError

# `tree-L` has the hashes of the perfect subtrees of 256**L leaves.
STEP: Final = 8


class KeptHashes(ProofMaker):
    """The first `size` leaves of a trail's tree, of whose records only hashes are left."""

    def __init__(self, directory: Path, size: int) -> None:
        self._directory, self._size = directory, size

    @property
    def size(self) -> int:
        return self._size

    def perfect(self, level: int, index: int) -> bytes:
        """Return the hash of a perfect subtree.

        Raises:
            NotFoundError: the file that should have it is missing, or is shorter.
            AuditDamagedError: it is not a regular file.
        """
        step, rest = divmod(level, STEP)
        path, count = self._directory / f"tree-{step}", 1 << rest
        begin, data = (index << rest) * HASH_BYTES, b""
        with suppress(FileNotFoundError), open_trail_file(path) as file:
            # Before the place is looked up: it may be beyond what any file can have.
            if file.seek(0, os.SEEK_END) >= begin:
                file.seek(begin)
                data = file.read(count * HASH_BYTES)
        if len(data) != count * HASH_BYTES:
            raise NotFoundError(
                f"{path} lacks hashes of records that retention removed: copy the tree-… files with"
                " the trail"
            )
        return folded([data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)])

    def border(self) -> TreeRange:
        """Return the right border, behind which the kept records follow.

        Raises:
            NotFoundError: a file that should have a part of it is missing, or is shorter.
            AuditDamagedError: one is not a regular file, or a tree has fewer leaves.
        """
        if self._size > MAX_SIZE:
            raise AuditDamagedError(f"{self._directory}: a seal is of more records than a tree has")
        return TreeRange(self._size, self.peaks())


def folded(hashes: list[bytes]) -> bytes:
    """Return the root of a power of two of neighbours."""
    while len(hashes) > 1:
        hashes = [node_hash(*hashes[i : i + 2]) for i in range(0, len(hashes), 2)]
    return hashes[0]
