"""How much a scheduler keeps of builds, and how often somebody may report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildLimits:
    """What is kept at most, and how often somebody may report.

    The jobs of a CI system have one principal: 400 of them report every 20 seconds.
    """

    total_bytes: int = 16 << 20
    person_bytes: int = 2 << 20
    keep_seconds: int = 14 * 86_400
    person_per_second: float = 20.0
    tenant_per_second: float = 100.0
    # A list costs a few milliseconds, and a build of 64 large reports too.
    person_looks_per_second: float = 4.0
    tenant_looks_per_second: float = 20.0
    burst_seconds: float = 5.0
