"""Figures of the farm, each with its goal, and the quantiles for them. No I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line: what was measured, its unit, and its goal: the most, or `is_least` the least."""

    what: str
    value: float
    unit: str
    goal: float | None = None
    is_least: bool = False

    def line(self) -> str:
        verdict = " | "
        if self.goal is not None:
            holds = self.value >= self.goal if self.is_least else self.value <= self.goal
            sign = "≥" if self.is_least else "≤"
            verdict = f"{sign} {self.goal:g} | {'holds' if holds else '**misses**'}"
        digits = 0 if self.value >= 1000 else 2
        return f"| {self.what} | {self.value:,.{digits}f} {self.unit} | {verdict} |"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A worker's machine, and the CPU of one compile there in milliseconds.

    `worker` is the part that each worker process can spend only one after the other: it has one
    loop. `guest` is everything else but the compiler: warden, agent, sandbox.
    """

    vcpus: int
    worker: float
    guest: float
    compiler: float

    def served(self, processes: int = 0) -> float:
        """Return compiles a second with so many worker processes; 0: as many as are of use."""
        by_cores = 1000 * self.vcpus / (self.worker + self.guest + self.compiler)
        return min(by_cores, 1000 * processes / self.worker) if processes else by_cores

    @property
    def processes(self) -> int:
        """Return how many worker processes are of use."""
        return math.ceil(self.served() * self.worker / 1000)

    @property
    def share(self) -> float:
        """Return the compiler's share of the machine when all of it is used."""
        return self.compiler / (self.worker + self.guest + self.compiler)


def quantile(samples: Sequence[float], share: float) -> float:
    """Return the smallest sample that `share` of the samples do not exceed; 0 without samples."""
    ordered = sorted(samples)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0
