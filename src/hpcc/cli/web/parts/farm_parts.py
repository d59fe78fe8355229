"""Parts of the pages about a farm. A colour says how something ends or stands, nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from hpcc.cli.builds.parts import panel, quoted, text
from hpcc.cli.builds.timeline import length_bar

if TYPE_CHECKING:  # the pages of this machine need no gRPC
    from hpcc.rpc.scheduler.farm_picture import FarmPicture, FarmWarning, Health
    from hpcc.rpc.scheduler.observe import WorkerStatus

# More cells than this are a bar: nobody counts them.
MAX_CELLS: Final = 48
_CELL: Final = 9
_TENANT: Final = re.compile(r"[a-z0-9-]{1,63}")
_DIGEST: Final = re.compile(r"(sha256:)?[0-9a-f]{32,}(/[0-9]+)?")
_HEALTH: Final[dict[Health, str]] = {"healthy": "hit", "degraded": "fallback", "down": "failed"}


class Figure(NamedTuple):
    """One number with its unit, and with what makes it mean something. `drawing` is markup."""

    name: str
    value: str
    unit: str = ""
    note: str = ""
    drawing: str = ""


def figures(found: Sequence[Figure]) -> str:
    """Return the row of a page's figures."""
    rows = "".join(
        f'<div class="kpi"><dt>{text(f.name)}</dt><dd class="v">{text(f.value)}'
        + (f' <span class="unit">{text(f.unit)}</span>' if f.unit else "")
        + f'</dd><dd class="d">{text(f.note)}</dd>'
        + (f'<dd class="spark">{f.drawing}</dd>' if f.drawing else "")
        + "</div>"
        for f in found
    )
    return f'<dl class="panel kpis">{rows}</dl>'


def heading(title: str, sub: str, right: str = "") -> str:
    """Return the head of a page; `sub` and `right` are markup."""
    head = f'<div><h1>{text(title)}</h1><p class="sub">{sub}</p></div>'
    return f'<div class="top">{head}{right}</div>'


def health_tag(picture: FarmPicture) -> str:
    """Return how the farm is, as a coloured word."""
    return tag(_HEALTH[picture.health], picture.health)


def tag(style: str, word: str) -> str:
    """Return a coloured word."""
    return f'<span class="tag t-{style}">{text(word)}</span>'


def dot(word: str) -> str:
    """Return a word for what is as it should be."""
    return (
        '<svg class="slots dot" width="8" height="8" aria-hidden="true">'
        f'<circle class="hit" cx="4" cy="4" r="4"/></svg>{text(word)}'
    )


def state_of(worker: WorkerStatus) -> str:
    """Return whether a worker takes compiles, as markup."""
    if worker.drain == "draining" and worker.drain_seconds:
        return tag("fallback", f"draining, {worker.drain_seconds:.0f} s")
    if worker.drain:
        return tag("fallback", worker.drain)
    return tag("failed", "silent") if worker.is_stale else dot("live")


def tenant_name(name: str, root: str) -> str:
    """Return a tenant's name as a link to its page; only a name that a tenant can have is one."""
    if not _TENANT.fullmatch(name):
        return text(name)
    return f'<a href="{root}/tenant/{name}">{name}</a>'


def is_serving(worker: WorkerStatus) -> bool:
    """Return whether a worker takes compiles."""
    return not worker.drain and not worker.is_stale


def cells(worker: WorkerStatus) -> str:
    """Return a cell for each place of a worker; the busy ones come first."""
    capacity, running = worker.capacity, min(worker.running, worker.capacity)
    if capacity > MAX_CELLS:
        return length_bar("farm", running, capacity)
    free = "sunk" if is_serving(worker) else "closed"
    parts = "".join(
        f'<rect class="{"farm" if number < running else free}" x="{number * _CELL}" y="0" '
        f'width="{_CELL - 2}" height="12" rx="1.5"/>'
        for number in range(capacity)
    )
    width = max(capacity * _CELL - 2, 1)
    return f'<svg class="slots" width="{width}" height="12" aria-hidden="true">{parts}</svg>'


def warnings(found: Iterable[FarmWarning]) -> str:
    """Return a box for each warning, with what mends it."""
    return "".join(
        f'<div class="panel warn"><b>{text(w.text)}</b>'
        f'<span class="note">{quoted(w.remedy)}</span></div>'
        for w in found
    )


def facts(title: str, found: Iterable[tuple[str, str]]) -> str:
    """Return a box of names with their values; those without a value are left out."""
    rows = "".join(
        f"<dt>{text(name)}</dt><dd>{digest_or_text(value)}</dd>" for name, value in found if value
    )
    return panel(title, f'<dl class="facts">{rows}</dl>')


def digest_or_text(value: str) -> str:
    """Return a text as markup. A digest is one line, which the page cuts where there is no room.

    What is copied is whole, and what the mouse rests on is shown whole.
    """
    if not _DIGEST.fullmatch(value):
        return text(value)
    return f'<code class="digest" title="{text(value)}">{text(value)}</code>'


def count(number: int, one: str, many: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {one if number == 1 else many}"
