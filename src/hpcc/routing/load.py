"""How busy all workers together are, from the states that routes are chosen by."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from hpcc.routing.fleet import Member

# An hour. Six counts are kept of each sample, whatever the farm's size.
SAMPLE_SECONDS: Final = 10.0
MAX_SAMPLES: Final = 360


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Sums over workers. One that drains counts in `draining` only.

    Likewise a stale one, which may be gone, in `stale`.
    """

    live: int = 0
    stale: int = 0
    draining: int = 0
    capacity: int = 0
    running: int = 0
    queued: int = 0

    @classmethod
    def of(cls, members: Iterable[Member]) -> Load:
        """Add up the workers whose lease has not ended."""
        every = list(members)
        serving = [m for m in every if not m.is_draining]
        live = [m for m in serving if not m.is_stale]
        return cls(
            live=len(live),
            stale=len(serving) - len(live),
            draining=len(every) - len(serving),
            capacity=sum(m.capacity for m in live),
            # A worker may report anything; it cannot be more busy than full.
            running=sum(min(m.running, m.capacity) for m in live),
            queued=sum(m.queued for m in live),
        )

    @property
    def idle(self) -> int:
        """How many places are free."""
        return self.capacity - self.running

    @property
    def demand(self) -> int:
        """How many compiles run or wait."""
        return self.running + self.queued


@dataclass(frozen=True, slots=True)
class LoadSample:
    """The load at a moment, in seconds since the epoch, UTC."""

    at: float
    load: Load


class LoadHistory:
    """The load of the last hour. The caller adds a sample every `SAMPLE_SECONDS`."""

    def __init__(self) -> None:
        self._samples: deque[LoadSample] = deque(maxlen=MAX_SAMPLES)

    def add(self, at: float, load: Load) -> None:
        """Add a sample; the oldest one goes when there are too many."""
        self._samples.append(LoadSample(at, load))

    @property
    def samples(self) -> tuple[LoadSample, ...]:
        """The samples, the oldest first."""
        return tuple(self._samples)
