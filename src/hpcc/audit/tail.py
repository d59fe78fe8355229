"""What no seal covers at a start: frames that the writer did not sign, and a torn end.

A crash leaves a torn end, and so does who cuts a record. Its bytes are kept.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.audit.base.canonical import MAX_RECORD_BYTES, AuditDamagedError, Record
from hpcc.audit.base.segments import open_trail_file
from hpcc.files.whole import Sync, write_whole

# More than an incomplete frame can have. The rest of a longer tail is blocks of zeros.
_MAX_KEPT: Final = MAX_RECORD_BYTES + 4096
_NAMED_CHARS: Final = 16


class ForeignTailError(AuditDamagedError):
    """The open segment has a frame that its writer did not sign."""

    default_reason = "audit-foreign-tail"


def foreign_tail(path: Path, place: int, record: Record, worker: str) -> ForeignTailError:
    """Return the error that names a frame which `worker` did not sign."""
    return ForeignTailError(
        f"{path}: record {record.sequence} at byte {place} is not signed by {worker}. Nothing is"
        " written after it. Keep a copy of the directory as evidence; docs/operate.md says how to"
        " go on"
    )


@dataclass(frozen=True, slots=True)
class TornTail:
    """What was cut off: its size, its hash, and the file that has it; no file for zeros."""

    size: int
    sha256: str
    name: str


def keep_torn(directory: Path, path: Path, offset: int, count: int) -> TornTail:
    """Copy what follows `offset` in a segment to `torn-COUNT-…`, durably.

    Raises:
        OSError: it cannot be read or written.
    """
    with open_trail_file(path) as file:
        file.seek(offset)
        data = file.read(_MAX_KEPT)
        size = file.seek(0, os.SEEK_END) - offset
    digest = hashlib.sha256(data).hexdigest()
    if not any(data):
        return TornTail(size, digest, "")
    name = f"torn-{count:020d}-{digest[:_NAMED_CHARS]}"
    write_whole(directory / name, data, sync=Sync.NAME)
    return TornTail(size, digest, name)


def mark_signing(mark: Path | None) -> None:
    """Make the file beside the key that says that each frame is signed, if there is none.

    Raises:
        OSError: it is not durable.
    """
    if mark is not None and not mark.exists():
        write_whole(mark, b"each frame is signed\n", sync=Sync.NAME)
