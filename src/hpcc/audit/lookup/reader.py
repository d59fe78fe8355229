"""Answers queries from a trail: what it yields was read from a segment and checked.

Problem: who can write the disk may change, remove or add rows of an index, so that a query shows
another history than the segments have.

Rule: an index only says where to look. A record of a sealed segment is proved by its hash in the
index, whose digest the worker signed with the seal. Without an index, or with `exhaustive`, the
whole segment is read, and its chain must end at the sealed head before anything of it is yielded.
The open segment has no index. Its chain must begin at the last seal.

Example: somebody deletes a row of `sealed-…07.idx`. Its bytes are then not those that were sealed,
so a query that would use it fails and names segment 7. It does not answer from the other ones.

What must never happen: a record is yielded whose bytes were not compared, or an index answers that
is not the sealed one, or a missing segment that retention did not remove is passed over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

from hpcc.audit.base.canonical import AuditDamagedError, Record, decode_record, record_hash
from hpcc.audit.base.frames import is_signed_by, read_frames
from hpcc.audit.base.packed import frame_at, open_segment
from hpcc.audit.base.query import Query, matches
from hpcc.audit.base.retirement import baseless, retired_until
from hpcc.audit.base.segments import Seal, first_signed, seals, segment_path
from hpcc.audit.base.signer import has_signer, writers_key
from hpcc.audit.base.signing import SIGNING_EVENT, is_signing_event
from hpcc.audit.base.trail import Retired, TrailStart, require_trail, walk, walk_segment
from hpcc.audit.lookup.index import FoundRecord
from hpcc.audit.lookup.sealed import read_index_or_none, statements_of
from hpcc.core import CallerError, NotFoundError

# More than a trail can have.
_NEVER: Final = 1 << 64


class TrailReader:
    """Reads one trail, also while its writer runs. It writes nothing. Not thread-safe."""

    def __init__(self, directory: Path, *, is_exhaustive: bool = False) -> None:
        """Prepare to read a trail; an exhaustive reader uses no index.

        Raises:
            NotFoundError: nothing was recorded in `directory` yet.
        """
        require_trail(directory)
        self._directory, self._is_exhaustive = directory, is_exhaustive
        # Retention removed the records below this number, and recorded it.
        self._retired = 0
        # How many records were found that have no signature, and that no seal covers.
        self.unproved = 0
        self._begun: bool | None = None
        # The writer's key, and the record from which on each one is signed.
        self._signing: tuple[bytes, int] | None = None

    def find(self, query: Query, *, oldest_first: bool = False) -> Iterator[Record]:
        """Yield the records that match, newest first unless `oldest_first`.

        Raises:
            AuditDamagedError: the trail was changed.
            IndexChangedError: an index was changed; see `sealed.changed`.
        """
        sealed = self._seals()
        after = _start_after(sealed)
        if oldest_first:
            found = self._oldest(query, sealed, after)
        else:
            found = self._newest(query, sealed, after)
        return islice(found, query.limit)

    def row(self, row_id: str) -> Record:
        """Return the row whose id starts with `row_id`.

        Raises:
            NotFoundError: there is no such row.
            CallerError: several rows start with it.
            AuditDamagedError: the trail was changed, or the row's signature.
        """
        rows = list(self.find(Query(row_id=row_id, since=-float(1 << 63), limit=2)))
        if not rows:
            raise NotFoundError(f"no audit row {row_id[:80]!r}: see `hpcc audit list`")
        if len(rows) > 1:
            raise CallerError(f"several audit rows start with {row_id[:80]!r}: give more of it")
        self.require_signature(rows[0])
        return rows[0]

    def require_signature(self, record: Record) -> None:
        """Check the signature of a record, or that it may have none, before somebody names it.

        The hash that proves a sealed record does not cover its signature: who writes the disk can
        change it or take it away.

        Raises:
            AuditDamagedError: the signature is wrong, or is missing and should not be.
        """
        if self._signing is None:
            sealed = self._seals()
            events = _Events(self._directory, is_exhaustive=self._is_exhaustive)
            begin = events.signing_from(sealed)
            for seal in sealed:
                known = first_signed(seal, None)
                begin = begin if known is None else min(begin, known)
            self._signing = writers_key(self._directory, sealed), begin
        key, begin = self._signing
        if not record.signature:
            if record.sequence >= begin:
                raise _unsigned(record)
        elif not is_signed_by(record, key):
            raise _wrong(record)

    def has(self, seal: Seal, query: Query) -> bool:
        """Return whether a sealed segment has a matching record.

        Raises:
            AuditDamagedError: the segment is missing, or was changed.
            IndexChangedError: its index was changed.
        """
        return any(True for _ in self._sealed(seal, query, oldest_first=True))

    def _seals(self) -> list[Seal]:
        found = list(seals(self._directory))
        if len({(seal.signed.key, seal.signed.worker) for seal in found}) > 1:
            raise AuditDamagedError("the seals are of several keys or workers")
        return found

    def _oldest(self, query: Query, sealed: list[Seal], after: TrailStart) -> Iterator[Record]:
        for seal in sealed:
            yield from self._sealed(seal, query, oldest_first=True)
        yield from self._open(query, sealed, after)

    def _newest(self, query: Query, sealed: list[Seal], after: TrailStart) -> Iterator[Record]:
        # Their bytes: decoded, a segment of 64 MiB would take ten times as much memory.
        last: deque[tuple[bytes, bytes]] = deque(maxlen=min(query.limit, 1 << 40))
        for record in self._open(query, sealed, after):
            last.append((record.data, record.signature))
        while last:
            yield decode_record(*last.pop())
        for seal in reversed(sealed):
            yield from self._sealed(seal, query, oldest_first=False)

    def _open(self, query: Query, sealed: list[Seal], after: TrailStart) -> Iterator[Record]:
        """Yield the matching records that no seal covers yet.

        Raises:
            AuditDamagedError: one is not signed by the writer's key, or nothing names that key.
        """
        must_be_signed, key = self._signs(sealed), writers_key(self._directory, sealed)
        for item in walk(self._directory, after):
            if isinstance(item, Retired):
                continue
            record = item.record
            must_be_signed = must_be_signed or bool(record.signature) or is_signing_event(record)
            if must_be_signed and not record.signature:
                raise _unsigned(record)
            if matches(record, query):
                if record.signature and not is_signed_by(record, key):
                    raise _wrong(record)
                if not record.signature:
                    # Seals can be made to look like those of an earlier version, their records not.
                    must_be_signed = self._has_begun(sealed)
                    if must_be_signed:
                        raise _unsigned(record)
                    self.unproved += 1
                yield record

    def _signs(self, sealed: list[Seal]) -> bool:
        """Return whether each record after the seals must be signed."""
        if has_signer(self._directory) or any(seal.is_signing for seal in sealed):
            return True
        if not sealed:
            return False
        # Without the seals' word, a signed frame in the last segment shows it.
        try:
            with open_segment(segment_path(self._directory, sealed[-1].first)) as file:
                return any(frame.signature for frame in islice(read_frames(file), 1))
        except FileNotFoundError:
            return False

    def _has_begun(self, sealed: list[Seal]) -> bool:
        """Return whether a sealed segment has the event that says that later records are signed."""
        if self._begun is None:
            events = _Events(self._directory, is_exhaustive=self._is_exhaustive)
            self._begun = events.signing_from(sealed) < _NEVER
        return self._begun

    def _sealed(self, seal: Seal, query: Query, *, oldest_first: bool) -> Iterator[Record]:
        """Yield the matching records of a sealed segment."""
        statements = [] if self._is_exhaustive else statements_of(self._directory, seal)
        if statements and not any(s.overlaps(query) for s in statements):
            return
        try:
            file = open_segment(segment_path(self._directory, seal.first))
        except FileNotFoundError:
            self._require_retired(seal)
            return
        with file:
            index = read_index_or_none(self._directory, seal, statements)
            if index is None:
                places = self._scanned(seal, query)
                yield from _proved(file, places if oldest_first else reversed(places), query)
                return
            try:
                found = index.find(query, oldest_first=oldest_first)
                yield from _proved(file, found, query)
            finally:
                index.close()

    def _scanned(self, seal: Seal, query: Query) -> list[FoundRecord]:
        """Read a whole segment against its seal; return where matching records are."""
        try:
            return [
                FoundRecord(item.record.sequence, item.place, item.record.hash)
                for item in walk_segment(self._directory, seal)
                if matches(item.record, query)
            ]
        except FileNotFoundError:
            self._require_retired(seal)
            return []

    def _require_retired(self, seal: Seal) -> None:
        """Check that retention removed a segment that is missing.

        It removes the oldest first, and records that before.

        Raises:
            AuditDamagedError: it did not.
        """
        if seal.end <= self._retired:
            return
        where = segment_path(self._directory, seal.first)
        earlier = (s for s in self._seals() if s.first < seal.first)
        if any(segment_path(self._directory, s.first).exists() for s in earlier):
            raise AuditDamagedError(f"{where} is missing, and earlier segments are not")
        events, why = _Events(self._directory, is_exhaustive=self._is_exhaustive), ""
        for record in events.find(
            Query(kind="event", name="audit-retired", since=-float(1 << 63), limit=1 << 62)
        ):
            if not record.signature and record.sequence >= self._proved():
                # Who can write the disk can have put it in.
                why = why or f": {baseless(record.sequence)}"
                continue
            self._retired = max(self._retired, retired_until(record))
            if seal.end <= self._retired:
                return
        raise AuditDamagedError(f"{where} is missing, and retention did not remove it{why}")

    def _proved(self) -> int:
        """Return the number below which each record is covered by a seal."""
        return max((seal.end for seal in self._seals()), default=0)


class _Events(TrailReader):
    """Looks for what retention recorded, in the segments that exist."""

    def _require_retired(self, seal: Seal) -> None:
        """Pass over a missing segment: the event about it is in a later one."""

    def signing_from(self, sealed: list[Seal]) -> int:
        """Return the record that says that it and later ones are signed; `_NEVER` without one."""
        begun = Query(kind="event", name=SIGNING_EVENT, since=-float(1 << 63), limit=1)
        found = (r for seal in sealed for r in self._sealed(seal, begun, oldest_first=True))
        return next((record.sequence for record in found), _NEVER)


def _wrong(record: Record) -> AuditDamagedError:
    return AuditDamagedError(
        f"record {record.sequence} has a wrong signature: it was changed or put in"
    )


def _unsigned(record: Record) -> AuditDamagedError:
    return AuditDamagedError(
        f"record {record.sequence} is not signed, and should be: it was put in"
    )


def _start_after(sealed: list[Seal]) -> TrailStart:
    if not sealed:
        return TrailStart()
    end, head = sealed[-1].end, sealed[-1].signed.head
    return TrailStart(end, head, 0, end, head)


def _proved(
    file: BinaryIO, places: Iterator[FoundRecord] | list[FoundRecord], query: Query
) -> Iterator[Record]:
    """Read the records at these places, compare their hashes, and yield those that match.

    Raises:
        AuditDamagedError: another record is there.
    """
    for found in places:
        try:
            frame = frame_at(file, found.place, found.sequence)
        except AuditDamagedError as error:
            raise AuditDamagedError(f"{file.name}: {error}") from error
        if record_hash(frame.data) != found.hash:
            raise AuditDamagedError(
                f"{file.name}: record {found.sequence} is not the one that was sealed"
            )
        record = decode_record(frame.data, frame.signature)
        if record.sequence != found.sequence:
            raise AuditDamagedError(f"{file.name}: the sealed index has a record twice")
        if matches(record, query):
            yield record
