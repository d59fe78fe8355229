"""Gives the lives of workers their numbers. Does no I/O."""

from __future__ import annotations

from typing import Final

from hpcc.ports import Clock
from hpcc.rpc.scheduler.registration_messages import MAX_GENERATION

# How far a worker's generation may be ahead of this clock.
_MAX_AHEAD_SECONDS: Final = 86_400


class Generations:
    """Generations follow the clock, so they grow over restarts of the scheduler."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._last = clock, 0

    def next(self, above: int) -> int:
        """Return a generation above this one and above all that were returned before."""
        clock = int(self._clock.now()) << 16
        self._last = max(clock, self._last, above) + 1
        return self._last

    def sane(self, generation: int) -> int:
        """Return a received generation, or 0 if no plausible clock can have produced it."""
        ahead = int(self._clock.now() + _MAX_AHEAD_SECONDS) << 16
        return generation if 0 < generation < min(ahead, MAX_GENERATION) else 0
