"""Finds in workers' trails the rows that prove the parts of a file, and proves them.

A trail is read whole, from a worker's directory or a copy of it: its chain is checked, each row
that counts has its worker's signature, and the worker's tree is built of all records and compared
with the heads of it that the worker signed. Rows without a signature or a leaf, which an earlier
version wrote, prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpcc.audit.base.canonical import GENESIS, AuditDamagedError, Record, row_of
from hpcc.audit.base.frames import is_signed_by
from hpcc.audit.base.segments import Placed, seals
from hpcc.audit.base.signer import writers_key
from hpcc.audit.base.signing import is_signing_event
from hpcc.audit.base.trail import Retired, require_trail, walk
from hpcc.audit.tree.head import TreeHead
from hpcc.core import CallerError
from hpcc.evidence.heads import HeldCheckpoint, WorkerHead, heads_of, sealed_checkpoint
from hpcc.evidence.leaves import TrailLeaves
from hpcc.evidence.model import (
    MAX_ROW_BYTES,
    MAX_ROWS,
    EvidencePolicy,
    Making,
    ProvedRow,
    RowIndex,
    WorkerTree,
    released,
)
from hpcc.evidence.proof import sign_head


@dataclass(slots=True)
class ReadTrail:
    """What was read of a worker's trail.

    `key` is the raw key that its seals, or the file that names its writer, have. `heads` are those
    of its tree that the worker signed. `first` is the number of the first record that retention
    left; `unsigned` counts rows that would have proved a part and have no signature, `outside`
    those that are older than the tree. `tenants` are those of all rows that fit, also of rows that
    were not chosen.
    """

    worker: str
    key: bytes
    leaves: TrailLeaves
    heads: list[WorkerHead] = field(default_factory=list)
    found: list[Record] = field(default_factory=list)
    first: int = 0
    count: int = 0
    chain: str = GENESIS
    unsigned: int = 0
    outside: int = 0
    tenants: set[str] = field(default_factory=set)


def read_trail(
    directory: Path,
    wanted: frozenset[str],
    policy: EvidencePolicy,
    tenant: str | None = None,
    held: Mapping[str, HeldCheckpoint] | None = None,
) -> ReadTrail:
    """Read a trail whole; keep for each of these digests (SHA-256, hex) the row that proves most.

    With a tenant, only its rows count. `held` are heads that a scheduler holds, by worker.

    Raises:
        NotFoundError: there is no trail.
        AuditDamagedError: it was changed.
    """
    require_trail(directory)
    # Before the records: a running worker adds some, and then signs a later head.
    sealed_head = sealed_checkpoint(directory)
    sealed = list(seals(directory))
    if len({(seal.signed.key, seal.signed.worker) for seal in sealed}) > 1:
        raise AuditDamagedError(f"{directory}: the seals are of several keys or workers")
    trail = ReadTrail("", writers_key(directory, sealed), TrailLeaves(directory))
    # Popular objects have a row for each hit, so not all of them are kept.
    index = RowIndex((), policy)
    for item in walk(directory):
        is_begin, trail.worker = not trail.worker, trail.worker or _worker(item)
        if is_begin:
            key, held = trail.key, held or {}
            trail.heads = heads_of(directory, trail.worker, key, sealed_head, held)
            trail.leaves.first = _begin(trail.heads, item, sealed[-1].end if sealed else 0)
        if isinstance(item, Retired):
            if trail.count:
                raise AuditDamagedError(f"{directory}: records are missing in the middle")
            trail.first, trail.chain = item.seal.end, item.seal.signed.head
            trail.leaves.skip(trail.first)
            continue
        record = item.record
        if trail.worker != record.worker:
            raise AuditDamagedError(f"{directory} has records of several workers")
        trail.chain, trail.count = record.hash, trail.count + 1
        trail.leaves.add(record)
        if record.kind == "row" and not wanted.isdisjoint(released(record)):
            _add(index, trail, record, directory, tenant)
    for head in trail.heads:
        trail.leaves.check(head)
    best = {id(r): r for digest in wanted if (r := index.row_of(digest)) is not None}
    trail.found = sorted(best.values(), key=lambda record: record.sequence)
    return trail


def _worker(item: Retired | Placed) -> str:
    return item.seal.signed.worker if isinstance(item, Retired) else item.record.worker


def _begin(heads: list[WorkerHead], item: Retired | Placed, sealed: int) -> int:
    """Return the number of the first record that is a leaf; `sealed` records have a seal.

    Where no head says it, the tree begins with the trail if its first record is the event of this
    version, and else where the worker began it: behind the last seal.
    """
    if heads:
        return heads[0].head.first
    if isinstance(item, Placed) and not item.record.sequence and is_signing_event(item.record):
        return 0
    return sealed


def _add(
    index: RowIndex, trail: ReadTrail, record: Record, directory: Path, tenant: str | None
) -> None:
    if not record.signature:
        trail.unsigned += 1
        return
    if not is_signed_by(record, trail.key):
        raise AuditDamagedError(
            f"{directory}: record {record.sequence} has a wrong signature: it was changed or put in"
        )
    if record.sequence < trail.leaves.first:
        trail.outside += 1
        return
    row = row_of(record)
    if tenant not in {None, row.tenant}:
        return
    trail.tenants.add(row.tenant)
    if len(record.data) <= MAX_ROW_BYTES:
        index.add(record)


def read_trails(
    directories: Sequence[Path],
    makings: Iterable[Making],
    policy: EvidencePolicy,
    tenant: str | None = None,
    held: Mapping[str, HeldCheckpoint] | None = None,
) -> list[ReadTrail]:
    """Read trails for the rows that prove the parts of files.

    Raises:
        NotFoundError: a directory has no trail.
        CallerError: two are of one worker.
        AuditDamagedError: one was changed.
    """
    parts = (part for making in makings for part in making.parts)
    wanted = frozenset(part.digest for part in parts if part.digest)
    trails = [read_trail(directory, wanted, policy, tenant, held) for directory in directories]
    workers = [trail.worker for trail in trails if trail.worker]
    if len(set(workers)) < len(workers):
        raise CallerError("two of the trails are of one worker: give each once")
    return trails


def proved_rows(
    trails: Iterable[ReadTrail], making: Making, policy: EvidencePolicy
) -> tuple[ProvedRow, ...]:
    """Return the rows that prove most of each part, by worker and number, with their proofs.

    Raises:
        CallerError: they are more than evidence may have.
    """
    ordered = sorted(trails, key=lambda trail: trail.worker)
    index = RowIndex((record for trail in ordered for record in trail.found), policy)
    needed = {id(r) for part in making.parts if (r := index.row_of(part.digest)) is not None}
    if len(needed) > MAX_ROWS:
        raise CallerError(f"{making.name} needs {len(needed)} rows, more than evidence may have")
    found = []
    for trail in ordered:
        records = [record for record in trail.found if id(record) in needed]
        size = _head_of(trail, records).size if records else 0
        for record in records:
            at = trail.leaves.index_of(record)
            found.append(ProvedRow(record, at, tuple(trail.leaves.tree.inclusion(at, size))))
    return tuple(found)


def _head_of(trail: ReadTrail, records: Iterable[Record], at: float = 0.0) -> TreeHead:
    """Return the head of a worker's tree that has these rows: one that it signed, if there is one.

    Else that of all that was read, at a time.
    """
    own = _own_head(trail, records)
    return own.head if own else TreeHead(
        worker=trail.worker, size=trail.leaves.tree.size, root=trail.leaves.tree.root(),
        first=trail.leaves.first, head=trail.chain, at=at,
    )  # fmt: skip


def _own_head(trail: ReadTrail, records: Iterable[Record]) -> WorkerHead | None:
    last = max(trail.leaves.index_of(record) for record in records)
    return next((head for head in trail.heads if last < head.head.size), None)


def signed_trees(
    trails: Iterable[ReadTrail],
    rows: Iterable[ProvedRow],
    maker: bytes,
    sign: Callable[[bytes], bytes],
    at: float,
) -> tuple[WorkerTree, ...]:
    """Return the heads of the trees of the workers that these rows are of.

    The maker signs, at a time, those that no worker signed.
    """
    records = [row.record for row in rows]
    found = []
    for trail in sorted(trails, key=lambda trail: trail.worker):
        own = [record for record in records if record.worker == trail.worker]
        if own:
            head = _own_head(trail, own)
            checkpoint = (
                head.checkpoint if head else sign_head(_head_of(trail, own, at), maker, sign)
            )
            found.append(WorkerTree(trail.worker, trail.key, checkpoint))
    return tuple(found)
