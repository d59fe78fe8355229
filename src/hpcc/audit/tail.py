"""What no seal covers at a start: frames that the writer did not sign, and a torn end.

A crash leaves a torn end, and so does who cuts a record. Its bytes are kept.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc import __version__
from hpcc.audit.base.canonical import MAX_RECORD_BYTES, AuditDamagedError, Record
from hpcc.audit.base.segments import open_trail_file
from hpcc.audit.base.signing import SigningMark
from hpcc.files.whole import FaultPoint, Sync, no_fault, whole_file
from hpcc.ports import SecurityEvent

# More than an incomplete frame can have. The rest of a longer tail is blocks of zeros.
_MAX_KEPT: Final = MAX_RECORD_BYTES + 4096
_NAMED_CHARS: Final = 16
_TORN: Final = re.compile(r"torn-([0-9]{20})-[0-9a-f]{16}")
# A worker that crashes again and again must not fill its disk. The events have all hashes.
MAX_TORN: Final = 8
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class ForeignTailError(AuditDamagedError):
    """The open segment has a frame that its writer did not sign."""

    default_reason = "audit-foreign-tail"


def foreign_tail(
    path: Path, place: int, record: Record, worker: str, mark: SigningMark | None
) -> ForeignTailError:
    """Return the error that names a frame which `worker` did not sign."""
    why = f"is not signed by {worker}"
    if not record.signature:
        version = mark.version if mark is not None and mark.version else __version__
        why += (
            ": it has no signature. Either an earlier version of hpcc (trails of format 1) wrote"
            f" it after hpcc {version} (format 2) had begun to sign this trail, or it was put in"
        )
    return ForeignTailError(
        f"{path}: record {record.sequence} at byte {place} {why}. Nothing is written after it. Keep"
        " a copy of the directory as evidence; docs/operate.md says how to go on"
    )


@dataclass(frozen=True, slots=True)
class TornTail:
    """What was cut off: its size, its hash, and the file that has it.

    There is no file for zeros, and none if the disk had no room even after the cut. `removed`
    earlier files made room for this one.
    """

    size: int
    sha256: str
    name: str
    removed: int = 0


def torn_event(tail: TornTail, at: float) -> SecurityEvent:
    """Return the event about a torn tail that was cut off."""
    fields = [("bytes", str(tail.size)), ("sha256", tail.sha256), ("file", tail.name)]
    if tail.removed:
        fields.append(("removed", str(tail.removed)))
    return SecurityEvent(name="audit-torn-tail", at=at, fields=tuple(fields))


def cut_torn(
    path: Path, descriptor: int, offset: int, count: int, fault: FaultPoint = no_fault
) -> TornTail:
    """Cut what follows `offset` off a segment that is open for writing; keep it in `torn-COUNT-…`.

    The copy comes first. On a full disk the cut comes first, and makes room for the copy.

    Raises:
        OSError: it cannot be read, cut or written.
    """
    with open_trail_file(path) as file:
        file.seek(offset)
        data = file.read(_MAX_KEPT)
        size = file.seek(0, os.SEEK_END) - offset
    digest = hashlib.sha256(data).hexdigest()
    name, removed = f"torn-{count:020d}-{digest[:_NAMED_CHARS]}", 0
    is_kept = not any(data)
    if is_kept:
        name = ""
    else:
        removed = _make_place(path.parent)
        is_kept = _has_kept(path.parent / name, data, fault)
    fault("torn-cut")
    os.ftruncate(descriptor, offset)
    os.fsync(descriptor)
    if not is_kept and not _has_kept(path.parent / name, data, fault):
        name = ""
    return TornTail(size, digest, name, removed)


def _has_kept(path: Path, data: bytes, fault: FaultPoint) -> bool:
    try:
        with whole_file(path, sync=Sync.NAME, fault=lambda step: fault(f"torn-{step}")) as file:
            file.write(data)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        return False
    return True


def torn_files(directory: Path) -> list[tuple[int, Path]]:
    """Return the files of torn tails with the number of the next record then, oldest first."""
    found = [(_TORN.fullmatch(p.name), p) for p in directory.iterdir()]
    return sorted((int(m[1]), p) for m, p in found if m)


def torn_bytes(directory: Path) -> int:
    """Return what the files of torn tails take of the disk."""
    total = 0
    for _, path in torn_files(directory):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def remove_torn(directory: Path, until: int) -> None:
    """Remove the files of torn tails that followed a record below `until`, which retention removed.

    Raises:
        OSError: not all are removed.
    """
    for count, path in torn_files(directory):
        if count <= until:
            path.unlink(missing_ok=True)


def remove_leftovers(directory: Path) -> None:
    """Remove what a crash left unfinished, and the one index of earlier versions.

    Raises:
        OSError: a file cannot be removed.
    """
    for kind in (".seal-*", ".index-*", ".pack-*", ".torn-*", ".signer.*", ".tree.head"):
        for stale in directory.glob(kind):
            stale.unlink(missing_ok=True)
    for end in ("", "-wal", "-shm", "-journal"):
        with suppress(IsADirectoryError, PermissionError):
            (directory / f"index.sqlite{end}").unlink(missing_ok=True)


def _make_place(directory: Path) -> int:
    """Remove the oldest files, so that one more is not too many; return how many."""
    known = torn_files(directory)
    spare = known[: max(len(known) - MAX_TORN + 1, 0)]
    for _, path in spare:
        path.unlink(missing_ok=True)
    return len(spare)
