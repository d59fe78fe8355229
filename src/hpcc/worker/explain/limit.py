"""Limits how often a principal may ask why something missed, and how many answers are made."""

from __future__ import annotations

import asyncio
from typing import Final

from hpcc.core import TenantId
from hpcc.core.memo import LruMemo
from hpcc.rpc.base.errors import BusyError

# `hpcc explain` of a target with some objects, a few times.
BURST: Final = 30.0
# A question reads up to five input trees, and writes a row that is synced.
PER_SECOND: Final = 0.5
_MAX_PRINCIPALS: Final = 4096


# Each answer may hold two object files and the directories of a tree.
_AT_ONCE: Final = 2


class QuestionLimit:
    """One token bucket for each principal of a tenant. `turn` is held while an answer is made."""

    def __init__(self) -> None:
        self.turn = asyncio.Semaphore(_AT_ONCE)
        # The tokens that were left, and the monotonic time of that count.
        self._left: LruMemo[tuple[TenantId, str], tuple[float, float]] = LruMemo(_MAX_PRINCIPALS)

    def count(self, tenant: TenantId, principal: str, now: float) -> None:
        """Take one token at the monotonic time `now`, in seconds.

        Raises:
            BusyError: the principal has no token left.
        """
        left, at = self._left.use((tenant, principal)) or (BURST, now)
        left = min(left + (now - at) * PER_SECOND, BURST)
        if left < 1:
            raise BusyError(
                "too many questions: explain fewer files at a time",
                retry_after_seconds=(1 - left) / PER_SECOND,
                reason="explain-rate",
            )
        self._left[tenant, principal] = left - 1, now
