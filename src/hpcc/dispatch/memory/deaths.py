"""Actions that ended guests, counted over all workers. Bounded; does no I/O.

Each worker has its own count (`hpcc.worker.pool`). Without this one, an action that is routed to
another worker after each death would end two guests at every worker.
"""

from __future__ import annotations

from typing import Final

from hpcc.core import CallerError, Digest
from hpcc.core.quarantine import MAX_GUEST_DEATHS, ActionQuarantine
from hpcc.core.reasons.fallback import FallbackReason

# A death that is known to be another compile's fault has another reason and does not count.
COUNTED_REASON: Final = FallbackReason.GUEST_LOST


class GuestDeaths:
    """Guest deaths by action; see the module."""

    def __init__(self) -> None:
        self._quarantine: ActionQuarantine[Digest] = ActionQuarantine()

    def note(self, action: Digest, reason: str, now: float) -> None:
        """Count a failure if its reason is a guest's death; `now` is monotonic, in seconds."""
        if reason == COUNTED_REASON:
            self._quarantine.note(action, now)

    def check(self, action: Digest, now: float) -> None:
        """Refuse an action that ended too many guests.

        Raises:
            CallerError: the action is quarantined (reason `quarantined`).
        """
        if self._quarantine.holds(action, now):
            raise CallerError(
                f"this compile ended {MAX_GUEST_DEATHS} guests: it is quarantined, and made on this"
                " machine for half an hour; the worker's events `guest-lost-in-compile` say how"
                " they ended",
                reason=FallbackReason.QUARANTINED,
            )
