"""How long compiles waited for a guest lately: what a heartbeat tells people of a queue.

The histogram of the metrics counts since the start, and its buckets are coarse. A person who looks
at a farm asks about the last minutes.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from hpcc.ports import Clock

WAIT_SECONDS: Final = 600.0
MAX_WAITS: Final = 1024
_PERCENT: Final = 95


class RecentWaits:
    """The waits of the last ten minutes, at most the newest `MAX_WAITS`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._waits: deque[tuple[float, float]] = deque(maxlen=MAX_WAITS)

    def add(self, seconds: float) -> None:
        """Note how long a compile waited that has a guest now."""
        self._waits.append((self.clock.monotonic(), max(seconds, 0.0)))

    def p95(self) -> tuple[float, int]:
        """Return what 95 of 100 waits did not exceed, in seconds, and how many there were.

        It is one of the waits: the smallest that so many do not exceed. 0 of none.
        """
        oldest = self.clock.monotonic() - WAIT_SECONDS
        while self._waits and self._waits[0][0] < oldest:
            self._waits.popleft()
        found = sorted(seconds for _, seconds in self._waits)
        if not found:
            return 0.0, 0
        return found[-(-_PERCENT * len(found) // 100) - 1], len(found)
