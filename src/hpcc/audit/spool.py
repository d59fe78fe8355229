"""The spool: appends to the trail, seals segments that are large enough, removes old ones.

Only the last frame of the open segment can be torn, by a crash during a write.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from hpcc.audit.base.canonical import GENESIS, MAX_RECORD_BYTES, AuditDamagedError, Record
from hpcc.audit.base.frames import frame_bytes, is_signed_by, read_placed
from hpcc.audit.base.index_statement import MAX_INDEX_BYTES, IndexStatement, sign_index
from hpcc.audit.base.packed import frames_size
from hpcc.audit.base.segments import (
    Placed,
    Seal,
    first_signed,
    open_trail_file,
    seal_path,
    sealed_firsts,
    seals,
    segment_path,
    sign_seal,
    spool_path,
    write_seal,
)
from hpcc.audit.base.signer import name_signer
from hpcc.audit.base.signing import begin_mark, finish_mark, is_signing_event, mark_or_none
from hpcc.audit.base.spool_limits import SpoolFullError, SpoolLimits
from hpcc.audit.base.trail import placed_frames
from hpcc.audit.base.trail_signer import SignerError, SignerRefusedError, TrailSigner
from hpcc.audit.lock import lock_trail
from hpcc.audit.lookup.missing import MissingIndexes
from hpcc.audit.lookup.open_index import OpenIndex
from hpcc.audit.lookup.sealed import remove_index, write_index
from hpcc.audit.packing import Packer
from hpcc.audit.retention import KeptSegments
from hpcc.audit.tail import (
    NO_ROOM,
    TornTail,
    cut_torn,
    foreign_tail,
    remove_leftovers,
    remove_torn,
    torn_bytes,
)
from hpcc.audit.tree.head import record_leaf
from hpcc.audit.tree.history import HistoryTree
from hpcc.core import InfrastructureError
from hpcc.files import open_file, sync_directory, sync_file
from hpcc.files.whole import FaultPoint, no_fault
from hpcc.ports import Clock, SignedHead


class Spool:
    """The trail, opened by its single writer. Not thread-safe."""

    def __init__(
        self,
        directory: Path,
        signer: TrailSigner,
        clock: Clock,
        limits: SpoolLimits,
        *,
        fault: FaultPoint = no_fault,
        mark: Path | None = None,
    ) -> None:
        """Open the trail, check the open segment and the seals, and cut a torn tail.

        `mark` is a file beside the writer's key. It exists since the writer signs each frame.

        Raises:
            ForeignTailError: a frame of the open segment is not signed by this writer.
            AuditDamagedError: more than the tail is damaged.
            InfrastructureError: it cannot be opened, or another process writes it.
        """
        self._directory, self._signer, self._clock = directory, signer, clock
        self._limits, self._fault = limits, fault
        self._mark = mark
        self.is_disk_full = False
        self._lock = lock_trail(directory)
        self._file = -1
        self.index = OpenIndex()
        self.tree = HistoryTree(directory, signer, fault)
        self.missing = MissingIndexes(directory, signer, self)
        self.packer = Packer(directory, lambda: list(self.kept.seals), limits, fault)
        try:
            signer.open()
            self._recover()
        except OSError as error:
            self.close()
            raise InfrastructureError(
                f"cannot open the audit spool in {directory}: {error.strerror}", reason="audit"
            ) from error
        except BaseException:
            self.close()
            raise

    def _recover(self) -> None:
        remove_leftovers(self._directory)
        self.count, self.head = 0, GENESIS
        self.torn: TornTail | None = None
        self._torn_bytes = 0
        self._marked = mark_or_none(self._mark)
        self._must_be_signed = self._marked is not None
        # Whether the chain lacks the event that says so.
        self.must_announce = self._mark is not None and (
            self._marked is None or self._marked.first is None
        )
        self.kept = KeptSegments(self._directory)
        self._signed_from: int | None = None
        is_old = False
        for seal in seals(self._directory):
            self.count, self.head = seal.end, seal.signed.head
            self._must_be_signed = self._must_be_signed or seal.is_signing
            self._signed_from = first_signed(seal, self._signed_from)
            is_old = seal.signed_from is None
            self._check_size(seal)
        self.tree.begin(self.count, self.head)
        firsts = sealed_firsts(self._directory)
        unsealed = [first for first in firsts if first >= self.count]
        has_all = len(firsts) - len(unsealed) == len(self.kept.seals)
        if not has_all or unsealed not in ([], [self.count]):
            raise AuditDamagedError("there are segments without seals")
        if unsealed:
            self._finish_sealing()
        self._open_segment()
        self._meet(self.first, self._previous, self.size_bytes)
        self.tree.check(self.count)
        self.tree.flush()
        self.tree.found(self._clock.now())
        self._begin_signing(is_old=is_old)

    def _begin_signing(self, *, is_old: bool) -> None:
        """Seal an open segment of an earlier version, so that each later frame is signed.

        Also one behind a seal that is not signed as a whole: nobody can change that one then.
        """
        if self.size_bytes and (is_old or not self._must_be_signed):
            self.rotate(at_least=1)
        self._must_be_signed = True
        name_signer(self._directory, self._signer, self._clock.now())
        begin_mark(self._mark)
        self._torn_bytes = torn_bytes(self._directory)

    def announced(self, first: int) -> None:
        """Note that record `first` is the event that says that each later one is signed.

        Raises:
            OSError: it is not noted. The next start writes another such event.
        """
        finish_mark(self._mark, first)
        self.must_announce = False

    def _check_size(self, seal: Seal) -> None:
        path = segment_path(self._directory, seal.first)
        try:
            size = frames_size(path)
        except FileNotFoundError:
            remove_index(self._directory, seal.first)
            return  # retention removed it
        if size != seal.size_bytes:
            raise AuditDamagedError(f"the segment at record {seal.first} has another size")
        self.kept.add(seal)

    def _finish_sealing(self) -> None:
        """Seal a segment that was renamed before a crash. This reads the whole segment once."""
        first, previous = self.count, self.head
        path = segment_path(self._directory, first)
        size = self._read(path)
        if path.stat().st_size != size or self.count == first:
            raise AuditDamagedError(f"the segment at record {first} is cut or empty")
        self._meet(first, previous, size)
        self.tree.check(self.count)
        self._seal(first, previous, size)

    def _meet(self, first: int, previous: str, size: int) -> None:
        """Write what was signed for a writer that was killed before it had written it."""
        frames = self._signer.meet(self.tree.end(first, previous, size, self._signed_from))
        if not frames:
            return
        placed = list(placed_frames(frames, first, size, self.count, self.head))
        self.append(frames, force=True)
        self.note(placed)
        self.count, self.head = placed[-1].record.sequence + 1, placed[-1].record.hash

    def _open_segment(self) -> None:
        path = spool_path(self._directory)
        self._fault("open")
        descriptor = open_file(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            self._fault("open-directory-sync")
            sync_directory(self._directory)
            self.first, self._previous = self.count, self.head
            self.size_bytes = self._read(path)
            actual = os.fstat(descriptor).st_size
            if actual > self.size_bytes:
                self.torn = cut_torn(path, descriptor, self.size_bytes, self.count, self._fault)
        except BaseException:
            os.close(descriptor)
            raise
        self._file = descriptor

    def _read(self, path: Path) -> int:
        """Read a segment's records; return the offset after the last whole one.

        Raises:
            ForeignTailError: a frame is not signed by this writer, and should be.
            AuditDamagedError: more follows than a torn tail.
        """
        size, first = 0, self.count
        self.index.begin()
        with open_trail_file(path) as file:
            try:
                for place, record in read_placed(file, sequence=self.count, head=self.head):
                    if (record.sequence == first and record.signature) or is_signing_event(record):
                        self._must_be_signed = True
                    self._require_own(path, place, record)
                    self.count, self.head = record.sequence + 1, record.hash
                    self.note([Placed(first, place, record)])
                    size = place + frame_bytes(record)
            except AuditDamagedError:
                # After a power cut the file may have new blocks of zeros that were never written.
                file.seek(size)
                if any(file.read(MAX_RECORD_BYTES)):
                    raise
        return size

    def _require_own(self, path: Path, place: int, record: Record) -> None:
        """Check who wrote a frame that no seal covers yet.

        Raises:
            ForeignTailError: not this writer.
        """
        is_own = self._must_be_signed and is_signed_by(record, self._signer.public_key)
        if not is_own and (self._must_be_signed or record.signature):
            raise foreign_tail(path, place, record, self._signer.worker, self._marked)

    def note(self, placed: list[Placed]) -> None:
        """Add records that are durable to index and tree."""
        self.index.add(placed)
        if placed:
            leaves = [record_leaf(item.record) for item in placed]
            self.tree.append(leaves, placed[-1].record.hash)

    @property
    def total_bytes(self) -> int:
        """Return the bytes of all existing segments, with their seals and indexes."""
        opened = self.size_bytes + self.index.size_bytes
        return opened + self.kept.size_bytes + self._torn_bytes + self.tree.size_bytes

    @property
    def limits(self) -> SpoolLimits:
        """Return the limits of this trail."""
        return self._limits

    def ensure_open(self) -> None:
        """Open a new segment if the last rotation could not.

        Raises:
            OSError: it still cannot be opened.
        """
        if self._file < 0:
            self._open_segment()

    @property
    def free_bytes(self) -> int:
        """Return how many bytes the trail may still take."""
        return max(self._limits.max_bytes - self.total_bytes, 0)

    @property
    def is_nearly_full(self) -> bool:
        """Return whether the rest of the room is needed for work that is already running."""
        least = self._limits.max_bytes // 16
        return self.is_disk_full or self.total_bytes > self._limits.max_bytes - least

    def require_bytes(self, size: int) -> None:
        """Check that the trail may take `size` bytes more.

        Raises:
            SpoolFullError: it may not.
        """
        if self.total_bytes + size > self._limits.max_bytes:
            raise SpoolFullError(
                "the audit trail has no room: a sink is behind, or audit_max_bytes is too small"
            )

    def append(self, frames: bytes, *, force: bool = False) -> None:
        """Write whole frames and sync them; on an error they are cut off again.

        `force` ignores the size limit, for the record that must precede the removal of segments.

        Raises:
            SpoolFullError: the frames would exceed the size limit.
            OSError: the frames are not durable.
        """
        self.ensure_open()
        if not force:
            self.require_bytes(len(frames))
        try:
            view = memoryview(frames)
            while view:
                self._fault("write")
                view = view[os.write(self._file, view) :]
            self._fault("sync")
            sync_file(self._file)
        except OSError as error:
            self.is_disk_full = self.is_disk_full or error.errno in NO_ROOM
            with suppress(OSError):
                os.ftruncate(self._file, self.size_bytes)
            raise
        self.size_bytes += len(frames)

    def rotate(self, *, at_least: int | None = None) -> bool:
        """Seal the open segment if it has `at_least` bytes; return whether it was sealed.

        Raises:
            OSError: the segment is not sealed, or the next one could not be opened. The next call
                continues.
        """
        limit = self._limits.segment_bytes if at_least is None else at_least
        if self._file < 0 or self.size_bytes < max(limit, 1):
            return False
        first, previous, size = self.first, self._previous, self.size_bytes
        path = segment_path(self._directory, first)
        self._fault("segment-rename")
        spool_path(self._directory).rename(path)
        try:
            self._fault("segment-directory-sync")
            sync_directory(self._directory)
            self._seal(first, previous, size)
        except (OSError, SignerError, SignerRefusedError):
            # Undo: writing continues in the same file under its first name.
            path.rename(spool_path(self._directory))
            seal_path(self._directory, first).unlink(missing_ok=True)
            remove_index(self._directory, first)
            raise
        os.close(self._file)
        self._file, self.size_bytes = -1, 0
        self._open_segment()
        return True

    def _seal(self, first: int, previous: str, size: int) -> None:
        self.tree.seal(self._clock.now())
        begin = first if self._must_be_signed else self.count
        seal = sign_seal(self._signer, Seal(
            first=first, previous=previous, size_bytes=size, index=self._write_index(first),
            signed=SignedHead(
                worker="", count=self.count, head=self.head, at=self._clock.now(), key=b"",
                signature=b"",
            ),
            signed_from=begin if self._signed_from is None else self._signed_from,
        ))  # fmt: skip
        write_seal(self._directory, seal, self._fault)
        self._signed_from = seal.signed_from
        self.kept.add(seal)

    def _write_index(self, first: int) -> IndexStatement | None:
        """Write the index of the segment to seal; None if there is none."""
        facts = self.index.facts_or_none(self.count - first)
        # Without one that is too large for a reader the segment is read whole.
        if facts is None or len(facts.data) > MAX_INDEX_BYTES:
            return None
        write_index(self._directory, first, facts.data, self._fault)
        return sign_index(self._signer, first, self.head, facts)

    def to_retire(self, acknowledged: int | None) -> list[Seal]:
        """Return the segments that may be removed now, oldest first."""
        now = self._clock.now()
        return self.kept.to_retire(self._limits, acknowledged, now, self.total_bytes)

    def retire(self, chosen: list[Seal]) -> None:
        """Remove segments and their indexes; their seals stay. The chain has recorded it before.

        Raises:
            OSError: not all are removed; the next call continues.
        """
        for seal in chosen:
            self._fault("retire")
            self.kept.remove(seal, self.packer)
        if chosen:
            remove_torn(self._directory, chosen[-1].end)
            self._torn_bytes = torn_bytes(self._directory)

    def close(self) -> None:
        """Close the open segment and release the lock."""
        self.index.close()
        self.tree.close()
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._signer.close()
        self._file = self._lock = -1
