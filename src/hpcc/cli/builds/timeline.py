"""The time line of a build as SVG: positions are percentages, so one drawing fits every width."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

from hpcc.cache.recorder.compiles import Compile, CompileKind
from hpcc.cache.recorder.report import RAN
from hpcc.cli.builds.words import duration, name_of, place_of
from hpcc.core.build_lanes import lane_numbers
from hpcc.obs.text import one_line

# More rectangles make a page slow; the table has the slowest.
MAX_DRAWN: Final = 3000
_MAX_LANES: Final = 160
_LANE: Final = 9
_TITLE: Final = 18
_HITS_HEIGHT: Final = 34
_BINS: Final = 160
_TICKS: Final = 4
# A thinner bar is not seen.
_LEAST_PERCENT: Final = 0.12
_LEAST_BAR_PERCENT: Final = 0.6


class Span(NamedTuple):
    """The time of a build, onto which compiles are drawn."""

    began_us: int
    took_us: int

    def x(self, us: int) -> float:
        """Return where a moment is, in percent."""
        return 100 * min(max(us - self.began_us, 0), self.took_us) / max(self.took_us, 1)


def class_of(c: Compile) -> str:
    """Return the style of a compile: how it ended, and whether the farm should have done it."""
    if c.kind is CompileKind.FAILED:
        return "failed"
    if c.kind in RAN and c.fallback_word:
        return "fallback"
    if c.kind in {CompileKind.FARM, CompileKind.HERE, CompileKind.NOT_KEPT}:
        return c.kind.value
    return "hit" if c.kind in {CompileKind.HIT, CompileKind.FARM_CACHE} else "rest"


def timeline(compiles: Sequence[Compile], span: Span, base: str) -> tuple[str, int]:
    """Return the drawing, and how many compiles are not in it."""
    ran = sorted((c for c in compiles if c.kind in RAN), key=lambda c: c.took_us, reverse=True)
    drawn = sorted(ran[:MAX_DRAWN], key=lambda c: c.began_us)
    parts: list[str] = []
    top, left_out = 0, len(ran) - len(drawn)
    hits = [c for c in compiles if c.kind in {CompileKind.HIT, CompileKind.FARM_CACHE}]
    if hits:
        parts += [_label("from the cache", top), *_histogram(hits, span, top + _TITLE)]
        top += _TITLE + _HITS_HEIGHT + 6
    groups: dict[str, list[Compile]] = {}
    for c in drawn:
        groups.setdefault(place_of(c), []).append(c)
    for place in sorted(groups, key=lambda name: (name == "here", name)):
        group = groups[place]
        parts.append(_label("this machine" if place == "here" else place, top))
        top += _TITLE
        lanes = lane_numbers([(c.began_us, c.ended_us) for c in group])
        for c, lane in zip(group, lanes, strict=True):
            if lane > _MAX_LANES:
                left_out += 1
                continue
            parts.append(_bar(c, span, top + (lane - 1) * _LANE, base))
        top += min(max(lanes), _MAX_LANES) * _LANE + 6
    parts += _axis(span, top)
    height = top + 20
    label = "Time line of the build; the tables below hold the same"
    head = f'<svg class="chart" height="{height}" role="img" aria-label="{label}">'
    return f"{head}{''.join(parts)}</svg>", left_out


def _label(text: str, top: int) -> str:
    return f'<text x="0" y="{top + 12}">{escape(one_line(text))}</text>'


def _bar(c: Compile, span: Span, top: int, base: str) -> str:
    x = min(span.x(c.began_us), 100 - _LEAST_PERCENT)
    width = max(span.x(c.ended_us) - x, _LEAST_PERCENT)
    title = f"{one_line(name_of(c, base))}: {duration(c.took_us)}"
    return (
        f'<rect class="{class_of(c)}" x="{x:.2f}%" y="{top}" width="{width:.2f}%" '
        f'height="{_LANE - 2}" rx="1"><title>{escape(title)}</title></rect>'
    )


def _histogram(hits: Sequence[Compile], span: Span, top: int) -> list[str]:
    bins = [0] * _BINS
    for c in hits:
        bins[min(int(span.x(c.began_us) * _BINS / 100), _BINS - 1)] += 1
    most = max(bins)
    found = []
    for number, count in enumerate(bins):
        if count:
            height = max(1, round(_HITS_HEIGHT * count / most))
            y = top + _HITS_HEIGHT - height
            found.append(
                f'<rect class="hit" x="{100 * number / _BINS:.3f}%" y="{y}" '
                f'width="{90 / _BINS:.3f}%" height="{height}"><title>{count} hits</title></rect>'
            )
    return found


def _axis(span: Span, bottom: int) -> list[str]:
    found = []
    for number in range(_TICKS + 1):
        x = 100 * number / _TICKS
        anchor = "start" if not number else "end" if number == _TICKS else "middle"
        text = "0" if not number else duration(span.took_us * number // _TICKS)
        found.append(
            f'<line class="tick" x1="{x:g}%" x2="{x:g}%" y1="0" y2="{bottom}"/>'
            f'<text x="{x:g}%" y="{bottom + 14}" text-anchor="{anchor}">{escape(text)}</text>'
        )
    return found


def share_bar(shares: Sequence[tuple[str, str, int]], height: int) -> str:
    """Return one bar of shares: style, title and size of each."""
    whole = max(sum(size for _, _, size in shares), 1)
    parts, x = [], 0.0
    for style, title, size in shares:
        width = 100 * size / whole
        parts.append(
            f'<rect class="{style}" x="{x:.2f}%" y="0" width="{width:.2f}%" height="{height}">'
            f"<title>{escape(one_line(title))}</title></rect>"
        )
        x += width
    return f'<svg class="chart" height="{height}" aria-hidden="true">{"".join(parts)}</svg>'


def length_bar(style: str, part: int, whole: int, offset: int = 0) -> str:
    """Return a bar of a part's length on the whole's, from its offset on."""
    x = min(100 * offset / max(whole, 1), 100 - _LEAST_BAR_PERCENT)
    width = min(max(100 * part / max(whole, 1), _LEAST_BAR_PERCENT if part else 0), 100 - x)
    start = f'x="{x:.2f}%" ' if offset else ""
    return (
        '<svg height="6" aria-hidden="true"><rect class="sunk" width="100%" height="6" rx="2"/>'
        f'<rect class="{style}" {start}width="{width:.2f}%" height="6" rx="2"/></svg>'
    )
