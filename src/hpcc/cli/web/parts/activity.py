"""What was under way while a build ran, as SVG: as far as clients reported it."""

from __future__ import annotations

from typing import Final

from hpcc.cli.builds.parts import legend, panel
from hpcc.cli.builds.words import duration
from hpcc.core.build_summary import Activity, BuildSummary

_SERVED: Final = 34
_RAN: Final = 110
_TITLE: Final = 18
_TICKS: Final = 4


def activity_panel(s: BuildSummary, machines: int) -> str:
    """Return the time line of a build; a sentence if nothing was reported."""
    title = "Time line"
    parts = s.activity
    if not any(any(part) for part in parts):
        return panel(title, '<p class="pad note">No client reported it.</p>')
    width_ms = max((s.ended_ms - s.began_ms) / len(parts), 1)
    drawn, top = "", 0
    if any(part.served for part in parts):
        drawn += _label("served by a cache, in each part of the time", top)
        drawn += _bars_served(parts, top + _TITLE)
        top += _TITLE + _SERVED + 8
    most = max(max(part.farm_ms + part.here_ms for part in parts) / width_ms, 1.0)
    drawn += _label(f"compilers at once; the scale ends at {most:.1f}", top)
    drawn += _bars_ran(parts, top + _TITLE, most * width_ms)
    top += _TITLE + _RAN
    label = "Time line of the build; the tables below hold the same sums"
    chart = (
        f'<svg class="chart" height="{top + 20}" role="img" aria-label="{label}">'
        f"{drawn}{axis(s.ended_ms - s.began_ms, top)}</svg>"
    )
    note = f"{len(parts)} equal parts of the time"
    if machines > 1:
        note += f"; {machines} machines, whose clocks may differ"
    colours = legend(("hit", "farm", "here", "fallback"))
    return panel(title, f'<div class="pad">{chart}</div>', note, colours)


def _label(words: str, top: int) -> str:
    return f'<text x="0" y="{top + 12}">{words}</text>'


def _bar(style: str, number: int, whole: int, y: float, height: float) -> str:
    return (
        f'<rect class="{style}" x="{100 * number / whole:.3f}%" y="{y:.1f}" '
        f'width="{90 / whole:.3f}%" height="{height:.1f}"/>'
    )


def _bars_served(parts: tuple[Activity, ...], top: int) -> str:
    most = max(part.served for part in parts)
    found = ""
    for number, part in enumerate(parts):
        if part.served:
            height = max(_SERVED * part.served / most, 1)
            found += _bar("hit", number, len(parts), top + _SERVED - height, height)
    return found


def _bars_ran(parts: tuple[Activity, ...], top: int, most_ms: float) -> str:
    found = ""
    for number, part in enumerate(parts):
        y = float(top + _RAN)
        # What the farm should have done is a part of what ran here.
        instead = min(part.instead_ms, part.here_ms)
        for style, took_ms in (
            ("farm", part.farm_ms), ("here", part.here_ms - instead), ("fallback", instead),
        ):  # fmt: skip
            height = _RAN * took_ms / most_ms
            if height:
                y -= height
                found += _bar(style, number, len(parts), y, height)
    return found


def axis(took_ms: int, bottom: int) -> str:
    """Return the ticks of a drawing of a build's time, down to `bottom`."""
    found = f'<line class="tick" x1="0" x2="100%" y1="{bottom}" y2="{bottom}"/>'
    for number in range(_TICKS + 1):
        x = 100 * number / _TICKS
        anchor = "start" if not number else "end" if number == _TICKS else "middle"
        words = "0" if not number else duration(took_ms * 1000 * number // _TICKS)
        found += (
            f'<line class="tick" x1="{x:g}%" x2="{x:g}%" y1="0" y2="{bottom}"/>'
            f'<text x="{x:g}%" y="{bottom + 14}" text-anchor="{anchor}">{words}</text>'
        )
    return found
