"""Figures of the farm, each with its goal, and the quantiles for them. No I/O."""

from __future__ import annotations

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


def quantile(samples: Sequence[float], share: float) -> float:
    """Return the smallest sample that `share` of the samples do not exceed; 0 without samples."""
    ordered = sorted(samples)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0
