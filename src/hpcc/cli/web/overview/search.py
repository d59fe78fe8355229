"""Where a search leads: builds, workers, tenants, an object. It asks nobody but the pages' list.

What is searched is what this login was shown. Names of files are on the machine that built only, so
a search offers the builds of this machine for them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from hpcc.cli.builds.parts import panel, quoted, text
from hpcc.cli.web.parts.addresses import address_of
from hpcc.cli.web.parts.farm_parts import count, heading
from hpcc.cli.web.parts.shell import Page, footer

if TYPE_CHECKING:  # the pages of this machine need no gRPC
    from hpcc.rpc.scheduler.builds import FarmBuild
    from hpcc.rpc.scheduler.farm_picture import FarmPicture

ADDRESS: Final = "search"
MAX_SEARCH: Final = 200
_MOST: Final = 30
_ACTION: Final = re.compile(r"([0-9a-f]{64})[/-]([0-9]{1,13})")
_ROW: Final = re.compile(r"[0-9a-f]{32}")
_HELP: Final = (
    "A part of the name of a build, a person, a tenant or a worker; a commit; the action of an "
    "object as `HASH/SIZE`; an audit row. Names of files are found among this machine's builds."
)


class FoundPlace(NamedTuple):
    """One place: its address below the root ("" for none), what it is called, and what it is."""

    address: str
    name: str
    what: str


def farm_places(picture: FarmPicture, builds: Sequence[FarmBuild], wanted: str) -> list[FoundPlace]:
    """Return what of a farm fits, as far as it was shown."""
    low = wanted.lower()
    found = []
    action = _ACTION.fullmatch(low)
    if action is not None:
        digest = f"{action[1]}/{action[2]}"
        found.append(
            FoundPlace(address_of(digest), digest, "the object of this action, if there is one")
        )
    found += [
        FoundPlace(f"worker/{w.worker_id}", w.worker_id, "worker")
        for w in picture.workers
        if low in w.worker_id.lower()
    ]
    found += [
        FoundPlace(f"tenant/{t.tenant}", t.tenant, "tenant")
        for t in picture.tenants
        if low in t.tenant.lower() and re.fullmatch(r"[a-z0-9-]{1,63}", t.tenant)
    ]
    found += [
        FoundPlace(f"farm-build/{b.build_id}", b.last.summary.build,
              f"build of {b.last.principal}, {b.last.tenant}")
        for b in builds
        if any(low in word.lower() for word in _names(b))
    ]  # fmt: skip
    if _ROW.fullmatch(low):
        command = f"hpcc audit show -- {shlex.quote(low)}"
        found.append(
            FoundPlace("", command, "at the worker that made it: the audit row of this name")
        )
    return found


def _names(build: FarmBuild) -> Iterable[str]:
    last = build.last
    return build.build_id, last.summary.build, last.principal, last.tenant, last.summary.commit


def search_page(root: str, wanted: str, found: Sequence[FoundPlace]) -> Page:
    """Return the page of what was found."""
    rows = "".join(_row(root, place) for place in found[:_MOST])
    if len(found) > _MOST:
        rows += f'<li class="note">and {len(found) - _MOST:,} more</li>'
    none = "Nothing fits." if wanted else "Nothing was asked for."
    content = f'<ul class="places-found">{rows}</ul>' if rows else f'<p class="pad note">{none}</p>'
    sub = f"<b>{text(count(len(found), 'place', 'places'))}</b> for {text(wanted) or 'nothing'}"
    main = (
        heading("Search", sub)
        + panel("Found", content)
        + panel("What can be searched", f'<p class="pad note">{quoted(_HELP)}</p>')
        + footer("Of what this login was shown, and of this machine's builds.")
    )
    return Page("Search", main, section="")


def _row(root: str, place: FoundPlace) -> str:
    name = f"<code>{text(place.name)}</code>"
    if place.address:
        name = f'<a href="{root}/{text(place.address)}">{text(place.name)}</a>'
    return f'<li>{name}<span class="note">{text(place.what)}</span></li>'
