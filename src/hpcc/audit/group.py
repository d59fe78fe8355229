"""Writes groups of records: gives each its number, has the group signed, writes and syncs it.

A record has its number and its hash before it is signed. A signer that remembers gives nothing
else that number. So a group that was not signed or not written is *owed*: it comes first the next
time, byte for byte, although nobody waits for it any more. Its callers had an error meanwhile, and
released nothing.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Final

from hpcc.audit.base.canonical import MAX_RECORD_BYTES, Record, encode_record, signed_record
from hpcc.audit.base.frames import SIGNATURE_BYTES, frame_bytes, frame_of
from hpcc.audit.base.segments import Placed, Seal
from hpcc.audit.base.spool_limits import SpoolFullError
from hpcc.audit.base.trail_signer import SignerError, TrailSigner
from hpcc.audit.base.waiting import Waiting, fail
from hpcc.audit.room import TenantRoom
from hpcc.audit.spool import Spool
from hpcc.core import InfrastructureError, IntegrityError

_log: Final = logging.getLogger(__name__)
# Of the records that are encoded at once: a row can have 15 MiB.
_MAX_PART_BYTES: Final = 1 << 20
_LOST: Final = "audit record is not durable"


class GroupWriter:
    """Writes groups to a spool. One thread at a time calls it."""

    def __init__(self, spool: Spool, signer: TrailSigner, room: TenantRoom) -> None:
        self._spool, self._signer, self._room = spool, signer, room
        # One tuple, so that a reader never pairs a new count with an old head.
        self.anchor = (spool.count, spool.head)
        # Records that have their numbers, and are not durable.
        self._owed: list[Placed] = []

    def write(self, group: list[Waiting]) -> None:
        """Write a group in parts. Each of its records is durable then, or has an error."""
        rest = deque(group)
        while rest:
            part: list[Waiting] = []
            try:
                self._write_part(rest, part)
            except SpoolFullError as error:
                fail(part, error)
            except SignerError as error:
                # The others too: each would start a process, and wait for it.
                part.extend(rest)
                rest.clear()
                fail(part, SignerError(f"{_LOST}: {error}"))
            except (OSError, IntegrityError) as error:
                # Without an open segment nothing was taken, and nothing can be written.
                part = part or [rest.popleft()]
                fail(part, InfrastructureError(f"{_LOST}: {error}", reason="audit"))

    def _write_part(self, rest: deque[Waiting], part: list[Waiting]) -> None:
        """Move records from `rest` to `part`; chain, write and sync them.

        Raises:
            SpoolFullError: they would exceed the size limit.
            OSError: they are not durable.
            IntegrityError: the segment to open was changed, or the signer refuses.
            SignerError: nothing signs them now.
        """
        self._pay()
        count, head = self._spool.count, self._spool.head
        placed: list[Placed] = []
        self._spool.ensure_open()
        segment, begin = self._spool.first, self._spool.size_bytes
        place = begin
        while rest and place - begin < _MAX_PART_BYTES:
            part.append(rest.popleft())
            record = self._encoded_or_none(part[-1], count, head)
            if record is not None:
                placed.append(Placed(segment, place, record))
                place += frame_bytes(record) + SIGNATURE_BYTES
                count, head = count + 1, record.hash
        if placed:
            if not any(w.segments or w.is_forced for w in part):
                # Before they are signed: what was signed has to be written.
                self._spool.require_bytes(place - begin)
            self._owed = placed
            self._pay()
        must_seal = any(w.content is None for w in part)
        retired = [s for w in part if w.error is None for s in w.segments]
        self._follow(retired, must_seal=must_seal)

    def _pay(self) -> None:
        """Sign and write the records that have their numbers already.

        A signer that remembers gives no other record one of these numbers: they are written as they
        are, also if nobody waits for them any more.

        Raises:
            OSError: they are not durable.
            SignerRefusedError: the signer refuses them.
            SignerError: nothing signs them now.
        """
        if not self._owed:
            return
        try:
            signatures = self._signer.sign_records([item.record.data for item in self._owed])
            placed = [
                Placed(item.segment, item.place, signed_record(item.record, signature))
                for item, signature in zip(self._owed, signatures, strict=True)
            ]
            frames = b"".join(frame_of(item.record) for item in placed)
            self._spool.append(frames, force=True)
        finally:
            if not self._signer.remembers:
                self._owed = []
        self._owed = []
        self._spool.note(placed)
        self._spool.tree.flush()
        self._room.add(placed)
        last = placed[-1].record
        self._spool.count, self._spool.head = self.anchor = last.sequence + 1, last.hash

    def _encoded_or_none(self, waiting: Waiting, count: int, head: str) -> Record | None:
        """Return the next record; None if there is none, or it cannot be written: only it fails."""
        if waiting.content is None:
            return None
        try:
            record = encode_record(
                waiting.content, sequence=count, previous=head, worker=self._signer.worker
            )
        except ValueError as error:
            waiting.error = InfrastructureError(f"{_LOST}: {error}", reason="audit")
            return None
        if len(record.data) > MAX_RECORD_BYTES:
            waiting.error = InfrastructureError("audit record is too large", reason="audit")
            return None
        return record

    def _follow(self, retired: list[Seal], *, must_seal: bool) -> None:
        """Remove and seal segments. A failure here does not harm the records."""
        try:
            self._spool.retire(retired)
            if retired:
                self._room.forget(retired[-1].end)
            self._spool.rotate(at_least=1 if must_seal else None)
        except (OSError, InfrastructureError, IntegrityError) as error:
            _log.warning("audit segments lag behind: %s", error)
