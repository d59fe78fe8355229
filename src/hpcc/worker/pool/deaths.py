"""Actions that guests died under, for as long as that counts. Bounded; does no I/O."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from hpcc.core import Digest
from hpcc.ports import Clock
from hpcc.worker.base.domain import TrustDomain

# An action that ended this many guests is not run again for a while.
MAX_GUEST_DEATHS: Final = 2
# Not for ever: it may have shared its guests with the one that ended them.
REMEMBERED_SECONDS: Final = 1800.0
MAX_REMEMBERED: Final = 1024


class Deaths:
    """Guest deaths by action, each trust domain's apart."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Count and time of the last, oldest first.
        self._deaths: OrderedDict[tuple[TrustDomain, Digest], tuple[int, float]] = OrderedDict()

    def note(self, domain: TrustDomain, action: Digest) -> bool:
        """Count a guest that died under an action; say whether that quarantines it."""
        count = self._count(domain, action) + 1
        self._deaths.pop((domain, action), None)
        self._deaths[domain, action] = count, self._clock.monotonic()
        while len(self._deaths) > MAX_REMEMBERED:
            self._deaths.popitem(last=False)
        return count == MAX_GUEST_DEATHS

    def is_quarantined(self, domain: TrustDomain, action: Digest) -> bool:
        return self._count(domain, action) >= MAX_GUEST_DEATHS

    def _count(self, domain: TrustDomain, action: Digest) -> int:
        count, at = self._deaths.get((domain, action), (0, 0.0))
        return count if self._clock.monotonic() - at < REMEMBERED_SECONDS else 0
