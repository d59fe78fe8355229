"""The errors of evidence. Each carries the exit status that the commands end with."""

from __future__ import annotations

from hpcc.core import IntegrityError, NotFoundError


class EvidenceDamagedError(IntegrityError):
    """An evidence file differs from what its maker wrote, or is about another file."""

    default_reason = "evidence-damaged"


class EvidenceMissingError(NotFoundError):
    """What would have to prove something does not exist, or no longer."""

    default_reason = "evidence-missing"
