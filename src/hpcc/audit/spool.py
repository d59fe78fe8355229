"""The spool: the trail's writer. It appends, seals what has grown enough, and lets old parts go.

Frame: 4 bytes length (big endian), record, newline. The newline makes a file readable and
ends a frame visibly. Only the last frame of the open segment can be torn, by a crash in mid-write.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.audit.canonical import GENESIS, MAX_RECORD_BYTES, AuditDamagedError
from hpcc.audit.heads import HeadSigner
from hpcc.audit.segments import (
    LENGTH,
    Seal,
    read_placed,
    seal_path,
    sealed_firsts,
    seals,
    segment_path,
    spool_path,
    write_seal,
)
from hpcc.core import CallerError, InfrastructureError
from hpcc.files import lock_now, open_file, sync_directory, sync_file
from hpcc.files.whole import FaultPoint, no_fault
from hpcc.ports import Clock

_LOCK_NAME: Final = "lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolLimits:
    """How large and how old a trail's files get.

    `segment_bytes`: a segment is sealed when it has grown to this; a start reads one of them.
    `max_bytes`: all segments together; the rest of the machine's disk is not for us.
    `seal_seconds`: an open segment that is older is sealed, whatever its size; 0: never.
    `keep_seconds`: a sealed segment that is older is removed, once every sink has it; 0: never.
    """

    segment_bytes: int = 64 << 20
    max_bytes: int = 16 << 30
    keep_seconds: float = 0.0
    seal_seconds: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what could not work."""
        if self.segment_bytes <= 0 or min(self.keep_seconds, self.seal_seconds) < 0:
            raise CallerError("the audit trail's segments and keeping time must be positive")
        if self.max_bytes < 2 * self.segment_bytes:
            raise CallerError("the audit trail must have room for two segments")


class SpoolFullError(InfrastructureError):
    """The trail has all the room that it may have, and nothing of it may be removed."""

    default_reason = "audit-full"


class Spool:
    """The trail opened by its one writer. Not thread-safe."""

    def __init__(
        self,
        directory: Path,
        signer: HeadSigner,
        clock: Clock,
        limits: SpoolLimits,
        *,
        fault: FaultPoint = no_fault,
    ) -> None:
        """Open it, check the open segment and the seals, and cut a torn tail.

        Raises:
            AuditDamagedError: more than the tail is broken.
            InfrastructureError: it cannot be opened, or another process has it.
        """
        self._directory, self._signer, self._clock = directory, signer, clock
        self._limits, self._fault = limits, fault
        self._lock = _locked(directory)
        self._file = -1
        try:
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
        for stale in self._directory.glob(".seal-*"):
            stale.unlink(missing_ok=True)
        self.count, self.head = 0, GENESIS
        self.torn_bytes = 0
        # Oldest first: those whose records are still here.
        self._kept: list[Seal] = []
        for seal in seals(self._directory):
            self.count, self.head = seal.end, seal.signed.head
            self._check_size(seal)
        firsts = sealed_firsts(self._directory)
        unsealed = [first for first in firsts if first >= self.count]
        if len(firsts) - len(unsealed) != len(self._kept) or unsealed not in ([], [self.count]):
            raise AuditDamagedError("there are segments without seals")
        if unsealed:
            self._finish_sealing()
        self._open_segment()

    def _check_size(self, seal: Seal) -> None:
        path = segment_path(self._directory, seal.first)
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return  # retention removed it
        if size != seal.size_bytes:
            raise AuditDamagedError(f"the segment at record {seal.first} has another size")
        self._kept.append(seal)

    def _finish_sealing(self) -> None:
        """Seal a segment that was renamed before a crash; it is read whole, once."""
        first, previous = self.count, self.head
        path = segment_path(self._directory, first)
        size = self._read(path)
        if path.stat().st_size != size or self.count == first:
            raise AuditDamagedError(f"the segment at record {first} is cut or empty")
        self._seal(first, previous, size)

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
                self.torn_bytes = actual - self.size_bytes
                os.ftruncate(descriptor, self.size_bytes)
                os.fsync(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._file = descriptor

    def _read(self, path: Path) -> int:
        """Go over a segment's records; return where the last whole one ends.

        Raises:
            AuditDamagedError: what follows is not a torn tail.
        """
        size = 0
        with path.open("rb") as file:
            try:
                for place, record in read_placed(file, sequence=self.count, head=self.head):
                    self.count, self.head = record.sequence + 1, record.hash
                    size = place + LENGTH.size + len(record.data) + 1
            except AuditDamagedError:
                # A power cut may leave a grown file whose new blocks were never written.
                file.seek(size)
                if any(file.read(MAX_RECORD_BYTES)):
                    raise
        return size

    @property
    def total_bytes(self) -> int:
        """What all segments take that are here."""
        return self.size_bytes + sum(seal.size_bytes for seal in list(self._kept))

    @property
    def limits(self) -> SpoolLimits:
        return self._limits

    def ensure_open(self) -> None:
        """Open a new segment where the last rotation could not.

        Raises:
            OSError: it still cannot be.
        """
        if self._file < 0:
            self._open_segment()

    @property
    def is_nearly_full(self) -> bool:
        """Say whether there is room only for what runs already."""
        return self.total_bytes > self._limits.max_bytes - self._limits.max_bytes // 16

    def append(self, frames: bytes, *, force: bool = False) -> None:
        """Write whole frames and sync; on an error nothing of them stays.

        `force` is for the record without which no room could be made.

        Raises:
            SpoolFullError: there is no room for them.
            OSError: they are not durable.
        """
        self.ensure_open()
        if not force and self.total_bytes + len(frames) > self._limits.max_bytes:
            raise SpoolFullError(
                "the audit trail has no room: a sink is behind, or audit_max_bytes is too small"
            )
        try:
            view = memoryview(frames)
            while view:
                self._fault("write")
                view = view[os.write(self._file, view) :]
            self._fault("sync")
            sync_file(self._file)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, self.size_bytes)
            raise
        self.size_bytes += len(frames)

    def rotate(self, *, at_least: int | None = None) -> bool:
        """Seal the open segment if it has grown to `at_least` bytes; say whether it was.

        Raises:
            OSError: it is not sealed, or only renamed; the next call goes on.
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
        except OSError:
            # As it was: the same file goes on under its first name.
            path.rename(spool_path(self._directory))
            seal_path(self._directory, first).unlink(missing_ok=True)
            raise
        os.close(self._file)
        self._file, self.size_bytes = -1, 0
        self._open_segment()
        return True

    def _seal(self, first: int, previous: str, size: int) -> None:
        signed = self._signer.sign(self.count, self.head, self._clock.now())
        seal = Seal(first=first, previous=previous, size_bytes=size, signed=signed)
        write_seal(self._directory, seal, self._fault)
        self._kept.append(seal)

    def to_retire(self, acknowledged: int | None) -> list[Seal]:
        """Return the oldest segments that may go now.

        `acknowledged`: every sink has the records below this number; None: there is no sink. One
        that all sinks have also goes early, when room is short; without a sink it is the only copy.
        """
        old = self._clock.now() - self._limits.keep_seconds
        spare = self.total_bytes - self._limits.max_bytes // 2
        chosen: list[Seal] = []
        for seal in list(self._kept):
            is_old = self._limits.keep_seconds > 0 and seal.signed.at < old
            is_elsewhere = acknowledged is None or seal.end <= acknowledged
            is_short = acknowledged is not None and spare > 0
            if not is_elsewhere or not (is_old or is_short):
                break
            chosen.append(seal)
            spare -= seal.size_bytes
        return chosen

    def retire(self, chosen: list[Seal]) -> None:
        """Remove segments; their seals stay. The chain says so before.

        Raises:
            OSError: not all are gone; the next call goes on.
        """
        for seal in chosen:
            self._fault("retire")
            segment_path(self._directory, seal.first).unlink(missing_ok=True)
            if seal in self._kept:
                self._kept.remove(seal)

    def close(self) -> None:
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1


def _locked(directory: Path) -> int:
    descriptor = -1
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = open_file(directory / _LOCK_NAME, os.O_RDWR | os.O_CREAT)
        lock_now(descriptor)
    except BlockingIOError as error:
        os.close(descriptor)
        raise InfrastructureError(
            f"another process writes the audit trail in {directory}: stop it, or give each its own"
            " directory",
            reason="audit-locked",
        ) from error
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
        raise InfrastructureError(
            f"cannot open the audit spool in {directory}: {error.strerror}", reason="audit"
        ) from error
    return descriptor
