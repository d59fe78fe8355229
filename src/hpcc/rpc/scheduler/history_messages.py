"""Converts heads of trees over workers' trails from and to their messages."""

from __future__ import annotations

from typing import Final

from hpcc._proto import scheduler_pb2 as pb
from hpcc.core import CallerError
from hpcc.ports import SignedTree, TreeMark

MAX_CHECKPOINT_BYTES: Final = 2048
_MAX_PROOF: Final = 64
_HASH_BYTES: Final = 32
_KEY_BYTES: Final = 32
_MAX_SIZE: Final = (1 << 63) - 1


def tree_message(tree: SignedTree | None) -> pb.AuditTree | None:
    """Build the message of a head with its proof."""
    if tree is None:
        return None
    return pb.AuditTree(
        checkpoint=tree.checkpoint,
        public_key=tree.key,
        after=mark_message(tree.after),
        proof=tree.proof,
    )


def tree_of(request: pb.HeartbeatRequest, worker: str) -> SignedTree | None:
    """Parse the head of a heartbeat. Only sizes are checked here: the backend checks the rest.

    Raises:
        CallerError: a part is too long, or is not a hash or a key.
    """
    if not request.HasField("tree"):
        return None
    tree = request.tree
    if len(tree.checkpoint) > MAX_CHECKPOINT_BYTES or len(tree.public_key) != _KEY_BYTES:
        raise CallerError("the head of a tree is too long, or its key is none")
    if len(tree.proof) > _MAX_PROOF or any(len(h) != _HASH_BYTES for h in tree.proof):
        raise CallerError(f"a proof has at most {_MAX_PROOF} hashes of {_HASH_BYTES} bytes")
    after = mark_of(tree.after) if tree.HasField("after") else None
    if tree.HasField("after") and after is None:
        raise CallerError("the head before has no such size or root")
    return SignedTree(
        worker=worker,
        checkpoint=tree.checkpoint,
        key=tree.public_key,
        after=after,
        proof=tuple(tree.proof),
    )


def mark_message(mark: TreeMark | None) -> pb.AuditTreeMark | None:
    """Build the message of a size and a root."""
    return None if mark is None else pb.AuditTreeMark(size=mark.size, root=mark.root)


def mark_of(message: pb.AuditTreeMark) -> TreeMark | None:
    """Parse a size and a root; None if they cannot be those of a tree."""
    if len(message.root) != _HASH_BYTES or not 0 < message.size <= _MAX_SIZE:
        return None
    return TreeMark(message.size, message.root)
