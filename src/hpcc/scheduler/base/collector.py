"""Tunes Python's cycle collector so that routes do not wait for it.

Calls leave cycles that hold gRPC objects, which take time to release. A worker's objects stay for
weeks, and the collector would visit them again and again. So the collector runs often and briefly,
and long-lived objects are frozen. Measured for 2,000 workers: pauses of 15 to 50 ms before and of
4 ms after, with the same CPU time in total.
"""

from __future__ import annotations

import gc
from typing import Final

# Allocations between two collections of the youngest generation, and how many of these precede
# a collection of the older ones.
_THRESHOLDS: Final = (300, 5, 200)
_MORE_WORKERS: Final = 1.25
_FEW: Final = 16


class Collector:
    """Freezes long-lived objects whenever the farm has grown by a quarter.

    Garbage that is frozen with them stays: a few hundred objects, a few dozen times per process.
    """

    def __init__(self) -> None:
        self._workers = 0

    def start(self) -> None:
        """Freeze what exists before the first call."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_THRESHOLDS)

    def grown(self, workers: int) -> bool:
        """Note how many workers there are; return whether their objects were frozen."""
        if workers <= self._workers * _MORE_WORKERS + _FEW:
            return False
        self._workers = workers
        gc.freeze()
        return True
