"""Parts of pages about builds. Every text of a record becomes markup through `text` only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Final, NamedTuple

from hpcc.cache.recorder.compiles import Compile
from hpcc.cli.builds.timeline import class_of, length_bar
from hpcc.cli.builds.words import PHASES, duration, name_of, place_of
from hpcc.obs.text import one_line

LEGEND: Final = {
    "hit": "from a cache", "farm": "on the farm", "here": "here", "fallback": "here instead",
    "not-kept": "not stored", "failed": "failed",
}  # fmt: skip
TAGS: Final = {**LEGEND, "rest": "other"}
COMPILE_COLUMNS: Final = ("File", "End", "Where", "Because", "", "#Took", "Its parts")
_CODE: Final = r"<code>\1</code>"
_QUOTED: Final = re.compile(r"`([^`]+)`")

# Gives the address of a compile's page, "" where there is none.
Link = Callable[[Compile], str]


def no_link(_: Compile) -> str:
    """Return no address: a page that is one file has no others."""
    return ""


class CompileNames(NamedTuple):
    """How a page names compiles: below a directory, with a link to each where there are pages."""

    base: str
    href: Link = no_link

    def of(self, c: Compile) -> str:
        """Return the name of a compile as markup."""
        name = f"<code>{text(name_of(c, self.base))}</code>"
        where = self.href(c)
        return f'<a href="{text(where)}">{name}</a>' if where else name


def text(value: object) -> str:
    """Return a text that is markup nowhere, and has no control character."""
    return escape(one_line(value))


def quoted(value: str) -> str:
    """Return a text in which `words` between backquotes are code."""
    return _QUOTED.sub(_CODE, text(value))


def panel(title: str, content: str, note: str = "", right: str = "") -> str:
    """Return a box with a heading; `content` and `right` are markup."""
    more = f'<span class="note">{text(note)}</span>' if note else ""
    return (
        f'<section class="panel grid-item"><header><h2>{text(title)}</h2>{more}{right}</header>'
        f"{content}</section>"
    )


def legend(styles: Iterable[str]) -> str:
    """Return what the colours mean."""
    rows = "".join(
        f'<li><svg width="9" height="9" aria-hidden="true"><rect class="{style}" width="9" '
        f'height="9" rx="2"/></svg>{LEGEND[style]}</li>'
        for style in styles
    )
    return f'<ul class="legend">{rows}</ul>'


def table(label: str, columns: Sequence[str], rows: str, style: str = "") -> str:
    """Return a table that a keyboard can scroll; `#` marks a column of numbers."""
    heads = "".join(map(_head_cell, columns))
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(label)}">'
        f'<table class="{style}">'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _head_cell(name: str) -> str:
    if not name:  # a header without a text is none for a screen reader
        return "<td></td>"
    style = ' class="n"' if name.startswith("#") else ""
    return f'<th scope="col"{style}>{text(name.removeprefix("#"))}</th>'


def tag_of(c: Compile) -> str:
    """Return how a compile ended, as a coloured word."""
    style = class_of(c)
    return f'<span class="tag t-{style}">{TAGS[style]}</span>'


def compile_row(c: Compile, names: CompileNames, most_us: int) -> str:
    """Return the row of a compile, for a table with `COMPILE_COLUMNS`."""
    style = class_of(c)
    parts = ", ".join(f"{PHASES[p.phase]} {duration(p.took_us)}" for p in c.phases)
    reason = c.fallback_word or c.reason
    return (
        f'<tr><td class="file">{names.of(c)}</td>'
        f"<td>{tag_of(c)}</td>"
        f'<td>{text(place_of(c))}</td><td class="word">{text(reason)}</td>'
        f'<td class="bar">{length_bar(style, c.took_us, most_us)}</td>'
        f'<td class="n">{duration(c.took_us)}</td><td class="note">{text(parts)}</td></tr>'
    )
