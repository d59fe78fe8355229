"""What a signer may sign: the next records of one worker, and what follows from those it signed.

Everything here is a function of a state and a request: no file, no clock, no socket. A state has
the records of one group with their signatures (`pending`), so that nothing is lost if the trail's
writer is killed before it has written them. The next group, or a seal, says that they are written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.base.canonical import (
    GENESIS,
    MAX_RECORD_BYTES,
    AuditDamagedError,
    check_canonical,
    decode_record,
    record_hash,
)
from hpcc.audit.base.frames import LENGTH, framed
from hpcc.audit.base.heads import HeadSigner, head_message
from hpcc.audit.base.index_statement import index_message, unsigned_index
from hpcc.audit.base.segments import Seal, parse_seal, seal_message
from hpcc.audit.base.trail_signer import (
    IndexDigest,
    SignerRefusedError,
    TrailEnd,
    Wanted,
    WantedHead,
    WantedIndex,
    WantedName,
    WantedSeal,
    WantedTree,
)
from hpcc.audit.tree.head import TreeHead, tree_text
from hpcc.audit.tree.merkle import TreeRange, leaf_hash
from hpcc.ports import SignedHead

# What a frame has beside the record and its signature: a length and a newline.
_AROUND: Final = LENGTH.size + 1


@dataclass(frozen=True, slots=True)
class Point:
    """An end of the trail: `count` records, the last of hash `head`, and the peaks of the tree.

    `written` is the size of all frames since this signer began.
    """

    count: int
    head: str
    peaks: tuple[bytes, ...]
    written: int


@dataclass(frozen=True, slots=True)
class SegmentStart:
    """Where a segment begins: its first record, the hash before it, and `Point.written` there."""

    first: int
    previous: str
    begin: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerState:
    """What a signer has signed. `base` is before the pending records, `tip` behind them.

    `segment` is the open segment. `sealed` is where the next one begins if the writer wrote the
    last seal that it got.
    """

    worker: str
    tree_first: int
    base: Point
    tip: Point
    segment: SegmentStart
    sealed: SegmentStart | None = None
    signed_from: int | None = None
    # The records of the last group, each with its signature.
    pending: tuple[tuple[bytes, bytes], ...] = ()


def begun(worker: str, end: TrailEnd) -> LedgerState:
    """Return the first state of a signer, for a trail that ends there."""
    point = Point(end.count, end.head, end.peaks, end.size_bytes)
    return LedgerState(
        worker=worker, tree_first=end.tree_first, base=point, tip=point,
        segment=SegmentStart(end.first, end.previous, 0), signed_from=end.signed_from,
    )  # fmt: skip


def extended(base: Point, tree_first: int, pending: Sequence[tuple[bytes, bytes]]) -> Point:
    """Return the end of a trail behind further records. Their form is not checked."""
    tree = TreeRange(base.count - tree_first + 1, base.peaks)
    head, written = base.head, base.written
    for data, signature in pending:
        tree.append(leaf_hash(data + signature))
        head, written = record_hash(data), written + len(data) + len(signature) + _AROUND
    return Point(base.count + len(pending), head, tuple(tree.peaks), written)


def frames_from(state: LedgerState, count: int) -> bytes:
    """Return the frames of the pending records from number `count` on."""
    return b"".join(framed(*item) for item in state.pending[count - state.base.count :])


class Ledger:
    """Decides what one worker's signer signs, and signs it. It keeps no state."""

    def __init__(self, worker: str, key: Ed25519PrivateKey) -> None:
        self._worker, self._key = worker, HeadSigner(worker, key)
        self.public_key = self._key.public_key

    def records(
        self, state: LedgerState, records: Sequence[bytes]
    ) -> tuple[LedgerState, list[bytes]]:
        """Sign the next records; return the new state, which must be durable before they leave.

        The records of the last group get the signatures that they had.

        Raises:
            SignerRefusedError: they are not the next records of this worker.
        """
        known = [data for data, _ in state.pending]
        if known and list(records) == known:
            return state, [signature for _, signature in state.pending]
        count, head = state.tip.count, state.tip.head
        for data in records:
            head = self._require_next(data, count, head)
            count += 1
        signatures = self._key.sign_records(records)
        pending = tuple(zip(records, signatures, strict=True))
        tip = extended(state.tip, state.tree_first, pending)
        return replace(state, base=state.tip, tip=tip, pending=pending), signatures

    def _require_next(self, data: bytes, count: int, head: str) -> str:
        """Check that bytes are record `count` behind hash `head`; return their hash."""
        if len(data) > MAX_RECORD_BYTES:
            raise SignerRefusedError("a record is too large")
        try:
            record = decode_record(data)
            if record.worker != self._worker:
                raise SignerRefusedError("a record of another worker is not signed")
            if record.sequence < count:
                raise SignerRefusedError(
                    f"record {record.sequence} was signed with other bytes; the next one is {count}"
                )
            if record.sequence > count or record.previous != head:
                raise SignerRefusedError(
                    f"record {record.sequence} does not follow: the next one is {count}"
                )
            check_canonical(record)
        except AuditDamagedError as error:
            raise SignerRefusedError(f"record {count} is not signed: {error}") from error
        return record.hash

    def text(self, state: LedgerState, wanted: Wanted) -> tuple[LedgerState, bytes]:
        """Make the text that is wanted; return it with the new state, another one for a seal.

        Raises:
            SignerRefusedError: it does not follow from what was signed.
        """
        match wanted:
            case WantedHead():
                point = _point(state, wanted.count)
                return state, head_message(self._worker, point.count, point.head, wanted.at)
            case WantedTree():
                return state, self._tree_text(state, _point(state, wanted.count), wanted.at)
            case WantedSeal():
                return self._seal(state, wanted)
            case WantedIndex():
                return state, self._index_text(state, wanted)
            case WantedName():
                return state, self.name_text(wanted)

    def name_text(self, wanted: WantedName) -> bytes:
        """Return the text that names the key: a head of no records. It needs no state."""
        return head_message(self._worker, 0, GENESIS, wanted.at)

    def sign(self, text: bytes) -> bytes:
        """Return the signature of a text that `text` returned."""
        return self._key.sign_message(text)

    def _tree_text(self, state: LedgerState, point: Point, at: float) -> bytes:
        size = point.count - state.tree_first + 1
        head = TreeHead(
            worker=self._worker, size=size, root=TreeRange(size, point.peaks).root(),
            first=state.tree_first, head=point.head, at=at,
        )  # fmt: skip
        return tree_text(head).encode()

    def _seal(self, state: LedgerState, wanted: WantedSeal) -> tuple[LedgerState, bytes]:
        start, tip = _segment(state, wanted.first), state.tip
        allowed = {start.first, tip.count} if state.signed_from is None else {state.signed_from}
        if wanted.signed_from not in allowed:
            raise SignerRefusedError(f"records are not signed from {wanted.signed_from} on")
        index = None
        if wanted.index is not None:
            index = unsigned_index(
                self._worker, self.public_key, start.first, tip.head, wanted.index
            )
            index = replace(index, signature=self.sign(index_message(index)))
        head = SignedHead(
            worker=self._worker, count=tip.count, head=tip.head, at=wanted.at,
            key=self.public_key, signature=b"",
        )  # fmt: skip
        seal = Seal(
            first=start.first, previous=start.previous, size_bytes=tip.written - start.begin,
            signed=head, index=index, is_signing=True, signed_from=wanted.signed_from,
        )  # fmt: skip
        following = SegmentStart(tip.count, tip.head, tip.written)
        after = replace(
            state, base=tip, pending=(), segment=start, sealed=following,
            signed_from=wanted.signed_from,
        )  # fmt: skip
        return after, seal_message(seal)

    def _index_text(self, state: LedgerState, wanted: WantedIndex) -> bytes:
        if wanted.seal:
            head = self._sealed_head(wanted.first, wanted.seal)
        else:
            _segment(state, wanted.first)
            head = state.tip.head
        digest: IndexDigest = wanted.index
        return index_message(
            unsigned_index(self._worker, self.public_key, wanted.first, head, digest)
        )

    def _sealed_head(self, first: int, data: bytes) -> str:
        """Return the hash of the last record of a segment, by a seal that this key signed."""
        try:
            seal = parse_seal(data, first)
        except AuditDamagedError as error:
            raise SignerRefusedError(f"an index is not signed: {error}") from error
        if (seal.signed.worker, seal.signed.key, seal.first) != (
            self._worker, self.public_key, first,
        ):  # fmt: skip
            raise SignerRefusedError("an index of another trail's segment is not signed")
        return seal.signed.head


def _point(state: LedgerState, count: int) -> Point:
    for point in (state.tip, state.base):
        if point.count == count:
            return point
    raise SignerRefusedError(
        f"a head of {count} records is not signed: {state.tip.count} were signed"
    )


def _segment(state: LedgerState, first: int) -> SegmentStart:
    """Return the start of the segment to seal, which has records."""
    for start in (state.segment, state.sealed):
        if start is not None and start.first == first < state.tip.count:
            return start
    raise SignerRefusedError(f"a segment that begins with record {first} is not signed")
