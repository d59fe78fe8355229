"""Compiles by outcome over time, as stacked areas of SVG."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Final

from hpcc.cli.builds.parts import panel
from hpcc.cli.web.parts.sums import BINS, Ends, Outcomes

# From below: what a chart of a farm is looked at for is at its foot.
ORDER: Final = (
    ("farm", "in guests"), ("fallback", "here instead"), ("here", "here, no farm"),
    ("hit", "from a cache"),
)  # fmt: skip
_WIDE: Final = 1000
_HIGH: Final = 100
_CHART: Final = 230
_TICKS: Final = 6
_DAY_HOURS: Final = 24
_MINUTE: Final = 60.0
NONE_TOLD: Final = "No client has told of a compile in this time."


def outcome_panel(found: Outcomes, none: str = NONE_TOLD) -> str:
    """Return the chart with its legend; `none` if no compile was reported within the time."""
    title, note = "Compiles by outcome", f"a minute, {span_words(found.choice.hours)}"
    if not found.whole.compiles:
        return panel(title, f'<p class="pad note">{none}</p>', note)
    per_minute = _MINUTE / found.bin_seconds
    rows = [tuple(n * per_minute for n in _ordered(part)) for part in found.bins]
    most = _round_up(max(sum(row) for row in rows))
    base = [0.0] * BINS
    drawn = ""
    for number, (style, _) in enumerate(ORDER):
        tops = [low + row[number] for low, row in zip(base, rows, strict=True)]
        drawn += _area(style, base, tops, most)
        base = tops
    whole = _ordered(found.whole)
    said = ", ".join(f"{n:,.0f} {word}" for (_, word), n in zip(ORDER, whole, strict=True))
    chart = (
        f'<svg class="chart" height="{_CHART + 24}" role="img" '
        f'aria-label="Compiles by outcome: {said}">'
        f'<svg width="100%" height="{_CHART}" y="4" viewBox="0 0 {_WIDE} {_HIGH}" '
        f'preserveAspectRatio="none">{drawn}</svg>{_axis(found)}{_scale(most)}</svg>'
    )
    return panel(title, f'<div class="pad">{chart}</div>', note, _legend(found.whole))


def span_words(hours: int) -> str:
    """Return what a page calls a time."""
    if hours == 1:
        return "last hour"
    return f"last {hours} hours" if hours <= _DAY_HOURS else f"last {hours // _DAY_HOURS} days"


def series_spark(values: Sequence[float], style: str) -> str:
    """Return a small line of values, from 0 to their maximum; "" if all are 0."""
    most = max(values, default=0.0)
    if not most:
        return ""
    points = [
        f"{_WIDE * n / (len(values) - 1):.1f},{_HIGH - (_HIGH - 4) * value / most:.1f}"
        for n, value in enumerate(values)
    ]
    line = " ".join(points)
    return (
        f'<svg class="slots" width="100%" height="26" viewBox="0 0 {_WIDE} {_HIGH}" '
        'preserveAspectRatio="none" aria-hidden="true">'
        f'<polygon class="{style} soft" points="0,{_HIGH} {line} {_WIDE},{_HIGH}"/>'
        f'<polyline class="line l-{style}" points="{line}"/></svg>'
    )


def _ordered(ends: Ends) -> tuple[float, float, float, float]:
    return ends.farm, ends.instead, ends.here, ends.cache


def _round_up(most: float) -> float:
    """Return the first of 1, 2, 4, 5 or 10 times a power of ten that is not less."""
    power = 10.0 ** math.floor(math.log10(max(most, 1.0)))
    return next(n * power for n in (1.0, 2.0, 4.0, 5.0, 10.0) if n * power >= most or n == 10.0)  # noqa: PLR2004 - the last one


def _area(style: str, base: Sequence[float], tops: Sequence[float], most: float) -> str:
    if base == tops:
        return ""
    above = [_point(n, value, most) for n, value in enumerate(tops)]
    below = [_point(n, value, most) for n, value in enumerate(base)]
    half = " half" if style == "hit" else ""
    return f'<polygon class="{style}{half}" points="{" ".join(above + below[::-1])}"/>'


def _point(number: int, value: float, most: float) -> str:
    return f"{_WIDE * number / (BINS - 1):.1f},{_HIGH - _HIGH * value / most:.2f}"


def _scale(most: float) -> str:
    found = ""
    for part in (1.0, 0.5):
        y = 4 + _CHART * (1 - part)
        found += (
            f'<line class="tick" x1="0" x2="100%" y1="{y:g}" y2="{y:g}"/>'
            f'<text class="scale" x="2" y="{y + 13:g}">{most * part:,.4g}</text>'
        )
    return found


def _axis(found: Outcomes) -> str:
    took = found.bin_seconds * BINS
    form = "%H:%M" if found.choice.hours <= _DAY_HOURS else "%d %b"
    drawn = []
    for number in range(_TICKS + 1):
        x = 100 * number / _TICKS
        anchor = "start" if not number else "end" if number == _TICKS else "middle"
        when = time.strftime(form, time.localtime(found.began_at + took * number / _TICKS))
        style = "some" if number % _TICKS else "end"
        drawn.append(
            f'<line class="tick" x1="{x:.2f}%" x2="{x:.2f}%" y1="4" y2="{_CHART + 4}"/>'
            f'<text class="{style}" x="{x:.2f}%" y="{_CHART + 19}" text-anchor="{anchor}">'
            f"{when}</text>"
        )
    return "".join(drawn)


def _legend(whole: Ends) -> str:
    rows = "".join(
        f'<li><svg width="9" height="9" aria-hidden="true"><rect class="{style}" width="9" '
        f'height="9" rx="2"/></svg>{word} <b>{n:,.0f}</b></li>'
        for (style, word), n in zip(ORDER, _ordered(whole), strict=True)
    )
    return f'<ul class="legend">{rows}</ul>'
