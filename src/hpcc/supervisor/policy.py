"""Decides when a service that ended is started again. Pure: takes times, returns a decision."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

# A service that ends more often than this is broken and is given up. Builds continue locally.
MAX_RESTARTS: Final = 5
WINDOW_SECONDS: Final = 300.0
FIRST_DELAY_SECONDS: Final = 0.2
MAX_DELAY_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Restart:
    """Start the service again after `after_seconds`."""

    after_seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not start the service again, and end the others."""

    reason: str


@dataclass(slots=True)
class RestartPolicy:
    """Stores the recent deaths of one service, as monotonic seconds."""

    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_RESTARTS + 1))

    def on_death(self, at: float) -> Restart | GiveUp:
        """Decide after a death at monotonic second `at`; delays double within the window."""
        self.deaths.append(at)
        recent = sum(1 for death in self.deaths if at - death <= WINDOW_SECONDS)
        if recent > MAX_RESTARTS:
            return GiveUp(f"ended {recent} times in {WINDOW_SECONDS:.0f} s")
        delay = FIRST_DELAY_SECONDS * 2.0 ** (recent - 1)
        return Restart(min(delay, MAX_DELAY_SECONDS))
