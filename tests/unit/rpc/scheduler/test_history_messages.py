"""Heads of trees on the wire: what is too long, or cannot be, is refused before it is kept."""

from __future__ import annotations

import pytest

from hpcc._proto import scheduler_pb2 as pb
from hpcc.core import CallerError
from hpcc.ports import SignedTree, TreeMark
from hpcc.rpc.scheduler.api import Beat
from hpcc.rpc.scheduler.history_messages import MAX_CHECKPOINT_BYTES, mark_of, tree_of
from hpcc.rpc.scheduler.pulse import beat_message, beat_of

TREE = SignedTree(
    worker="w1", checkpoint=b"text", key=bytes(32), after=TreeMark(3, b"r" * 32),
    proof=(b"a" * 32, b"b" * 32),
)  # fmt: skip


@pytest.mark.parametrize("tree", [None, TREE])
def test_a_heartbeat_reads_back(tree: SignedTree | None) -> None:
    beat = Beat(worker_id="w1", generation=1, running=0, queued=0, tree=tree)
    assert beat_of(beat_message(beat)) == beat


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint": bytes(MAX_CHECKPOINT_BYTES + 1)},
        {"public_key": b""},
        {"public_key": bytes(33)},
        {"proof": [bytes(32)] * 65},
        {"proof": [bytes(31)]},
        {"after": {"size": 0, "root": bytes(32)}},
        {"after": {"size": 1, "root": b""}},
        {"after": {"size": 1 << 63, "root": bytes(32)}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_head_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    fields: dict[str, object] = {"checkpoint": b"text", "public_key": bytes(32), **change}
    request = pb.HeartbeatRequest(worker_id="w1", tree=pb.AuditTree(**fields))  # type: ignore[arg-type]  # as named there
    with pytest.raises(CallerError):
        tree_of(request, "w1")


def test_a_scheduler_that_names_no_tree_that_can_be_names_none() -> None:
    assert mark_of(pb.AuditTreeMark(size=0, root=bytes(32))) is None
    assert mark_of(pb.AuditTreeMark(size=5, root=bytes(3))) is None
    assert mark_of(pb.AuditTreeMark(size=5, root=bytes(32))) == TreeMark(5, bytes(32))
