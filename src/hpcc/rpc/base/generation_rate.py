"""Limits how often a worker may start or end a generation: each one is sent to all daemons."""

from __future__ import annotations

from typing import Final

from hpcc.rpc.base.errors import BusyError

# All guests of a large host may die at the same time, and more after them.
BURST: Final = 128.0
PER_SECOND: Final = 4.0
# Number of workers. When it is reached, those with a full allowance are removed.
_MAX_REMEMBERED: Final = 16_384


class GenerationRateLimit:
    """One token bucket for each worker. A worker keeps a refused report and sends it again."""

    def __init__(self) -> None:
        # The tokens that were left, and the monotonic time of that count.
        self._left: dict[str, tuple[float, float]] = {}

    def count(self, worker_id: str, now: float) -> None:
        """Take one token of a worker at the monotonic time `now`, in seconds.

        Raises:
            BusyError: the worker has no token left.
        """
        left = self._allowance(worker_id, now)
        if left < 1:
            raise BusyError(
                "this worker's guests die too often: look at its log",
                retry_after_seconds=1.0,
                reason="worker-lives",
            )
        if len(self._left) >= _MAX_REMEMBERED:
            self._left = {w: x for w, x in self._left.items() if self._allowance(w, now) < BURST}
        self._left[worker_id] = left - 1, now

    def _allowance(self, worker_id: str, now: float) -> float:
        left, at = self._left.get(worker_id, (BURST, now))
        return min(left + (now - at) * PER_SECOND, BURST)
