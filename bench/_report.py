"""The report of a run, as JSON and as a table in Markdown."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from _rows import Json, Row, Spread, figures, goal_of, is_below, ratio, row_json, verdict

FORMAT = 1
_HEAD = ("what", "", "ours", "theirs", "ratio", "quartiles", "must", "aim", "", "by sccache")


@dataclass
class Report:
    """Collects results while the bench runs. `skipped` and `failed` are pairs of row and reason."""

    versions: Json = field(default_factory=dict)
    conditions: Json = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    guest_rows: list[dict[str, object]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def json(self) -> Json:
        return {
            "format": FORMAT,
            "versions": self.versions,
            "conditions": self.conditions,
            "rows": [row_json(row) for row in self.rows],
            "guest_rows": self.guest_rows,
            "skipped": [{"what": what, "why": why} for what, why in self.skipped],
            "failed": [{"what": what, "why": why} for what, why in self.failed],
        }

    def differing(self) -> list[str]:
        """Return the files that hpcc wrote differently from the bare compiler."""
        return [f"{row.what}: {name}" for row in self.rows for name in row.differing]

    def text(self) -> str:
        about = {**self.versions, **self.conditions}
        lines = [", ".join(f"{key} {value}" for key, value in about.items()), ""]
        lines += _table([line for row in self.rows for line in _lines(row)])
        lines += ["", *(_guest_line(row) for row in self.guest_rows)]
        lines += [f"note: {row.what}: {note}" for row in self.rows for note in row.notes]
        lines += [f"skipped: {what}: {why}" for what, why in self.skipped]
        lines += [f"FAILED: {what}: {why}" for what, why in self.failed]
        lines += [self._identity(), *self._summary()]
        return "\n".join(lines)

    def _identity(self) -> str:
        if differing := self.differing():
            return "WRONG: not what the bare compiler writes: " + ", ".join(differing[:20])
        checked = sum(row.checked for row in self.rows if not row.key.endswith("-all"))
        if not checked:
            return "identity: nothing was compared"
        return (
            f"identity: {checked} files of hpcc's compared with the bare compiler's, all the same"
        )

    def _summary(self) -> list[str]:
        missed, held, above = [], 0, []
        for row in self.rows:
            for metric in row.metrics:
                goal = goal_of(row, metric)
                if goal is not None and row.against in row.costs:
                    median = ratio(row, row.against, metric).median
                    if verdict(goal, median) == "misses":
                        missed.append(f"{row.what} ({metric} {median:.3f}, must {goal.must})")
                    else:
                        held += 1
                if "sccache" in row.costs and not is_below(row, "sccache", metric):
                    above.append(f"{row.what} ({metric})")
        lines = [f"goals: {held} hold, {len(missed)} are missed"]
        lines += [f"  missed: {name}" for name in missed]
        if any("sccache" in row.costs for row in self.rows):
            lines.append(f"against sccache: better everywhere but in {len(above)} figures")
            lines += [f"  not better: {name}" for name in above]
        return lines


def _lines(row: Row) -> list[tuple[str, ...]]:
    return [_line(row, metric) for metric in row.metrics]


def _line(row: Row, metric: str) -> tuple[str, ...]:
    ours = _figure(Spread.of(figures(row, row.ours, metric)), metric)
    name = f"{row.what}, by {row.against}"
    if row.against not in row.costs:
        return (name, metric, ours, "-", "-", "-", "", "", "", _by_sccache(row, metric))
    theirs = _figure(Spread.of(figures(row, row.against, metric)), metric)
    spread, goal = ratio(row, row.against, metric), goal_of(row, metric)
    sign = "≥" if metric == "rate" else "≤"
    return (
        name, metric, ours, theirs, f"{spread.median:.3f}", f"{spread.q1:.3f} to {spread.q3:.3f}",
        f"{sign} {goal.must:g}" if goal else "",
        f"{sign} {goal.aim:g}" if goal and goal.aim is not None else "",
        {"aim": "holds, aim too", "misses": "**misses**"}.get(v := verdict(goal, spread.median), v),
        _by_sccache(row, metric),
    )  # fmt: skip


def _by_sccache(row: Row, metric: str) -> str:
    return f"{ratio(row, 'sccache', metric).median:.3f}" if "sccache" in row.costs else "-"


def _figure(spread: Spread, metric: str) -> str:
    if metric == "rate":
        return f"{spread.median:,.0f}/s"
    if spread.median >= 1:
        return f"{spread.median:.2f} s"
    milliseconds = spread.median * 1e3
    return f"{milliseconds:.0f} ms" if milliseconds >= 20 else f"{milliseconds:.2f} ms"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in [_HEAD, *rows]) for i in range(len(_HEAD))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"

    return [line(_HEAD), line(["-" * width for width in widths]), *(line(row) for row in rows)]


def _guest_line(row: dict[str, object]) -> str:
    return "guest: " + "  ".join(f"{key}={value}" for key, value in row.items())


def versions() -> Json:
    """Return the date, the machine, and the versions of the programs."""

    def first(*argv: str) -> str:
        try:
            out = subprocess.run(argv, capture_output=True, check=False, text=True).stdout
        except OSError:
            return "absent"
        return out.splitlines()[0] if out else "absent"

    return {
        "date": datetime.now(UTC).date().isoformat(), "cpus": os.cpu_count(),
        "kernel": platform.release(), "processor": _processor(),
        "gcc": first("gcc", "--version"), "ccache": first("ccache", "--version"),
        "sccache": first("sccache", "--version"),
        "qemu": first("qemu-system-x86_64", "--version"), "python": platform.python_version(),
    }  # fmt: skip


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
