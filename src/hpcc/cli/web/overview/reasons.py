"""A box of reasons with what to do about each, the one of most compiles first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hpcc.cli.builds.parts import panel, quoted, text
from hpcc.cli.builds.timeline import length_bar
from hpcc.cli.builds.words import percent, words_of
from hpcc.cli.web.parts.farm_routes import REMEDIES
from hpcc.core.build_summary import OTHER

_MOST: Final = 8
_UNNAMED: Final = frozenset({"", OTHER})


def reasons_panel(
    title: str,
    causes: Sequence[tuple[str, str, int]],
    note: str,
    none: str,
    style: str = "fallback",
) -> str:
    """Return the box for causes by family, word and count; `none` replaces an empty list."""
    if not causes:
        return panel(title, f'<p class="pad note">{text(none)}</p>', note)
    every = sum(n for _, _, n in causes)
    rows = "".join(_row(family, word, n, every, style) for family, word, n in causes[:_MOST])
    if len(causes) > _MOST:
        rest = sum(n for _, _, n in causes[_MOST:])
        rows += f'<li class="note">{len(causes) - _MOST} more reasons, {rest:,} compiles</li>'
    return panel(title, f'<ul class="causes">{rows}</ul>', note)


def _row(family: str, word: str, number: int, every: int, style: str) -> str:
    if word in _UNNAMED:
        # The list of builds has the first reasons of each by name.
        name, meaning, remedy = "others", "", "The page of a build has its reasons by name."
    else:
        words = words_of(family, word)
        # The title of the box says the family.
        name = words.title.rpartition(": ")[2]
        # Why there was no route is the scheduler's word.
        meaning, remedy = words.text, REMEDIES.get(word) or words.remedy
    said = f"{text(meaning)}. " if meaning else ""
    return (
        f'<li><b>{text(name)}</b><span class="n">{number:,}</span>'
        f'<span class="n share">{percent(number, every)}</span>'
        f'<span class="note">{said}{quoted(remedy)}</span>'
        f"{length_bar(style, number, every)}</li>"
    )
