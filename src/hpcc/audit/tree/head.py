"""The signed head of the tree over a worker's trail, and whether one extends another.

A head is a C2SP checkpoint with three further lines: `first N`, the number of the record that is
the second leaf; `chain HASH`, the hash of the last record; `at SECONDS`, by the worker's clock.

Leaf 0 is the chain before the tree began: how many records it had, and the hash of the last one.
Each later leaf is a record with its signature. So a tree can begin in a trail that is older.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hpcc.audit.base.canonical import AuditDamagedError, Record
from hpcc.audit.base.heads import KEY_BYTES, MAX_COUNT
from hpcc.audit.tree.merkle import is_consistent, leaf_hash
from hpcc.audit.tree.note import Checkpoint, NoteKey, open_checkpoint, sign_note
from hpcc.ports import SignedTree, TreeMark

_START: Final = b"hpcc-audit-tree-1\0"
ORIGIN: Final = "hpcc.example/audit/"
_PLAIN: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_FIRST: Final = re.compile(r"first (0|[1-9][0-9]{0,18})")
_CHAIN: Final = re.compile(r"chain ([0-9a-f]{64})")
_AT: Final = re.compile(r"at (-?[0-9.e+-]{1,32})")
_LINES: Final = 3
# A checkpoint of hpcc has about 500 bytes.
MAX_CHECKPOINT_BYTES: Final = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeHead:
    """The head of a tree: `size` leaves with `root`.

    Its second leaf is record `first`, its last one the record of hash `head`. `at` is in seconds
    since the epoch.
    """

    worker: str
    size: int
    root: bytes
    first: int
    head: str
    at: float

    @property
    def mark(self) -> TreeMark:
        """Return size and root."""
        return TreeMark(self.size, self.root)

    @property
    def count(self) -> int:
        """Return how many records the chain has."""
        return self.first + self.size - 1


def start_leaf(first: int, head: str) -> bytes:
    """Return the hash of the first leaf: the chain of `first` records that ends in `head`."""
    return leaf_hash(_START + struct.pack(">Q", first) + bytes.fromhex(head))


def record_leaf(record: Record) -> bytes:
    """Return the hash of a record's leaf, of its bytes and its signature."""
    return leaf_hash(record.data + record.signature)


def origin_of(worker: str) -> str:
    """Return the name of a worker's tree; a hash stands for a name that a note cannot have."""
    name = worker if _PLAIN.fullmatch(worker) else f"sha256-{_hex(worker)}"
    return f"{ORIGIN}{name}"


def _hex(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def sign_tree_head(
    head: TreeHead, key: bytes, sign: Callable[[bytes], bytes], signer: str = ""
) -> bytes:
    """Return a head as a signed checkpoint. `signer` names the key if it is not the worker's."""
    name = NoteKey(signer or origin_of(head.worker), key)
    return sign_note(tree_text(head), name, sign).encode()


def tree_text(head: TreeHead) -> str:
    """Return the text that is signed of a head."""
    lines = (f"first {head.first}", f"chain {head.head}", f"at {head.at!r}")
    return Checkpoint(origin_of(head.worker), head.size, head.root, lines).text()


def read_tree_head(worker: str, checkpoint: bytes, key: bytes, signer: str = "") -> TreeHead:
    """Return the head of a worker's tree that a key signed. The caller checks whose key it is.

    `signer` names the key if it is not the worker's.

    Raises:
        AuditDamagedError: it is of another worker, has another form, or a wrong signature.
    """
    if len(key) != KEY_BYTES or len(checkpoint) > MAX_CHECKPOINT_BYTES:
        raise AuditDamagedError("the head of a tree has no such key or size")
    origin = origin_of(worker)
    found = open_checkpoint(checkpoint, [NoteKey(signer or origin, key)], origin)
    matches = [
        pattern.fullmatch(line)
        for pattern, line in zip((_FIRST, _CHAIN, _AT), found.extension, strict=False)
    ]
    if len(found.extension) != _LINES or not all(matches) or not found.size:
        raise AuditDamagedError("the head of a tree has another form")
    first, chain, at = (m[1] for m in matches if m)
    try:
        seconds = float(at)
    except ValueError as error:
        raise AuditDamagedError("the head of a tree has no such time") from error
    if not math.isfinite(seconds) or int(first) + found.size > MAX_COUNT:
        raise AuditDamagedError("the head of a tree has no such time or number")
    return TreeHead(
        worker=worker, size=found.size, root=found.root, first=int(first), head=chain, at=seconds
    )


def what_changed(held: TreeHead, new: TreeHead, said: SignedTree) -> str:
    """Return why `new`, which came with `said`, does not extend `held`; "" if it does.

    Only a head that names `held` as its earlier one can be compared: another may be older.
    """
    if said.after != held.mark:
        raise ValueError("this proof begins at another head")
    if new.first != held.first:
        return f"its tree begins at record {new.first}, and began at {held.first}"
    if new.size < held.size:
        return f"it has {new.count} records, and had {held.count}"
    if not is_consistent(held.size, new.size, held.root, new.root, said.proof):
        return f"its first {held.count} records are not those that it had"
    return ""
