"""What ran where while a build ran, as SVG: a row is one compile at once, as clients saw it."""

from __future__ import annotations

from typing import Final

from hpcc.cli.builds.parts import LEGEND, legend, panel, text
from hpcc.cli.builds.words import duration
from hpcc.cli.web.parts.activity import axis
from hpcc.core.build_lanes import FAILED, INSTEAD, PARTS, LaneBar, LaneRow
from hpcc.core.build_summary import BuildSummary

_TITLE: Final = 18
_ROW: Final = 9
_SPACE: Final = 6
# A thinner bar is not seen.
_LEAST_PERCENT: Final = 0.12
_PANEL: Final = "Lanes"
_EARLIER: Final = "No client reported lanes: hpcc where it was built is of an earlier version."
_NOTE: Final = "a row is a compile at once at that place; what follows closely is one bar"


def lanes_panel(s: BuildSummary, machines: int) -> str:
    """Return the lanes of a build's compiles by place; "" if no compiler ran."""
    if not s.places:
        return ""
    if not s.lanes:
        return panel(_PANEL, f'<p class="pad note">{_EARLIER}</p>')
    took_ms = s.ended_ms - s.began_ms
    drawn, top, used = "", 0, set[str]()
    for place in dict.fromkeys(lane.where for lane in s.lanes):
        name = place or ("the machines that built" if machines > 1 else "the machine that built")
        drawn += f'<text x="0" y="{top + 12}">{text(name)}</text>'
        top += _TITLE
        for lane in (one for one in s.lanes if one.where == place):
            drawn += "".join(_bar(lane, bar, took_ms, top) for bar in lane.bars())
            used |= {_style(lane, bar) for bar in lane.bars()}
            top += _ROW
        top += _SPACE
    label = "Compiles over time by place; the table of places holds the same sums"
    chart = (
        f'<svg class="chart" height="{top + 20}" role="img" aria-label="{label}">'
        f"{drawn}{axis(took_ms, top)}</svg>"
    )
    note = _NOTE
    if s.off_lanes:
        note += f"; {s.off_lanes:,} compiles are not drawn"
    if machines > 1:
        note += f"; {machines} machines, whose clocks may differ"
    colours = legend(style for style in LEGEND if style in used)
    return panel(_PANEL, f'<div class="pad">{chart}</div>', note, colours)


def _style(lane: LaneRow, bar: LaneBar) -> str:
    if bar.end == FAILED:
        return "failed"
    if bar.end == INSTEAD:
        return "fallback"
    return "farm" if lane.where else "here"


def _bar(lane: LaneRow, bar: LaneBar, took_ms: int, top: int) -> str:
    width = max(100 * (bar.ended - bar.began) / PARTS, _LEAST_PERCENT)
    x = min(100 * bar.began / PARTS, 100 - width)
    length = duration(took_ms * 1000 * (bar.ended - bar.began) // PARTS)
    began = duration(took_ms * 1000 * bar.began // PARTS)
    compiles = "1 compile" if bar.compiles == 1 else f"{bar.compiles:,} compiles"
    return (
        f'<rect class="{_style(lane, bar)}" x="{x:.2f}%" y="{top}" width="{width:.2f}%" '
        f'height="{_ROW - 2}" rx="1"><title>{compiles}, {length} from {began}</title></rect>'
    )
