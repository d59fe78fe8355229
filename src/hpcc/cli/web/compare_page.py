"""Two builds beside each other: of a farm, or of this machine, and the page that offers builds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from hpcc.cli.builds.compare_text import SOME_LEFT_OUT, more_or_less, signed
from hpcc.cli.builds.comparison import (
    MAX_UNITS,
    Compared,
    Unit,
    UnitChange,
    UnitChanges,
    compared_causes,
    compared_ends,
    compared_phases,
    compared_places,
    growth,
    has_all_causes,
)
from hpcc.cli.builds.farm_words import count_of, instead_of, kind_words, phase_words, served_of
from hpcc.cli.builds.parts import panel, quoted, table, text
from hpcc.cli.builds.timeline import length_bar
from hpcc.cli.builds.words import duration, moment, percent, words_of
from hpcc.cli.web.parts.farm_parts import Figure, figures, heading, tag
from hpcc.core.build_summary import BuildSummary

COMPARE: Final = "compare"
MAX_OFFERED: Final = 50
_STYLES: Final = {
    "new": "fallback", "more": "fallback", "longer": "fallback",
    "fewer": "hit", "shorter": "hit", "gone": "hit",
}  # fmt: skip
_COUNTS: Final = (
    ("slower", "ran in both, and took longer"), ("faster", "ran in both, and took less"),
    ("missed", "ran now, and before a cache served it"),
    ("served", "ran before, and a cache served it now"), ("new", "only in this build"),
    ("gone", "only in the other build"),
)  # fmt: skip


class Offered(NamedTuple):
    """A build that another one can be compared with; `who` is "" on this machine's pages."""

    href: str
    name: str
    who: str
    ended_us: int
    took_us: int
    compiles: int
    served: tuple[int, int]


def offer(name: str, link: str, offered: Sequence[Offered]) -> str:
    """Return the content of the page that asks with which build one is compared."""
    head = heading("Compare", f'<a href="{text(link)}">{text(name)}</a> with another build')
    if not offered:
        return head + panel("Builds", '<p class="pad note">Only this build is known.</p>')
    has_who = any(one.who for one in offered)
    rows = "".join(
        f'<tr><td class="name"><a href="{text(one.href)}">{text(one.name)}</a></td>'
        + (f"<td>{text(one.who)}</td>" if has_who else "")
        + f'<td class="word">{moment(one.ended_us)}</td><td class="n">{duration(one.took_us)}</td>'
        f'<td class="n">{one.compiles:,}</td><td class="n">{percent(*one.served)}</td></tr>'
        for one in offered[:MAX_OFFERED]
    )
    columns = ("Build", *(("Who",) if has_who else ()), "Last compile", "#Took", "#Compiles",
               "#From a cache")  # fmt: skip
    note = f"{min(len(offered), MAX_OFFERED):,} of {len(offered):,}, the last first"
    return head + panel("Builds", table("Builds", columns, rows, "some"), note)


def compared(
    before: BuildSummary,
    now: BuildSummary,
    links: tuple[str, str],
    units: UnitChanges | None = None,
) -> str:
    """Return the content of a comparison. `links` are the addresses of the two builds' pages.

    `units` is of builds of this machine; builds of a farm have no names of files.
    """
    names = [
        f'<a href="{text(link)}">{text(s.build)}</a> of {moment(s.began_ms * 1000)}'
        for s, link in zip((before, now), links, strict=True)
    ]
    sub = f"<b>Now</b>: {names[1]} · <b>before</b>: {names[0]}"
    causes = compared_causes(before, now)
    note = "what changed the time most comes first"
    left_out = "" if has_all_causes(before, now) else f'<p class="pad note">{SOME_LEFT_OUT}</p>'
    return (
        heading("Two builds", sub)
        + figures(_figures(before, now))
        + '<div class="grid two">'
        + _panel("How compiles ended", "End", compared_ends(before, now), _end)
        + _panel("Parts of compiles", "Part", compared_phases(before, now), _phase, counts=False)
        + "</div>"
        + _panel("Why compiles were not served", "Reason", causes, _cause, note, left_out)
        + (_units(units) if units is not None else _ranks(before, now))
        + _panel("Where compilers ran", "Where", compared_places(before, now), _place)
    )


def _figures(before: BuildSummary, now: BuildSummary) -> list[Figure]:
    took = [(s.ended_ms - s.began_ms) * 1000 for s in (before, now)]
    busy = [s.busy_ms * 1000 for s in (before, now)]
    served = [served_of(s) for s in (before, now)]
    ran = [count_of(s, "farm", "here", "not-kept") for s in (before, now)]
    instead = [instead_of(s) for s in (before, now)]
    points = [100 * part / whole for part, whole in served if whole]
    change = f", {points[1] - points[0]:+.1f} points" if len(points) == 2 else ""  # noqa: PLR2004 - of both
    return [
        Figure("Took", duration(took[1]), "", f"before {duration(took[0])}, {_by(took, signed)}"),
        Figure("Compiles under way", duration(busy[1]), "",
               f"before {duration(busy[0])}, {_by(busy, signed)}"),
        Figure("Compiles", f"{now.compiles:,}", "",
               f"before {before.compiles:,}, {more_or_less(now.compiles - before.compiles)}"),
        Figure("From a cache", percent(*served[1]), "", f"before {percent(*served[0])}{change}"),
        Figure("Compiled", f"{ran[1]:,}", "", f"before {ran[0]:,}, {_by(ran, more_or_less)}"),
        Figure("Here instead", f"{instead[1]:,}", "",
               f"before {instead[0]:,}, {_by(instead, more_or_less)}"),
    ]  # fmt: skip


def _by(pair: Sequence[int], words: Callable[[int], str]) -> str:
    return words(pair[1] - pair[0])


def _panel(
    title: str, first: str, found: Sequence[Compared], name: Callable[[Compared], str],
    note: str = "", more: str = "", *, counts: bool = True,
) -> str:  # fmt: skip
    """Return a table of both builds; without `counts` of times only."""
    if not found:
        return panel(title, '<p class="pad note">Neither build has any.</p>')
    numbers = ("#Before", "#Now") if counts else ()
    columns = (first, *numbers, "Change", "#Took before", "#Took now")
    rows = "".join(_row(c, name(c), counts=counts) for c in found)
    return panel(title, table(title, columns, rows, "some") + more, note)


def _row(c: Compared, name: str, *, counts: bool) -> str:
    # Of reasons, more is worse. Of hits it is better, and of places neither.
    word = tag(_STYLES[c.change], c.change) if c.family and c.change in _STYLES else c.change
    numbers = f'<td class="n">{c.before:,}</td><td class="n">{c.now:,}</td>' if counts else ""
    # The compiler after a bypass is not observed.
    took = (
        ("-", "-") if c.family == "bypass"
        else (duration(c.before_ms * 1000), duration(c.now_ms * 1000))
    )  # fmt: skip
    return (
        f'<tr class="why"><td>{name}</td>{numbers}<td>{word}</td>'
        f'<td class="n">{took[0]}</td><td class="n">{took[1]}</td></tr>'
    )


def _end(c: Compared) -> str:
    return text(kind_words(c.word))


def _phase(c: Compared) -> str:
    return text(phase_words(c.word))


def _place(c: Compared) -> str:
    return text(c.word) or "the machine that built"


def _cause(c: Compared) -> str:
    words = words_of(c.family, c.word)
    meaning = f": {text(words.text)}" if words.text else ""
    remedy = f'<span class="note">{quoted(words.remedy)}</span>' if c.now > c.before else ""
    return f"<b>{text(words.title)}</b>{meaning}{remedy}"


def _ranks(before: BuildSummary, now: BuildSummary) -> str:
    """Return the slowest compiles of both by rank: no name of a file leaves a machine."""
    title = "Slowest compiles"
    most = max((s.took_ms for one in (before, now) for s in one.slowest), default=0)
    if not most:
        return ""
    rows = ""
    for rank in range(max(len(before.slowest), len(now.slowest))):
        cells = ""
        for one in (before, now):
            slow = one.slowest[rank] if rank < len(one.slowest) else None
            if slow is None:
                cells += "<td>-</td><td>-</td><td></td><td></td>"
                continue
            style = "farm" if slow.where else "here"
            cells += (
                f"<td>{text(slow.where) or 'here'}</td><td>{text(slow.word) or '-'}</td>"
                f'<td class="bar">{length_bar(style, slow.took_ms, most)}</td>'
                f'<td class="n">{duration(slow.took_ms * 1000)}</td>'
            )
        rows += f'<tr><td class="n">{rank + 1}</td>{cells}</tr>'
    columns = ("#Rank", "Before", "Because", "", "#Took", "Now", "Because", "", "#Took")
    note = (
        "by rank: which files they are is known where it was built, to hpcc report with --compare"
    )
    return panel(title, table(title, columns, rows, "wide"), note)


def _units(units: UnitChanges) -> str:
    rows = "".join(
        f'<tr><td>{words}</td><td class="n">{units.counts[name]:,}</td></tr>'
        for name, words in _COUNTS
    )
    content = table("Outputs", ("Outputs that", "#How many"), rows)
    return (
        f'<div class="grid two">{panel("What changed", content, "by output")}'
        + _unit_panel("Ran now, and not before", units.missed)
        + "</div>"
        + f'<div class="grid two">{_unit_panel("Slower than before", units.slower)}'
        + f"{_unit_panel('Faster than before', units.faster)}</div>"
    )


def _unit_panel(title: str, found: Sequence[UnitChange]) -> str:
    if not found:
        return panel(title, '<p class="pad note">None.</p>')
    rows = "".join(
        f"<tr><td><code>{text(u.name)}</code></td>"
        f'<td class="n">{_took(u.before)}</td><td class="n">{_took(u.now)}</td>'
        f'<td class="n">{signed(growth(u))}</td>'
        f"<td>{text(u.now.reason if u.now is not None else '') or '-'}</td></tr>"
        for u in found
    )
    columns = ("Output", "#Before", "#Now", "#Change", "Because")
    note = f"the first {MAX_UNITS}" if len(found) == MAX_UNITS else ""
    return panel(title, table(title, columns, rows, "some"), note)


def _took(unit: Unit | None) -> str:
    if unit is None:
        return "not there"
    return duration(unit.took_us) if unit.is_ran else "served"
