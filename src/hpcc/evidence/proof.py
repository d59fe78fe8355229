"""Checkpoints of workers' trees and proofs of rows, as C2SP's texts.

Sources: https://c2sp.org/tlog-checkpoint and https://c2sp.org/tlog-proof. The tree is the one that
the worker keeps (`hpcc.audit.tree`). Its head is one that the worker signed, where there is one
that has the rows; else the maker of the evidence signs the head of what it read.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Final

from hpcc.audit.base.canonical import AuditDamagedError, Record
from hpcc.audit.tree.head import TreeHead, read_tree_head, record_leaf, sign_tree_head
from hpcc.audit.tree.merkle import HASH_BYTES, MAX_PROOF, is_included
from hpcc.audit.tree.note import MAX_NOTE_BYTES
from hpcc.evidence.forms.errors import EvidenceDamagedError
from hpcc.evidence.keys import MAKER
from hpcc.evidence.model import WorkerTree

_HEAD: Final = "c2sp.org/tlog-proof@v1"
_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,18})")
# Five lines of text, an empty one, one signature.
_NOTE_LINES: Final = 8
_MAKERS_LINE: Final = f"\n\n\N{EM DASH} {MAKER} ".encode()
_MAX_PROOF_CHARS: Final = MAX_NOTE_BYTES + 64 * MAX_PROOF


def sign_head(head: TreeHead, key: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    """Return the checkpoint of a tree, signed by the maker of the evidence."""
    return sign_tree_head(head, key, sign, MAKER)


def is_of_maker(checkpoint: bytes) -> bool:
    """Return whether a checkpoint names the maker as its signer, and not the worker."""
    return _MAKERS_LINE in checkpoint


def open_head(tree: WorkerTree, maker: bytes) -> TreeHead:
    """Return the head in a checkpoint that the worker signed, or the maker of the evidence.

    Raises:
        EvidenceDamagedError: it is another one, or in another form.
    """
    data, worker = tree.checkpoint, tree.worker
    try:
        if is_of_maker(data):
            head = read_tree_head(worker, data, maker, MAKER)
        else:
            head = read_tree_head(worker, data, tree.key)
    except AuditDamagedError as error:
        raise EvidenceDamagedError(f"the checkpoint of worker {worker}: {error}") from error
    if data.count(b"\n") != _NOTE_LINES:
        raise EvidenceDamagedError(f"the checkpoint of worker {worker} has another form")
    return head


def proof_text(index: int, proof: Sequence[bytes], checkpoint: bytes) -> str:
    """Return a proof as one text with its checkpoint."""
    hashes = "".join(f"{base64.b64encode(h).decode()}\n" for h in proof)
    return f"{_HEAD}\nindex {index}\n{hashes}\n{checkpoint.decode()}"


def read_proof(text: str, checkpoint: bytes) -> tuple[int, tuple[bytes, ...]]:
    """Return index and hashes of a proof that has this checkpoint.

    Raises:
        EvidenceDamagedError: it has another form or another checkpoint.
    """
    wrong = EvidenceDamagedError("a proof has another form, or another checkpoint")
    lines = text.partition("\n\n")[0].split("\n") if len(text) <= _MAX_PROOF_CHARS else []
    if not 2 <= len(lines) <= MAX_PROOF + 2 or not (number := _INDEX.fullmatch(lines[1])):  # noqa: PLR2004 - the lines before the hashes
        raise wrong
    try:
        proof = tuple(base64.b64decode(line, validate=True) for line in lines[2:])
    except (binascii.Error, ValueError) as error:
        raise wrong from error
    index = int(number[1])
    if any(len(h) != HASH_BYTES for h in proof) or proof_text(index, proof, checkpoint) != text:
        raise wrong
    return index, proof


def check_inclusion(record: Record, index: int, proof: Sequence[bytes], head: TreeHead) -> None:
    """Check that a record is the leaf with its number of a worker's tree, and not leaf 0.

    Raises:
        EvidenceDamagedError: it is not.
    """
    if index < 1 or record.worker != head.worker or record.sequence != head.first + index - 1:
        raise EvidenceDamagedError(f"row {record.sequence} is at another place of the tree")
    if not is_included(record_leaf(record), index, head.size, head.root, proof):
        raise EvidenceDamagedError(f"row {record.sequence} is not in the worker's tree")
