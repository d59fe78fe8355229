"""Actions that ended guests, counted over all workers. Bounded; does no I/O.

Each worker has its own count (`hpcc.worker.pool.deaths`). Without this one, an action that is
routed to another worker after each death would end two guests at every worker.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from hpcc.core import CallerError, Digest

# As at the worker. Limited in time, because another action in the same guest may be to blame.
MAX_GUEST_DEATHS: Final = 2
REMEMBERED_SECONDS: Final = 1800.0
MAX_REMEMBERED: Final = 1024
# A death that is known to be another compile's fault has another reason and does not count.
COUNTED_REASON: Final = "guest-lost"


class GuestDeaths:
    """Guest deaths by action; see the module."""

    def __init__(self) -> None:
        # Count and monotonic time of the last, oldest first.
        self._deaths: OrderedDict[Digest, tuple[int, float]] = OrderedDict()

    def note(self, action: Digest, reason: str, now: float) -> None:
        """Count a failure if its reason is a guest's death; `now` is monotonic, in seconds."""
        if reason != COUNTED_REASON:
            return
        self._deaths[action] = self._count(action, now) + 1, now
        self._deaths.move_to_end(action)
        if len(self._deaths) > MAX_REMEMBERED:
            self._deaths.popitem(last=False)

    def check(self, action: Digest, now: float) -> None:
        """Refuse an action that ended too many guests.

        Raises:
            CallerError: the action is quarantined (reason `quarantined`).
        """
        if self._count(action, now) >= MAX_GUEST_DEATHS:
            raise CallerError(
                f"this compile ended {MAX_GUEST_DEATHS} guests: it is quarantined, and made on this"
                " machine for half an hour; the worker's events `guest-lost-in-compile` say how"
                " they ended",
                reason="quarantined",
            )

    def _count(self, action: Digest, now: float) -> int:
        count, at = self._deaths.get(action, (0, 0.0))
        return count if now - at < REMEMBERED_SECONDS else 0
