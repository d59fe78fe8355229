"""Decides which messages the service manager gets, and when.

The event loop that serves sends all of them: if it hangs, the manager hears nothing, and ends the
service after `WatchdogSec`. A start or an end may take long, while a guest boots or a compile
finishes; each message asks for a little more time, so a loop that hangs then is ended as well.
An end gets no more than the service's `end_seconds`: a loop that runs can wait for something that
never comes, and the manager then ends it by its own limit (`TimeoutStopSec`).
"""

from __future__ import annotations

from typing import Final

from hpcc.obs.health.health import Health, ServicePhase
from hpcc.obs.health.manager import ServiceManager, extended
from hpcc.ports import Clock

# How much time each message of a start or an end asks for, and how often there is one.
EXTEND_SECONDS: Final = 60.0
_STEP_SECONDS: Final = 5.0
# How often a service that has started and is not ready is looked at.
_READY_SECONDS: Final = 1.0


class ManagerMessages:
    """The next message, from what the manager has already. Takes times, returns lines."""

    def __init__(self, watchdog_seconds: float) -> None:
        # Half of the time, as sd_watchdog_enabled(3) recommends.
        self._half_seconds = watchdog_seconds / 2
        self._is_ready = False
        self._line = ""
        self._fed_at = float("-inf")
        # When the end began.
        self._ends_since: float | None = None

    def due(self, health: Health, now: float) -> list[str]:
        """Return the lines of the next message; none if there is nothing to say."""
        line = health.line()
        lines = [f"STATUS={line}"] if line != self._line else []
        if health.phase is ServicePhase.STOPPING:
            return ["STOPPING=1", *self._more_time(health, now), *lines]
        if not self._is_ready and not health.conditions().is_serving:
            return [extended(EXTEND_SECONDS), *lines]
        if not self._is_ready:
            lines.insert(0, "READY=1")
        if self._half_seconds and now - self._fed_at >= self._half_seconds:
            lines.append("WATCHDOG=1")
        return lines

    def _more_time(self, health: Health, now: float) -> list[str]:
        """Return the line that asks for more time to end, as long as the service may have it."""
        if self._ends_since is None:
            self._ends_since = now
        left = self._ends_since + health.end_seconds - now
        return [extended(min(left, EXTEND_SECONDS))] if left > 0 else []

    def sent(self, lines: list[str], now: float) -> None:
        """Note that the manager has these lines."""
        self._is_ready = self._is_ready or "READY=1" in lines
        self._fed_at = now if "WATCHDOG=1" in lines else self._fed_at
        for line in lines:
            if line.startswith("STATUS="):
                self._line = line.removeprefix("STATUS=")

    def pause_seconds(self, health: Health) -> float:
        """Return how long to wait for the next message, unless something changes."""
        if health.phase is ServicePhase.SERVING and not self._is_ready:
            return _READY_SECONDS
        # A timer may come a little early, so each half has two chances.
        return min(_STEP_SECONDS, self._half_seconds / 2 or _STEP_SECONDS)


async def keep_notified(manager: ServiceManager, health: Health, clock: Clock) -> None:
    """Send messages about this process until cancelled."""
    messages = ManagerMessages(manager.watchdog_seconds)
    while True:
        now = clock.monotonic()
        lines = messages.due(health, now)
        if lines and manager.send(*lines):
            messages.sent(lines, now)
        await health.wait_changed(messages.pause_seconds(health))
