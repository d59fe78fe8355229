"""Drawings of the last hour's load as SVG, made here: what a browser gets needs no script.

A line is broken where no sample was taken, as while a scheduler's machine was suspended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Final

from hpcc.cli.builds.parts import panel
from hpcc.routing.load import SAMPLE_SECONDS, Load, LoadSample

_WIDE: Final = 1000
_HIGH: Final = 100
_SPARK: Final = 26
_CHART: Final = 170
_GAP_SECONDS: Final = 3 * SAMPLE_SECONDS
_TICKS: Final = 6
_MINUTE: Final = 60
_LEGEND: Final = (("farm", "busy"), ("wait", "wait"), ("free", "places of live workers"))
Value = Callable[[Load], int]


def spark(samples: Sequence[LoadSample], value: Value, style: str) -> str:
    """Return a small line of one value, from 0 to its maximum; "" of fewer than two samples."""
    runs = list(_runs(samples))
    if not runs:
        return ""
    most = max(value(s.load) for s in samples)
    at = _x_of(samples)
    drawn = "".join(_area(run, at, value, most, style, is_line=True) for run in runs)
    return (
        f'<svg class="slots" width="100%" height="{_SPARK}" viewBox="0 0 {_WIDE} {_HIGH}" '
        f'preserveAspectRatio="none" aria-hidden="true">{drawn}</svg>'
    )


def load_panel(samples: Sequence[LoadSample]) -> str:
    """Return the chart of places over time; a sentence if there are too few samples."""
    runs = list(_runs(samples))
    title, note = "Places and waiting compiles", "the whole farm, the last hour at most"
    if not runs:
        few = '<p class="pad note">A scheduler takes a sample every ten seconds.</p>'
        return panel(title, few, note)
    most = max(max(s.load.capacity, s.load.demand) for s in samples)
    at = _x_of(samples)
    drawn = "".join(
        _area(run, at, lambda load: load.demand, most, "wait")
        + _area(run, at, lambda load: load.running, most, "farm")
        + _line(run, at, lambda load: load.capacity, most, "free")
        for run in runs
    )
    busy = [s.load.running for s in samples]
    label = f"Between {min(busy)} and {max(busy)} places were busy, of {most} at most"
    inner = (
        f'<svg width="100%" height="{_CHART}" y="4" viewBox="0 0 {_WIDE} {_HIGH}" '
        f'preserveAspectRatio="none">{drawn}</svg>'
    )
    middle = f"{_CHART / 2 + 4:g}"
    scale = (
        f'<line class="tick" x1="0" x2="100%" y1="{middle}" y2="{middle}"/>'
        f'<text class="scale" x="2" y="16">{most:,}</text>'
        f'<text class="scale" x="2" y="{_CHART // 2}">{most / 2:g}</text>'
    )
    chart = (
        f'<svg class="chart" height="{_CHART + 24}" role="img" aria-label="{label}">'
        f"{inner}{_axis(samples)}{scale}</svg>"
    )
    return panel(title, f'<div class="pad">{chart}</div>', note, _legend())


def _runs(samples: Sequence[LoadSample]) -> Iterator[list[LoadSample]]:
    """Yield the samples that follow each other without a gap, where there are several."""
    run: list[LoadSample] = list(samples[:1])
    for before, sample in pairwise(samples):
        if sample.at - before.at > _GAP_SECONDS:
            if len(run) > 1:
                yield run
            run = []
        run.append(sample)
    if len(run) > 1:
        yield run


def _x_of(samples: Sequence[LoadSample]) -> Callable[[LoadSample], float]:
    began = samples[0].at
    took = max(samples[-1].at - began, 1.0)
    return lambda sample: _WIDE * (sample.at - began) / took


def _points(
    run: Sequence[LoadSample], at: Callable[[LoadSample], float], value: Value, most: int
) -> str:
    return " ".join(
        f"{at(s):.1f},{_HIGH - (_HIGH - 2) * value(s.load) / max(most, 1):.1f}" for s in run
    )


def _line(
    run: Sequence[LoadSample],
    at: Callable[[LoadSample], float],
    value: Value,
    most: int,
    style: str,
) -> str:
    return f'<polyline class="line l-{style}" points="{_points(run, at, value, most)}"/>'


def _area(
    run: Sequence[LoadSample],
    at: Callable[[LoadSample], float],
    value: Value,
    most: int,
    style: str,
    *,
    is_line: bool = False,
) -> str:
    points = f"{at(run[0]):.1f},{_HIGH} {_points(run, at, value, most)} {at(run[-1]):.1f},{_HIGH}"
    soft = " soft" if is_line else ""
    line = _line(run, at, value, most, style) if is_line else ""
    return f'<polygon class="{style}{soft}" points="{points}"/>{line}'


def _axis(samples: Sequence[LoadSample]) -> str:
    began, took = samples[0].at, samples[-1].at - samples[0].at
    form = "%H:%M" if took >= _TICKS * _MINUTE else "%H:%M:%S"
    found = []
    for number in range(_TICKS + 1):
        x = 100 * number / _TICKS
        anchor = "start" if not number else "end" if number == _TICKS else "middle"
        when = time.strftime(form, time.localtime(began + took * number / _TICKS))
        style = "some" if number % _TICKS else "end"
        found.append(
            f'<line class="tick" x1="{x:.2f}%" x2="{x:.2f}%" y1="4" y2="{_CHART + 4}"/>'
            f'<text class="{style}" x="{x:.2f}%" y="{_CHART + 19}" text-anchor="{anchor}">'
            f"{when}</text>"
        )
    return "".join(found)


def _legend() -> str:
    rows = "".join(
        f'<li><svg width="9" height="9" aria-hidden="true"><rect class="{style}" width="9" '
        f'height="9" rx="2"/></svg>{word}</li>'
        for style, word in _LEGEND
    )
    return f'<ul class="legend">{rows}</ul>'
