"""Actions that killed guests, and are not sent to guests for a while."""

from __future__ import annotations

from typing import Final

from hpcc.core.memo import LruMemo

MAX_GUEST_DEATHS: Final = 2
# Not permanent: the action may have shared its guests with the one that killed them.
QUARANTINE_SECONDS: Final = 1800.0
MAX_REMEMBERED: Final = 1024


class ActionQuarantine[K]:
    """Guest deaths by action. An action with `max_deaths` is quarantined.

    Deaths count until `seconds` after the last one. With more than `max_actions`, the action with
    the oldest last death is forgotten. `now` is a monotonic time in seconds.
    """

    def __init__(
        self,
        *,
        max_deaths: int = MAX_GUEST_DEATHS,
        seconds: float = QUARANTINE_SECONDS,
        max_actions: int = MAX_REMEMBERED,
    ) -> None:
        self._max_deaths, self._seconds = max_deaths, seconds
        # The number of deaths, and the time of the last one.
        self._deaths: LruMemo[K, tuple[int, float]] = LruMemo(max_actions)

    def note(self, action: K, now: float) -> bool:
        """Count a guest that died during an action; return whether that quarantines it now."""
        count = self._count(action, now) + 1
        self._deaths[action] = count, now
        return count == self._max_deaths

    def holds(self, action: K, now: float) -> bool:
        """Return whether an action is quarantined."""
        return self._count(action, now) >= self._max_deaths

    def held(self, now: float) -> int:
        """Return how many actions are quarantined."""
        return sum(self.holds(action, now) for action in tuple(self._deaths))

    def _count(self, action: K, now: float) -> int:
        count, at = self._deaths.get(action, (0, 0.0))
        return count if now - at < self._seconds else 0
