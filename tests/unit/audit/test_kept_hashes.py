"""Hashes of removed records: a forged seal can name any number of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcc.audit.base.canonical import AuditDamagedError
from hpcc.audit.tree.kept import KeptHashes
from hpcc.audit.tree.merkle import HASH_BYTES, LeafTree, leaf_hash
from hpcc.core import NotFoundError

_LEAVES = [leaf_hash(b"%d" % number) for number in range(700)]


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    tree = LeafTree(_LEAVES)
    (tmp_path / "tree-0").write_bytes(b"".join(_LEAVES))
    (tmp_path / "tree-1").write_bytes(b"".join(tree.perfect(8, index) for index in range(2)))
    return tmp_path


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 699, 700])
def test_a_border_is_that_of_the_leaves_and_a_tree_goes_on_behind_it(
    trail: Path, size: int
) -> None:
    border, whole = KeptHashes(trail, size).border(), LeafTree(_LEAVES)
    assert border.root() == whole.root(size)
    behind, sizes = LeafTree(_LEAVES[size:], before=border), range(size, len(_LEAVES) + 1)
    assert [behind.root(end) for end in sizes] == [whole.root(end) for end in sizes]


def test_more_leaves_than_there_are_are_refused(trail: Path) -> None:
    with pytest.raises(NotFoundError, match="tree-0"):
        KeptHashes(trail, 701).border()


def test_more_leaves_than_a_tree_can_have_are_refused(trail: Path) -> None:
    (trail / "tree-7").write_bytes(bytes(256 * HASH_BYTES))
    with pytest.raises(AuditDamagedError, match="more records than a tree has"):
        KeptHashes(trail, 1 << 63).border()
