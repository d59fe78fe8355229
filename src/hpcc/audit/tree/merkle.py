"""Merkle trees of RFC 6962: roots, and proofs that a leaf is in a tree or a tree in a longer one.

Problem: who keeps a history may later cut or change it. A party that remembers one root must be
able to check that a later root contains everything that the earlier one did, without the history.

Rule: the hash of a leaf is SHA-256 of a zero byte and the leaf, that of a node SHA-256 of a one
byte and its two children. The left child of `n` leaves has the largest power of two below `n`.
Proofs are lists of hashes in the order of RFC 9162, sections 2.1.3 and 2.1.4.

Example: a scheduler has the root of 1,000 rows. The worker sends the root of 1,250 rows and at most
twenty hashes. If they lead to both roots, the first 1,000 rows are unchanged.

What must never happen: a proof is accepted that is not the one proof of these sizes and roots. So
a proof that is too long or too short is refused, and an empty one is needed where both are equal.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Final

HASH_BYTES: Final = 32
# A tree of 2**63 leaves has 63 levels; a consistency proof has at most one hash more.
MAX_PROOF: Final = 64
MAX_SIZE: Final = (1 << 63) - 1
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\0" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node over those of its children."""
    return hashlib.sha256(b"\1" + left + right).digest()


class TreeRange:
    """The right border of a growing tree: enough to append and to know the root.

    `peaks` are the hashes of the perfect subtrees that the size consists of, largest first.
    """

    __slots__ = ("peaks", "size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        """Continue a tree.

        Raises:
            ValueError: there are more or fewer peaks than the size has, or one is not a hash.
        """
        if not 0 <= size <= MAX_SIZE or len(peaks) != size.bit_count():
            raise ValueError("a tree of this size has another number of peaks")
        if any(len(peak) != HASH_BYTES for peak in peaks):
            raise ValueError("a peak is not a hash")
        self.size, self.peaks = size, list(peaks)

    def append(self, leaf: bytes) -> None:
        """Add the hash of a leaf."""
        rest = self.size
        while rest & 1:
            leaf = node_hash(self.peaks.pop(), leaf)
            rest >>= 1
        self.peaks.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """Return the root of the leaves so far."""
        if not self.peaks:
            return EMPTY_ROOT
        root = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            root = node_hash(peak, root)
        return root


class ProofMaker(ABC):
    """Makes roots and proofs of a tree from the hashes of its perfect subtrees."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Return the number of leaves."""

    @abstractmethod
    def perfect(self, level: int, index: int) -> bytes:
        """Return the hash of subtree `index` of those with 2**`level` leaves. All exist."""

    def root(self, size: int | None = None) -> bytes:
        """Return the root of the first `size` leaves, of all by default.

        Raises:
            ValueError: there are fewer leaves.
        """
        count = self.size if size is None else size
        self._require(0, count)
        return self._hash(0, count) if count else EMPTY_ROOT

    def peaks(self) -> list[bytes]:
        """Return the hashes of the perfect subtrees that the size consists of, largest first."""
        found, place = [], 0
        for level in range(self.size.bit_length() - 1, -1, -1):
            if self.size >> level & 1:
                found.append(self.perfect(level, place >> level))
                place += 1 << level
        return found

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Return the proof that leaf `index` is in the tree of the first `size` leaves.

        Raises:
            ValueError: there is no such leaf.
        """
        if index < 0:
            raise ValueError("the tree has no such leaf or size")
        self._require(index + 1, size)
        low, high, path = 0, size, []
        while high - low > 1:
            middle = low + _split(high - low)
            if index < middle:
                path.append(self._hash(middle, high))
                high = middle
            else:
                path.append(self._hash(low, middle))
                low = middle
        return path[::-1]

    def consistency(self, old: int, size: int) -> list[bytes]:
        """Return the proof that the first `old` of `size` leaves are an earlier state of the tree.

        Raises:
            ValueError: there are not so many leaves.
        """
        self._require(old, size)
        if old in {0, size}:
            return []
        low, high, path, is_whole = 0, size, [], True
        while old != high:
            middle = low + _split(high - low)
            if old <= middle:
                path.append(self._hash(middle, high))
                high = middle
            else:
                path.append(self._hash(low, middle))
                low, is_whole = middle, False
        if not is_whole:
            path.append(self._hash(low, high))
        return path[::-1]

    def _require(self, least: int, size: int) -> None:
        if not 0 <= least <= size <= self.size:
            raise ValueError("the tree has no such leaf or size")

    def _hash(self, low: int, high: int) -> bytes:
        count = high - low
        if count & (count - 1) == 0 and low % count == 0:
            return self.perfect(count.bit_length() - 1, low // count)
        middle = low + _split(count)
        return node_hash(self._hash(low, middle), self._hash(middle, high))


class LeafTree(ProofMaker):
    """A tree of leaf hashes in memory. Perfect subtrees are computed once.

    It can go on behind leaves that it does not have. Then it gives the roots and proofs of all
    sizes from theirs on, and of the leaves that it has.
    """

    def __init__(self, leaves: Iterable[bytes] = (), before: TreeRange | None = None) -> None:
        """Begin with these leaf hashes, behind the right border of those that it does not have."""
        # Level k has the hashes of perfect subtrees of 2**k leaves, from number `_begins[k]` on.
        self._levels: list[list[bytes]] = [[]]
        self._begins = [0]
        if before is not None and before.size:
            peaks = list(before.peaks)
            bits = [before.size >> level & 1 for level in range(before.size.bit_length())]
            self._levels = [[peaks.pop()] if bit else [] for bit in bits]
            self._begins = [(before.size >> level) - bit for level, bit in enumerate(bits)]
        for leaf in leaves:
            self.append(leaf)

    @property
    def size(self) -> int:
        """Return the number of leaves."""
        return self._begins[0] + len(self._levels[0])

    def append(self, leaf: bytes) -> None:
        """Add the hash of a leaf."""
        for level in range(MAX_PROOF):
            row = self._levels[level]
            row.append(leaf)
            if (self._begins[level] + len(row)) % 2:
                return
            # The left one is a peak of what was before, or behind it.
            leaf = node_hash(row[-2], row[-1])
            if level + 1 == len(self._levels):
                self._levels.append([])
                self._begins.append(0)

    def perfect(self, level: int, index: int) -> bytes:
        """Return the hash of a subtree.

        Raises:
            ValueError: it is of leaves that this tree does not have.
        """
        at = index - self._begins[level]
        if at < 0:
            raise ValueError("the tree does not have these leaves")
        return self._levels[level][at]


def _split(count: int) -> int:
    """Return the largest power of two below `count`, which is at least 2."""
    return 1 << ((count - 1).bit_length() - 1)


def is_included(leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """Return whether a proof leads from the hash of leaf `index` to the root of `size` leaves."""
    if not 0 <= index < size <= MAX_SIZE or not _is_proof(proof):
        return False
    at, last, found = index, size - 1, leaf
    for other in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            found = node_hash(other, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, other)
        at, last = at >> 1, last >> 1
    return last == 0 and found == root


def is_consistent(
    old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Return whether a proof shows that the tree of `new` leaves begins with that of `old`."""
    if not 0 <= old <= new <= MAX_SIZE or not _is_proof(proof):
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    hashes = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    return bool(hashes) and _leads_to_both(old, new, old_root, new_root, hashes)


def _leads_to_both(
    old: int, new: int, old_root: bytes, new_root: bytes, hashes: list[bytes]
) -> bool:
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    first = second = hashes[0]
    for other in hashes[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            first, second = node_hash(other, first), node_hash(other, second)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            second = node_hash(second, other)
        at, last = at >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


def _is_proof(proof: Sequence[bytes]) -> bool:
    return len(proof) <= MAX_PROOF and all(len(other) == HASH_BYTES for other in proof)
