"""How large and how old the files of a trail may become, and the error when there is no room."""

from __future__ import annotations

from dataclasses import dataclass

from hpcc.core import CallerError, InfrastructureError


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolLimits:
    """Size and age limits of a trail's files.

    `segment_bytes`: a segment of this size is sealed; opening the trail reads one segment.
    `max_bytes`: the most that all segments may take of the disk.
    `seal_seconds`: an open segment of this age is sealed at any size; 0: never.
    `keep_seconds`: a sealed segment of this age is removed once every sink has it; 0: never.
    """

    segment_bytes: int = 64 << 20
    max_bytes: int = 16 << 30
    keep_seconds: float = 0.0
    seal_seconds: float = 0.0

    def __post_init__(self) -> None:
        """Check the limits.

        Raises:
            CallerError: a limit is out of range, or there is no room for two segments.
        """
        if self.segment_bytes <= 0 or min(self.keep_seconds, self.seal_seconds) < 0:
            raise CallerError("the audit trail's segments and keeping time must be positive")
        if self.max_bytes < 2 * self.segment_bytes:
            raise CallerError("the audit trail must have room for two segments")


class SpoolFullError(InfrastructureError):
    """The trail has reached its size limit, and no segment may be removed."""

    default_reason = "audit-full"
