"""Packs sealed segments in the background: a packed one replaces the segment of the same name.

The segment is read against its seal, and each block is compared with what it was made of. Until the
rename the old file is there, and from then on the new one, both whole and synced. So a crash at any
step leaves a trail that verifies.
"""

from __future__ import annotations

import errno
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hpcc import __version__
from hpcc.audit.base.packed import frames_size, is_packed, packed_bytes
from hpcc.audit.base.query import Query
from hpcc.audit.base.segments import Seal, segment_path
from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc.audit.base.trail import walk_segment
from hpcc.audit.disk import free_bytes, least_free
from hpcc.audit.lookup.reader import TrailReader
from hpcc.core import IntegrityError
from hpcc.files import sync_directory
from hpcc.files.whole import FaultPoint, Sync, no_fault, whole_file
from hpcc.ports import SecurityEvent

# A smaller segment gains little, and is quickest to read as it is.
MIN_BYTES: Final = 64 << 10


PACKING_EVENT: Final = "audit-packing"


def packing_event(at: float, first: int) -> SecurityEvent:
    """Return the event that comes before the first packed segment, which begins with `first`."""
    fields = (("first", str(first)), ("version", __version__))
    return SecurityEvent(name=PACKING_EVENT, at=at, fields=fields)


class Packer:
    """Replaces sealed segments of one trail by packed ones, one at a time."""

    def __init__(
        self,
        directory: Path,
        kept: Callable[[], list[Seal]],
        limits: SpoolLimits,
        fault: FaultPoint = no_fault,
    ) -> None:
        """Pack segments of `kept()`, the seals of those that exist, oldest first."""
        self._directory, self._kept, self._fault = directory, kept, fault
        # Rows of compiles that run need what the disk has left. At most half of it is used.
        self._spare_bytes = least_free(limits) // 2
        # Held while a segment is packed, and while one is replaced or removed.
        self._busy, self._lock = threading.Lock(), threading.Lock()
        # Those that are packed, too small, or could not be packed in this process.
        self._done: set[int] = set()
        self._has_begun = self._is_stopped = False

    def next_or_none(self) -> Seal | None:
        """Return the oldest segment that should be packed; None if none should be.

        Raises:
            AuditDamagedError: a segment is not a regular file.
        """
        for seal in self._kept():
            if seal.first in self._done:
                continue
            try:
                is_done = is_packed(self._path(seal))
                self._has_begun = self._has_begun or is_done
                if is_done or seal.size_bytes < MIN_BYTES:
                    self._done.add(seal.first)
                    continue
            except FileNotFoundError:
                continue  # retention removed the segment
            return seal
        return None

    def lacks_event(self) -> bool:
        """Return whether the trail has neither a packed segment nor the event that tells of them.

        Raises:
            AuditDamagedError: the trail was changed.
        """
        if not self._has_begun:
            begun = Query(kind="event", name=PACKING_EVENT, since=-float(1 << 63), limit=1)
            self._has_begun = any(True for _ in TrailReader(self._directory).find(begun))
        return not self._has_begun

    def pack(self, seal: Seal) -> bool:
        """Pack a segment; return whether the packed one took its place.

        Any thread may call this, one at a time: a sealed segment does not change.

        Raises:
            AuditDamagedError: the segment is not the one that was sealed.
            OSError: the packed one cannot be written. The old one is there.
        """
        with self._busy:
            return not self._is_stopped and self._pack(seal)

    def _pack(self, seal: Seal) -> bool:
        # Once in this process: a segment that fails would be read every minute.
        self._done.add(seal.first)
        path = self._path(seal)
        aside = self._directory / f".pack-{secrets.token_hex(8)}"
        ready = aside.with_name(f"{aside.name}-ready")
        try:
            with whole_file(
                ready,
                sync=Sync.CONTENT,
                aside=aside,
                fault=lambda step: self._fault(f"pack-{step}"),
            ) as file:
                records = (item.record for item in walk_segment(self._directory, seal))
                for part in packed_bytes(records):
                    self._fault("pack-block")
                    self._require_room(len(part))
                    file.write(part)
                    if self._is_stopped:
                        return False
            if frames_size(ready) != seal.size_bytes:
                raise IntegrityError(f"{path}: the packed segment has another size")
            return ready.stat().st_size < seal.size_bytes and self._replace(ready, path)
        except OSError:
            self._done.discard(seal.first)  # perhaps there is room in a minute
            raise
        finally:
            ready.unlink(missing_ok=True)

    def _require_room(self, size: int) -> None:
        if free_bytes(self._directory) < self._spare_bytes + size:
            raise OSError(errno.ENOSPC, "rows need the room that the disk has left")

    def stop(self) -> None:
        """Pack nothing from now on, and wait for the block that is being packed."""
        self._is_stopped = True
        with self._busy:
            pass

    def remove(self, seal: Seal) -> None:
        """Remove a segment, which no packed one may replace then.

        Raises:
            OSError: it is not removed.
        """
        with self._lock:
            self._path(seal).unlink(missing_ok=True)

    def _replace(self, ready: Path, path: Path) -> bool:
        with self._lock:
            # Retention may have removed the segment: it must not come back.
            if not path.exists():
                return False
            self._fault("pack-replace")
            ready.replace(path)
            self._fault("pack-directory-sync")
            sync_directory(self._directory)
        return True

    def _path(self, seal: Seal) -> Path:
        return segment_path(self._directory, seal.first)
