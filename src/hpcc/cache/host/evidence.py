"""What a compiler's identity was made from, and whether all of it is still as it was."""

from __future__ import annotations

import os
from typing import NamedTuple

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.trees import look_at_tree
from hpcc.cache.host.loader import Skipped
from hpcc.cache.replay.replay import NotPinnedError, Pins


class Evidence(NamedTuple):
    """Files by digest, absent names, directories of directories by their names, trees by digest.

    `skipped` are the paths that the dynamic loader skipped.
    """

    files: tuple[tuple[bytes, bytes], ...]
    absent: tuple[bytes, ...]
    listings: tuple[tuple[bytes, frozenset[bytes]], ...]
    trees: tuple[tuple[bytes, bytes], ...]
    skipped: tuple[Skipped, ...]

    def holds(self, memo: FileMemo) -> bool:
        """Tell whether every file, name and listing is as it was."""
        digest = memo.digest
        for path, expected in self.files:
            if digest(path) != expected:
                return False
        return (
            not any(map(os.path.lexists, self.absent))
            and all(directories_in(memo, path) == names for path, names in self.listings)
            and all(look_at_tree(path).digest == tree for path, tree in self.trees)
            and all(skipped.holds() for skipped in self.skipped)
        )

    def pin(self, pins: Pins) -> None:
        """Pin all of it.

        Raises:
            NotPinnedError: a stat cannot prove some of it.
        """
        pins.files(self.files)
        pins.absent(self.absent)
        pins.listings(self.listings)
        pins.trees(path for path, _ in self.trees)
        for skipped in self.skipped:
            # No check proves that a link still leads nowhere.
            if skipped.target is None or not skipped.is_proven:
                raise NotPinnedError
            pins.state(skipped.path, skipped.target)


def directories_in(memo: FileMemo, path: bytes) -> frozenset[bytes] | None:
    """Return the names of the directories in a directory; None if it is not one."""
    listing = memo.listing(path)
    return None if listing is None else listing.directories
