"""How large and how old the files of a trail may become, and who decides."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from hpcc.core import CallerError, InfrastructureError

_KEY: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRole:
    """Raw public keys of the people who hold and release, and how many must sign to remove.

    One of them is enough for a hold: it removes nothing.
    """

    keys: frozenset[bytes] = frozenset()
    quorum: int = 1

    def __post_init__(self) -> None:
        """Check the number.

        Raises:
            CallerError: it is not between 1 and the number of keys.
        """
        if self.quorum < 1 or (self.keys and self.quorum > len(self.keys)):
            raise CallerError(
                "audit_retention_quorum must be at least 1 and at most the number of"
                " audit_retention_keys"
            )


def retention_role(keys: Iterable[str], quorum: int) -> RetentionRole:
    """Return the role whose public keys a configuration names in hex.

    Raises:
        CallerError: one is not a key, or the number of signatures is wrong.
    """
    found: set[bytes] = set()
    for text in keys:
        if not _KEY.fullmatch(text):
            raise CallerError(
                f"audit_retention_keys: {text[:80]!r} is not 64 hex digits, as `hpcc audit hold key"
                " FILE` prints them",
                reason="config",
            )
        found.add(bytes.fromhex(text))
    return RetentionRole(keys=frozenset(found), quorum=quorum)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolLimits:
    """Size and age limits of a trail's files.

    `segment_bytes`: a segment of this size is sealed; opening the trail reads one segment.
    `max_bytes`: the most that all segments may take of the disk.
    `seal_seconds`: an open segment of this age is sealed at any size; 0: never.
    `keep_seconds`: a sealed segment of this age is removed once every sink has it; 0: never.
    `role`: if it has keys, nothing is removed that it has not allowed.
    """

    segment_bytes: int = 64 << 20
    max_bytes: int = 16 << 30
    keep_seconds: float = 0.0
    seal_seconds: float = 0.0
    role: RetentionRole = field(default_factory=RetentionRole)

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
