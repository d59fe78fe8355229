"""How often a worker may begin or end a life: every daemon that watches is told of each."""

from __future__ import annotations

from typing import Final

from hpcc.rpc.base.errors import BusyError

# All guests of a large host die at once, and more follow.
BURST: Final = 128.0
PER_SECOND: Final = 4.0
# Of workers; those whose allowance is whole again are forgotten.
_MAX_REMEMBERED: Final = 16_384


class GenerationRateLimit:
    """An allowance for each worker. A worker keeps what was not taken, and says it again."""

    def __init__(self) -> None:
        # What is left, and since when.
        self._left: dict[str, tuple[float, float]] = {}

    def count(self, worker_id: str, now: float) -> None:
        """Count one at the monotonic time `now`.

        Raises:
            BusyError: there were too many.
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
