"""Rows of figures, their goals, and the verdicts. No I/O."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from _measure import Cost
from _tools import BARE, OURS

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison: the cost of each tool in each round, with all tools in every round.

    `per` operations make a round; `against` is the tool that the goals compare with. `checked`
    counts the files that were compared with the bare compiler's, and `differing` names hpcc's files
    that differ.
    """

    key: str
    what: str
    against: str
    per: int
    costs: Mapping[str, Sequence[Cost]]
    metrics: tuple[str, ...] = ("cpu", "wall")
    ours: str = OURS
    checked: int = 0
    differing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Goal:
    """Bounds for rows with a matching key: rates must be above them, other figures below."""

    keys: str
    metric: str
    must: float
    aim: float | None = None


GOALS: Final = (
    Goal(r"hit-10(-dirs)?", "cpu", 0.20, 0.12),
    Goal(r"hit-300(-dirs)?", "cpu", 0.25, 0.12),
    Goal(r"hit-1000(-dirs)?", "cpu", 0.35, 0.10),
    Goal(r"hit-\d+(-dirs)?", "wall", 0.35, 0.20),
    Goal(r"content-\d+", "cpu", 0.60),
    Goal(r"warm-.+", "cpu", 0.30, 0.20),
    Goal(r"warm-.+", "wall", 0.45),
    Goal(r"ext4-.+", "cpu", 0.25, 0.15),
    Goal(r"cold-headers", "cpu", 1.12, 1.06),
    Goal(r"cold-headers", "wall", 1.12, 1.06),
    Goal(r"cold-(?!headers).+", "cpu", 1.03, 1.01),
    Goal(r"cold-(?!headers).+", "wall", 1.03, 1.01),
    Goal(r"rate-.+", "rate", 3.0, 5.0),
)


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and quartiles of one figure over the rounds."""

    median: float
    q1: float
    q3: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return Spread(values[0], values[0], values[0])
        q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
        return Spread(median, q1, q3)

    def json(self, scale: float = 1.0) -> Json:
        return {
            "median": round(self.median * scale, 4),
            "q1": round(self.q1 * scale, 4),
            "q3": round(self.q3 * scale, 4),
        }


def figures(row: Row, tool: str, metric: str) -> list[float]:
    """Return one tool's figure of each round: seconds per operation, or operations per second."""
    costs = row.costs[tool]
    if metric == "rate":
        return [row.per / cost.wall for cost in costs]
    seconds = attrgetter(metric)
    return [float(seconds(cost)) / row.per for cost in costs]


def ratio(row: Row, other: str, metric: str) -> Spread:
    """Return hpcc's figures divided by the other's, round by round, so that drift cancels out."""
    pairs = zip(figures(row, row.ours, metric), figures(row, other, metric), strict=True)
    return Spread.of([a / b for a, b in pairs])


def goal_of(row: Row, metric: str) -> Goal | None:
    """Return the goal for one figure of a row, if it has one."""
    for goal in GOALS:
        if goal.metric == metric and re.fullmatch(goal.keys, row.key):
            return goal
    return None


def verdict(goal: Goal | None, median: float) -> str:
    """Return `aim` (aim reached), `holds` (only the bound), `misses`, or "" without a goal."""
    if goal is None:
        return ""

    def reaches(limit: float) -> bool:
        return median >= limit if goal.metric == "rate" else median <= limit

    if not reaches(goal.must):
        return "misses"
    return "aim" if goal.aim is not None and reaches(goal.aim) else "holds"


def is_below(row: Row, other: str, metric: str) -> bool:
    """Return whether hpcc's figure is the better of the two."""
    median = ratio(row, other, metric).median
    return median > 1 if metric == "rate" else median < 1


def _tool_json(row: Row, tool: str) -> Json:
    """Return milliseconds per operation, or operations per second; `server` is a part of `cpu`."""
    shown = (*row.metrics, "server") if "cpu" in row.metrics else row.metrics
    return {
        metric: Spread.of(figures(row, tool, metric)).json(1 if metric == "rate" else 1e3)
        for metric in shown
    }


def row_json(row: Row) -> Json:
    tools: Json = {tool: _tool_json(row, tool) for tool in row.costs}
    others = [tool for tool in row.costs if tool != row.ours]
    ratios: Json = {
        other: {metric: ratio(row, other, metric).json() for metric in row.metrics}
        for other in others
    }
    goals: Json = {}
    for metric in row.metrics:
        goal = goal_of(row, metric)
        if goal is not None and row.against in row.costs:
            found = verdict(goal, ratio(row, row.against, metric).median)
            goals[metric] = {"must": goal.must, "aim": goal.aim, "verdict": found}
    return {
        "key": row.key, "what": row.what, "against": row.against, "per": row.per,
        "rounds": len(row.costs[row.ours]), "tools": tools, "ratios": ratios, "goals": goals,
        "checked": row.checked, "differing": list(row.differing), "notes": list(row.notes),
    }  # fmt: skip


def total(key: str, what: str, rows: Sequence[Row]) -> Row:
    """Return the sum of several rows, round by round."""
    first = rows[0]
    costs = {
        tool: [
            sum(parts[1:], parts[0]) for parts in zip(*(r.costs[tool] for r in rows), strict=True)
        ]
        for tool in first.costs
        if all(tool in row.costs for row in rows)
    }
    return Row(key, what, first.against, 1, costs, checked=sum(row.checked for row in rows))


__all__ = ["BARE", "GOALS", "Goal", "Json", "Row", "Spread", "figures", "goal_of", "is_below",
           "ratio", "row_json", "total", "verdict"]  # fmt: skip
