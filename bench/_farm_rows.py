"""Figures of the farm, each with its goal, and the quantiles for them. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line: what was measured, its unit, and the goal that it must stay below."""

    what: str
    value: float
    unit: str
    goal: float | None = None

    def line(self) -> str:
        verdict = " | "
        if self.goal is not None:
            verdict = f"≤ {self.goal:g} | {'holds' if self.value <= self.goal else '**misses**'}"
        digits = 0 if self.value >= 1000 else 2
        return f"| {self.what} | {self.value:,.{digits}f} {self.unit} | {verdict} |"


def quantile(samples: Sequence[float], share: float) -> float:
    """Return the smallest sample that `share` of the samples do not exceed; 0 without samples."""
    ordered = sorted(samples)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0
