"""`verify`: checks a whole trail against itself, its seals, and anchors from schedulers.

Problem: a party that can write a worker's disk may want to change, remove, move or insert rows.
`verify` must find that, and an auditor must know what its success proves.

What is checked, and what it proves:

- Chain. Each record holds its number and the hash of the record before it. A record that was
  changed, removed, moved or inserted breaks the chain, unless all later ones were written again.
- Seals. A seal is signed and names a segment's first record, size and last hash, and from which
  record on each one is signed. The seals form one chain from the first record on, all signed by one
  key. So sealed records cannot be written again without the worker's audit key.
- Signatures. Each record has its writer's signature, except those of an earlier version, which come
  first. So nobody without the key can put a record into the open segment.
- Retention. Records may be missing only at the beginning, only whole segments, and only if an
  `audit-retired` event later in the chain covers them. The event must be signed, or lie where a
  seal or an anchor covers it, as in a trail of an earlier version.
- Anchors. An anchor is a signed head that a scheduler received with a heartbeat and stored. At
  its count the trail must have its hash, and the trail must be at least as long. So a cut end, or
  a trail that was written again even with the worker's key, is found up to the newest anchor.
- One worker wrote all records, and one key signed all seals and anchors.
- Indexes. The index of each sealed segment has the sealed digest and what the segment has, so
  that no query passes over a record.

What is not proven: without anchors, that the end is not cut off, or that the trail is not a new
one with a new key. With anchors, the same for the records after the newest one. And never that
a row is true: a worker under foreign control can write false rows. An incomplete last frame of the
open segment is not damage, because a crash leaves one.

Example: somebody deletes record 700 of 1000 in the open segment and writes the later ones again
with new numbers and hashes. The chain is consistent. The scheduler has an anchor of 900 records
with another hash, so `verify` reports "the trail was written anew".

What must never happen: `verify` succeeds although an anchor that it got contradicts the trail, or
compares anchors of several workers.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcc.audit.base.canonical import GENESIS, AuditDamagedError, Record
from hpcc.audit.base.frames import is_signed_by
from hpcc.audit.base.heads import check_head, head_of_text
from hpcc.audit.base.retirement import baseless, retired_until
from hpcc.audit.base.segments import Placed, Seal, seals, segment_path, spool_path
from hpcc.audit.base.signer import has_signer, writers_key
from hpcc.audit.base.signing import is_signing_event
from hpcc.audit.base.trail import Retired, require_trail, walk
from hpcc.audit.lookup.comparison import IndexComparison
from hpcc.core import CallerError
from hpcc.ports import SignedHead

MAX_ANCHOR_FILE_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """The summary of a verified trail.

    `signed` of the kept records have the writer's signature; `unsigned` have none, as an earlier
    version wrote them, and no seal or anchor covers `unproved` of these. `indexes` of its sealed
    `segments` have an index, which has what the segment has.

    It has the records from `first` up to `count` - 1, of `count` that were ever written. Retention
    removed those before `first`. `head` is the hash of the last record. `anchors` is how many
    anchors matched; `older_anchors` fall inside removed segments. `newest_anchor` is the record
    count of the newest anchor. `keys` (hex) signed seals and anchors.
    """

    count: int
    head: str
    first: int = 0
    seals: int = 0
    segments: int = 0
    indexes: int = 0
    signed: int = 0
    unsigned: int = 0
    unproved: int = 0
    anchors: int = 0
    older_anchors: int = 0
    newest_anchor: int = 0
    keys: tuple[str, ...] = ()


@dataclass(slots=True)
class _Expected:
    """The hashes of anchors by record count, and the keys (hex) that signed them."""

    by_count: dict[int, str] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)


def verify_trail(directory: Path, anchors: Iterable[SignedHead] = ()) -> Verified:
    """Read the whole trail and check it against its seals, its indexes and `anchors`.

    Raises:
        NotFoundError: nothing was recorded in `directory` yet.
        AuditDamagedError: a record was changed, removed, inserted or moved, or the end is missing.
        IndexChangedError: the trail is intact, and an index is not the one that was sealed.
        CallerError: the anchors are of several workers.
    """
    require_trail(directory)
    expected = _check_anchors(anchors)
    sealed = list(seals(directory))
    keys = {seal.signed.key.hex() for seal in sealed}
    _check_keys(keys, expected.keys)
    key = bytes.fromhex(min(expected.keys)) if expected.keys else writers_key(directory, sealed)
    checker = _Checker(directory, expected.by_count, sealed, key)
    with closing(IndexComparison(directory, sealed)) as compared:
        for item in walk(directory):
            if isinstance(item, Retired):
                checker.retired(item)
            else:
                checker.take(item)
                compared.take(item)
        checker.end()
        # Last: a segment that was changed is the worse damage.
        compared.end()
    return Verified(
        count=checker.count,
        head=checker.head,
        first=checker.first,
        seals=len(sealed),
        segments=len(sealed) - checker.removed,
        indexes=compared.compared,
        signed=checker.signed,
        unsigned=checker.unsigned,
        unproved=checker.unproved,
        anchors=checker.matched,
        older_anchors=checker.older,
        newest_anchor=max(expected.by_count, default=0),
        keys=tuple(sorted(keys | expected.keys)),
    )


class _Checker:
    """Follows the chain, checks signatures, and compares heads with the anchors.

    `key` is that of anchors, seals, or the file that names the writer.
    """

    def __init__(
        self, directory: Path, by_count: dict[int, str], sealed: list[Seal], key: bytes
    ) -> None:
        self._directory, self._by_count = directory, by_count
        self._signing_from = {seal.end for seal in sealed if seal.is_signing}
        self._signing_from |= {s.signed_from for s in sealed if s.signed_from is not None}
        if has_signer(directory):
            self._signing_from.add(max((seal.end for seal in sealed), default=0))
        self._key = key
        self._must_be_signed = False
        self.signed = self.unsigned = self.unproved = 0
        # A signed head covers the records below this number.
        self._proved = max((*by_count, *(seal.end for seal in sealed)), default=0)
        self.count, self.head, self.first = 0, GENESIS, 0
        self.matched = self.older = self.removed = 0
        self._until = 0
        # The record that says that retention removed records, and that anybody can have written.
        self._baseless: int | None = None
        self._workers: set[str] = set()
        if 0 in by_count:
            self._match(0, GENESIS)

    def retired(self, item: Retired) -> None:
        """Add a segment that retention removed."""
        if self.first != self.count:
            raise AuditDamagedError(f"records from {item.seal.first} on are missing in the middle")
        self.older += sum(1 for count in self._by_count if self.count < count < item.seal.end)
        self.count, self.head = item.seal.end, item.seal.signed.head
        self.first = self.count
        self.removed += 1
        self._workers.add(item.seal.signed.worker)
        self._must_be_signed = self._must_be_signed or item.seal.is_signing
        self._match(self.count, self.head)

    def take(self, placed: Placed) -> None:
        """Add the next record, whose place in the chain was checked."""
        record = placed.record
        self._check_signature(placed)
        self.count, self.head = record.sequence + 1, record.hash
        self._workers.add(record.worker)
        self._match(self.count, self.head)
        self._follow(record)

    def _follow(self, record: Record) -> None:
        """Note what retention removed. Nobody without the key may be able to put that in."""
        until = retired_until(record)
        if record.signature or record.sequence < self._proved:
            self._until = max(self._until, until)
        elif until:
            self._baseless = record.sequence

    def _check_signature(self, placed: Placed) -> None:
        record = placed.record
        is_begin = record.sequence in self._signing_from or is_signing_event(record)
        if is_begin or record.signature:
            self._must_be_signed = True
        if not self._must_be_signed:
            self.unsigned += 1
            self.unproved += record.sequence >= self._proved
            return
        if not record.signature:
            raise self._unsigned(placed, "is not signed, and should be: it was put in")
        if not is_signed_by(record, self._key):
            raise self._unsigned(placed, "has a wrong signature: it was changed or put in")
        self.signed += 1

    def _unsigned(self, placed: Placed, why: str) -> AuditDamagedError:
        path = segment_path(self._directory, placed.segment)
        where = path if path.exists() else spool_path(self._directory)
        return AuditDamagedError(f"{where}: record {placed.record.sequence} {why}")

    def _match(self, count: int, head: str) -> None:
        wanted = self._by_count.get(count)
        if wanted is None:
            return
        if wanted != head:
            raise AuditDamagedError(
                f"record {count - 1} differs from the scheduler's anchor: the trail was rewritten"
            )
        self.matched += 1

    def end(self) -> None:
        """Check what can be decided only after the last record."""
        newest = max(self._by_count, default=0)
        if newest > self.count:
            raise AuditDamagedError(
                f"the end is missing: the scheduler's anchor counts {newest} records,"
                f" this trail has {self.count}"
            )
        if self._until < self.first:
            why = f"records before {self.first} are missing, and retention did not remove them"
            if self._baseless is not None:
                why += f": {baseless(self._baseless)}"
            raise AuditDamagedError(why)
        if len(self._workers) > 1:
            raise AuditDamagedError("the trail holds records of several workers")


def _check_anchors(anchors: Iterable[SignedHead]) -> _Expected:
    expected, anchors = _Expected(), list(anchors)
    workers = {anchor.worker for anchor in anchors}
    if len(workers) > 1:
        raise CallerError(
            f"anchors of several workers ({', '.join(sorted(workers))}): choose one worker"
        )
    for anchor in anchors:
        check_head(anchor)
        expected.keys.add(anchor.key.hex())
        if expected.by_count.setdefault(anchor.count, anchor.head) != anchor.head:
            raise AuditDamagedError(
                f"two anchors of {anchor.count} records differ: the trail was rewritten"
            )
    return expected


def _check_keys(sealed: set[str], anchored: set[str]) -> None:
    if len(sealed) > 1 or len(anchored) > 1 or (sealed and anchored and sealed != anchored):
        raise AuditDamagedError(
            "seals and anchors are signed by different keys: the trail was replaced"
        )


def read_anchors(path: Path, worker: str = "") -> list[SignedHead]:
    """Read the anchors that `hpcc scheduler anchors` wrote; with `worker`, only that worker's.

    Signatures are not checked here.

    Raises:
        CallerError: the file cannot be read, is too large, or has no anchor of the worker.
        AuditDamagedError: a line is not an anchor.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ANCHOR_FILE_BYTES + 1)
    except OSError as error:
        raise CallerError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_ANCHOR_FILE_BYTES:
        raise CallerError(f"{path} is too large for anchors")
    found = [head_of_text(line) for line in data.splitlines() if line.strip()]
    chosen = [head for head in found if not worker or head.worker == worker]
    if not chosen:
        who = f" of worker {worker!r}" if worker else ""
        raise CallerError(f"{path} holds no anchor{who}: nothing to compare with")
    return chosen
