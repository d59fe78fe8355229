"""The sealed segments of a trail that exist, and the decision which of them may be removed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpcc.audit.base.segments import Seal
from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc.audit.lookup.sealed import bytes_on_disk, remove_index
from hpcc.audit.packing import Packer


class KeptSegments:
    """The seals whose segments exist, oldest first, with the bytes that each takes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.seals: list[Seal] = []
        # Of each existing segment: how many bytes it takes, with seal, index and statement.
        self._stored: dict[int, int] = {}

    @property
    def size_bytes(self) -> int:
        """Return what the segments take, each with its seal, index and statement."""
        return sum(list(self._stored.values()))

    @property
    def has_whole_seal(self) -> bool:
        """Return whether one of them has a seal of format 3, which no earlier version accepts."""
        return any(seal.signed_from is not None for seal in list(self.seals))

    def stored_bytes(self, seal: Seal) -> int:
        """Return what a segment takes, with its seal, index and statement."""
        return self._stored.get(seal.first, seal.size_bytes)

    def add(self, seal: Seal) -> None:
        """Count a segment that exists, and what is beside it."""
        self.seals.append(seal)
        self.measure(seal.first)

    def measure(self, first: int) -> None:
        """Note how many bytes a segment takes; it may be packed now."""
        self._stored[first] = bytes_on_disk(self._directory, first)

    def to_retire(
        self, limits: SpoolLimits, acknowledged: int | None, now: float, total_bytes: int
    ) -> list[Seal]:
        """Return the segments that may be removed now, oldest first: see `may_go`."""
        sized = [(seal, self.stored_bytes(seal)) for seal in list(self.seals)]
        spare = total_bytes - limits.max_bytes // 2
        return may_go(sized, limits.keep_seconds, acknowledged, now, spare)

    def remove(self, seal: Seal, packer: Packer) -> None:
        """Remove a segment and its index; its seal stays.

        Raises:
            OSError: not both are removed.
        """
        packer.remove(seal)
        remove_index(self._directory, seal.first)
        if seal in self.seals:
            self.seals.remove(seal)
        self._stored.pop(seal.first, None)


def may_go(
    sized: Sequence[tuple[Seal, int]],
    keep_seconds: float,
    acknowledged: int | None,
    now: float,
    spare: int,
) -> list[Seal]:
    """Return the segments that may be removed now, of those that exist, with sizes, oldest first.

    Every sink has the records below number `acknowledged`; None means that there is no sink. A
    segment that all sinks have may also go before its age, when room is short: `spare` bytes are
    above what the trail should take. Without a sink it is the only copy and stays for its time.
    """
    chosen: list[Seal] = []
    for seal, size in sized:
        is_old = keep_seconds > 0 and seal.signed.at < now - keep_seconds
        is_elsewhere = acknowledged is None or seal.end <= acknowledged
        is_short = acknowledged is not None and spare > 0
        if not is_elsewhere or not (is_old or is_short):
            break
        chosen.append(seal)
        spare -= size
    return chosen
