"""Reads a whole trail, segment by segment, also while its writer is running."""

from __future__ import annotations

import io
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hpcc.audit.base.canonical import GENESIS, AuditDamagedError, decode_record
from hpcc.audit.base.frames import frame_bytes, read_frames, read_placed
from hpcc.audit.base.packed import open_segment
from hpcc.audit.base.segments import (
    Placed,
    Seal,
    has_later,
    open_trail_file,
    seal_or_none,
    seals,
    segment_path,
    spool_path,
)
from hpcc.core import NotFoundError


@dataclass(frozen=True, slots=True)
class TrailStart:
    """Where to begin reading.

    Record `sequence`, whose predecessor has hash `head`, lies at byte `place` of the segment that
    begins with record `segment`, whose predecessor has hash `previous`.
    """

    segment: int = 0
    previous: str = GENESIS
    place: int = 0
    sequence: int = 0
    head: str = GENESIS


@dataclass(frozen=True, slots=True)
class Retired:
    """A segment that retention removed: only its seal is left."""

    seal: Seal


def first_kept(directory: Path) -> int:
    """Return the number of the first record that retention has not removed."""
    first = 0
    for seal in seals(directory):
        if segment_path(directory, seal.first).is_file():
            break
        first = seal.end
    return first


def walk(directory: Path, start: TrailStart | None = None) -> Iterator[Placed | Retired]:
    """Yield the trail's records and removed segments, in order.

    The writer may seal and remove segments meanwhile. An open file is read to its end, and the
    record after it names the next file.

    Raises:
        AuditDamagedError: a record or a seal was changed, removed or inserted.
    """
    at: TrailStart | None = start or TrailStart()
    while at is not None:
        seal = seal_or_none(directory, at.segment, at.previous)
        file = _open(directory, at, is_sealed=seal is not None)
        if file is not None:
            with file:
                try:
                    at = yield from _segment(directory, at, file)
                except AuditDamagedError as error:
                    raise AuditDamagedError(f"{file.name}: {error}") from error
            continue
        if seal is None:
            _refuse_later(directory, at)
            return  # no record was written since the last seal
        yield Retired(seal)
        at = _behind(seal.end, seal.signed.head)


def placed_frames(
    frames: bytes, segment: int, place: int, sequence: int, head: str
) -> Iterator[Placed]:
    """Yield the records of frames that come to byte `place` of a segment, and check the chain.

    Raises:
        AuditDamagedError: the chain is broken.
    """
    for offset, record in read_placed(io.BytesIO(frames), sequence=sequence, head=head):
        yield Placed(segment, place + offset, record)


def walk_segment(directory: Path, seal: Seal) -> Iterator[Placed]:
    """Yield the records of a sealed segment.

    The seal on disk counts only if it has the head of `seal`: who writes the disk can put another
    segment there for a moment, with its own seal, and what is read then may be signed.

    Raises:
        AuditDamagedError: the segment is not the one that was sealed.
        FileNotFoundError: retention removed it.
    """
    head = seal.previous
    start = TrailStart(seal.first, seal.previous, 0, seal.first, seal.previous)
    for item in walk(directory, start):
        if isinstance(item, Retired):
            if item.seal.first == seal.first:
                raise FileNotFoundError(f"segment {seal.first} was removed")
            break
        if item.segment != seal.first:
            break
        yield item
        head = item.record.hash
    if head != seal.signed.head:
        raise AuditDamagedError(
            f"{segment_path(directory, seal.first)}: the segment is not the one that was sealed"
        )


def _behind(sequence: int, head: str) -> TrailStart:
    return TrailStart(sequence, head, 0, sequence, head)


def _segment(
    directory: Path, at: TrailStart, file: BinaryIO
) -> Generator[Placed, None, TrailStart | None]:
    """Yield a segment's records; return where the next segment starts, None after the open one."""
    sequence, head, end = at.sequence, at.head, at.place
    while True:
        # The segment may be sealed while it is read. Then more records can follow.
        seal = seal_or_none(directory, at.segment, at.previous)
        is_sealed = seal is not None or segment_path(directory, at.segment).is_file()
        file.seek(end)
        for place, record in read_placed(file, sequence=sequence, head=head):
            yield Placed(at.segment, place, record)
            sequence, head = record.sequence + 1, record.hash
            end = place + frame_bytes(record)
        if is_sealed:
            break
        if not segment_path(directory, at.segment).is_file():
            if not has_later(directory, at.segment):
                return None
            # Sealed since, or somebody cut a sealed segment and made it the open one again.
            if not _is_sealed(directory, at):
                raise AuditDamagedError(f"records from {sequence} on are missing")
    if seal is not None and (seal.end, seal.signed.head) != (sequence, head):
        if sequence == at.sequence and not _is_same(file, segment_path(directory, at.segment)):
            return at  # the file that was read is the next open segment
        raise AuditDamagedError(f"records before {seal.end} are missing, or were changed")
    if seal is not None and file.seek(0, os.SEEK_END) != seal.size_bytes:
        raise AuditDamagedError(f"the segment at record {at.segment} has another size")
    return _behind(sequence, head)


def _is_sealed(directory: Path, at: TrailStart) -> bool:
    return (
        segment_path(directory, at.segment).is_file()
        or seal_or_none(directory, at.segment, at.previous) is not None
    )


def _is_same(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _open(directory: Path, at: TrailStart, *, is_sealed: bool) -> BinaryIO | None:
    """Open the segment at `at` under its current name; None if retention removed it."""
    names = (segment_path(directory, at.segment), spool_path(directory))
    for path in names[:1] if is_sealed else names:
        try:
            file = open_segment(path) if path != names[1] else open_trail_file(path)
        except FileNotFoundError:
            continue
        if path == spool_path(directory) and not _begins(file, at):
            file.close()
            continue
        return file
    # The segment may have been sealed between the two attempts.
    try:
        return open_segment(segment_path(directory, at.segment))
    except FileNotFoundError:
        return None


def _begins(file: BinaryIO, at: TrailStart) -> bool:
    """Return whether the open segment begins at `at`. A damaged one counts as it."""
    first = _first_sequence_or_none(file)
    return first is None or first <= at.segment


def _first_sequence_or_none(file: BinaryIO) -> int | None:
    try:
        for frame in read_frames(file):
            return decode_record(frame.data).sequence
    except AuditDamagedError:
        pass
    return None


def _refuse_later(directory: Path, at: TrailStart) -> None:
    """Check that no records follow after a gap.

    Raises:
        AuditDamagedError: later records exist.
    """
    is_gap = segment_path(directory, at.segment).exists() or has_later(directory, at.segment)
    try:
        with open_trail_file(spool_path(directory)) as file:
            is_gap = is_gap or (_first_sequence_or_none(file) or 0) > at.segment
    except FileNotFoundError:
        pass
    if is_gap:
        raise AuditDamagedError(f"records from {at.segment} on are missing, and later ones are not")


def require_trail(directory: Path) -> None:
    """Check that a directory has a trail.

    Raises:
        NotFoundError: nothing was recorded there.
    """
    if not directory.is_dir() or not any(
        p.name == "spool.hpcc" or p.name.startswith("sealed-") for p in directory.iterdir()
    ):
        raise NotFoundError(
            f"no audit trail in {directory}: nothing was recorded there yet, or it is another"
            " directory (`audit` in a worker's config file, `events` below a scheduler's `state`)"
        )
