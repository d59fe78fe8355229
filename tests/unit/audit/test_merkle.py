"""Merkle proofs agree with the definition in RFC 6962, and no other proof is accepted."""

from __future__ import annotations

import hashlib
import random
from itertools import pairwise

import pytest

from hpcc.audit.tree.merkle import (
    EMPTY_ROOT,
    LeafTree,
    TreeRange,
    is_consistent,
    is_included,
    leaf_hash,
)

LEAVES = [
    b"",
    b"\0",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"@ABC",
    b"PQRSTUVW",
    bytes(range(96, 112)),
]
# Roots of the first 1 to 8 of these leaves, as certificate-transparency's tests have them.
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def defined_root(leaves: list[bytes]) -> bytes:
    """Return MTH of RFC 6962, section 2.1, written from the text."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + defined_root(leaves[:k]) + defined_root(leaves[k:])).digest()


def defined_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """Return PATH of RFC 6962, section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return [*defined_path(m, leaves[:k]), defined_root(leaves[k:])]
    return [*defined_path(m - k, leaves[k:]), defined_root(leaves[:k])]


def test_roots_are_those_of_certificate_transparency() -> None:
    for count, root in enumerate(ROOTS, 1):
        tree = LeafTree([leaf_hash(leaf) for leaf in LEAVES[:count]])
        assert tree.root().hex() == root
    assert LeafTree().root() == EMPTY_ROOT == hashlib.sha256().digest()


def test_all_trees_up_to_seventy_leaves_agree_with_the_definition() -> None:
    data = [b"%d" % number for number in range(70)]
    tree, border = LeafTree(), TreeRange()
    for size in range(1, len(data) + 1):
        tree.append(leaf_hash(data[size - 1]))
        border.append(leaf_hash(data[size - 1]))
        root = defined_root(data[:size])
        assert tree.root() == border.root() == root
        assert TreeRange(size, border.peaks).root() == root
        for index in range(size):
            proof = tree.inclusion(index, size)
            assert proof == defined_path(index, data[:size])
            assert is_included(leaf_hash(data[index]), index, size, root, proof)
        for old in range(size + 1):
            before = defined_root(data[:old])
            assert is_consistent(old, size, before, root, tree.consistency(old, size))


def test_a_proof_that_differs_in_any_way_is_refused() -> None:
    chosen = random.Random(7)
    tree = LeafTree([leaf_hash(b"%d" % number) for number in range(200)])
    for _ in range(400):
        size = chosen.randrange(2, 201)
        index, old = chosen.randrange(size), chosen.randrange(1, size)
        path, proof = tree.inclusion(index, size), tree.consistency(old, size)
        leaf, roots = leaf_hash(b"%d" % index), (tree.root(old), tree.root(size))
        assert is_included(leaf, index, size, roots[1], path)
        assert is_consistent(old, size, *roots, proof)
        for forged in _forgeries(path, chosen):
            assert not is_included(leaf, index, size, roots[1], forged)
        for forged in _forgeries(proof, chosen):
            assert not is_consistent(old, size, *roots, forged)
        wrong = bytes(32)
        assert not is_included(wrong, index, size, roots[1], path)
        assert not is_included(leaf, index, size, wrong, path)
        assert not is_consistent(old, size, wrong, roots[1], proof)
        assert not is_consistent(old, size, roots[0], wrong, proof)
        assert not is_consistent(size, old, roots[1], roots[0], proof)
        other = (index + 1) % size
        assert not is_included(leaf, other, size, roots[1], path)


def _forgeries(proof: list[bytes], chosen: random.Random) -> list[list[bytes]]:
    found = [[*proof, bytes(32)], [bytes(32), *proof], [*proof, *([bytes(32)] * 70)]]
    if proof:
        place = chosen.randrange(len(proof))
        found += [proof[:-1], proof[1:], [h if n != place else h[:-1] for n, h in enumerate(proof)]]
        found.append([h if n != place else bytes([h[0] ^ 1]) + h[1:] for n, h in enumerate(proof)])
    return found + [
        [*proof[:n], two, one, *proof[n + 2 :]] for n, (one, two) in enumerate(pairwise(proof))
    ]


@pytest.mark.parametrize(
    ("old", "new", "proof"),
    [(0, 3, [bytes(32)]), (3, 3, [bytes(32)]), (-1, 3, []), (3, 1 << 63, []), (4, 6, [])],
)
def test_sizes_that_no_proof_can_join_are_refused(old: int, new: int, proof: list[bytes]) -> None:
    tree = LeafTree([leaf_hash(b"%d" % n) for n in range(6)])
    assert not is_consistent(old, new, tree.root(min(max(old, 0), 6)), tree.root(6), proof)


def test_an_empty_tree_is_the_beginning_of_each_tree_and_of_no_other_root() -> None:
    tree = LeafTree([leaf_hash(b"a")])
    assert is_consistent(0, 1, EMPTY_ROOT, tree.root(), [])
    assert not is_consistent(0, 1, bytes(32), tree.root(), [])


def test_what_a_tree_does_not_have_is_refused() -> None:
    tree = LeafTree([leaf_hash(b"a")])
    for wrong in (
        lambda: tree.root(2),
        lambda: tree.inclusion(1, 1),
        lambda: tree.consistency(2, 1),
    ):
        with pytest.raises(ValueError, match="no such leaf or size"):
            wrong()
    for size, peaks in ((1, []), (2, [bytes(32)] * 2), (1, [b"short"]), (-1, [])):
        with pytest.raises(ValueError, match="peak"):
            TreeRange(size, peaks)


def test_no_proof_is_made_of_a_leaf_before_the_first() -> None:
    tree = LeafTree([leaf_hash(leaf) for leaf in LEAVES])
    for size in (0, 5):
        with pytest.raises(ValueError, match="no such leaf"):
            tree.inclusion(-1, size)


def test_a_tree_goes_on_behind_leaves_that_it_does_not_have() -> None:
    data = [leaf_hash(b"%d" % number) for number in range(70)]
    whole = LeafTree(data)
    for before in range(len(data)):
        border = LeafTree(data[:before])
        tree = LeafTree(data[before:], TreeRange(before, border.peaks()))
        assert (tree.size, tree.root(), tree.peaks()) == (70, whole.root(), whole.peaks())
        for size in range(max(before, 1), 71):
            assert tree.root(size) == whole.root(size)
            assert tree.consistency(before, size) == whole.consistency(before, size)
            for index in range(before, size):
                assert tree.inclusion(index, size) == whole.inclusion(index, size)
    with pytest.raises(ValueError, match="does not have these leaves"):
        LeafTree(data[64:], TreeRange(64, LeafTree(data[:64]).peaks())).root(63)
