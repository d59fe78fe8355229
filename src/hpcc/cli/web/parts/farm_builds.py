"""The builds of a whole farm, and one of them, as clients told them.

Tenant and person are proved by the login that brought a report. Everything else is a claim, and the
pages say so. They have no name of a file, because no scheduler gets one.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

from hpcc.cache.root.build_identity import is_guessed
from hpcc.cli.builds.farm_words import (
    count_of,
    instead_of,
    kind_words,
    lacking,
    phase_words,
    served_of,
    uncounted,
)
from hpcc.cli.builds.parts import legend, panel, quoted, table, text
from hpcc.cli.builds.timeline import length_bar, share_bar
from hpcc.cli.builds.words import duration, moment, percent, words_of
from hpcc.cli.web.parts.activity import activity_panel
from hpcc.cli.web.parts.farm_panels import farm_footer
from hpcc.cli.web.parts.farm_parts import Figure, count, figures, heading, tag, tenant_name
from hpcc.cli.web.parts.lanes import lanes_panel
from hpcc.cli.web.parts.shell import Page
from hpcc.cli.web.parts.sums import ends_of
from hpcc.core.build_summary import BuildSummary, CauseTally
from hpcc.rpc.scheduler.builds import FarmBuild, KeptBuilds, by_build
from hpcc.rpc.scheduler.farm_picture import FarmPicture

ADDRESS: Final = "farm-builds"
ROWS: Final = 50
MAX_SEARCH: Final = 200
_SHORT: Final = 12
_RUNNING_SECONDS: Final = 60.0
_COLUMNS: Final = (
    "Build", "Who", "Last report", "#Took", "#Compiles", "Outcome", "#From a cache",
    "#Here instead",
)  # fmt: skip
# Kinds of ends by the colours of the pages.
_STYLES: Final = (
    ("hit", ("hit", "farm-cache")), ("farm", ("farm",)), ("here", ("here", "not-kept", "bypass")),
    ("failed", ("failed", "refused", "given-up")),
)  # fmt: skip
_CLAIMED: Final = "Counts and names are what the client says; times are its machine's."


def builds_page(
    picture: FarmPicture, kept: KeptBuilds, root: str, *, search: str = "", number: int = 1
) -> Page:
    """Return the list of builds, the last report first. `search` chooses by a part of a name."""
    every = by_build(kept.builds)
    found = [build for build in every if _fits(build, search)]
    whose = "of all tenants" if picture.is_operator else f"of {picture.tenant}"
    title = f"<b>{text(count(len(every), 'build', 'builds'))} {text(whose)}.</b>"
    main = (
        heading("Builds", f"{title} {text(_since(kept))}")
        + (figures(_sums(found)) if found else "")
        + _form(f"{root}/{ADDRESS}", search)
        + _list(picture, found, root, search, number)
        + farm_footer(picture)
    )
    return Page("Builds", main, is_live=True, section="Builds")


def _since(kept: KeptBuilds) -> str:
    if not kept.keep_seconds:
        return "This farm keeps no builds (builds_mib = 0 in the config of its schedulers)."
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(kept.since))
    days = kept.keep_seconds // 86_400
    said = (
        f"Clients tell the farm of them; schedulers keep that in memory, {days} days at most and"
        f" not over a restart. Known since {since}."
    )
    if kept.displaced:
        said += f" {count(kept.displaced, 'report', 'reports')} made room for others."
    return f"{said} {lacking(kept.silent, max(kept.kept - len(kept.builds), 0))}".rstrip()


def _fits(build: FarmBuild, search: str) -> bool:
    wanted = search.lower()
    last = build.last
    names = (last.summary.build, last.principal, last.tenant, last.summary.commit)
    return any(wanted in name.lower() for name in names)


def _sums(found: Sequence[FarmBuild]) -> list[Figure]:
    summaries = [build.summary for build in found]
    compiles = sum(s.compiles for s in summaries)
    served = [sum(pair) for pair in zip(*map(served_of, summaries), strict=True)]
    farm, instead = (sum(count_of(s, "farm") for s in summaries), sum(map(instead_of, summaries)))
    people = {(build.last.tenant, build.last.principal) for build in found}
    return [
        Figure("Builds", f"{len(found):,}", "", "in this list"),
        Figure("People", f"{len(people):,}", "", "whose logins brought them"),
        Figure("Compiles", f"{compiles:,}", "", "as clients count them"),
        Figure("From a cache", percent(*served), "", f"{served[0]:,} of {served[1]:,}"),
        Figure("On the farm", f"{farm:,}", "", "compiled in guests"),
        Figure("Here instead", percent(instead, compiles), "", f"{instead:,}, see each build"),
    ]


def _form(address: str, search: str) -> str:
    return (
        f'<form class="panel filter" method="get" action="{address}"><label>Name, person, tenant '
        f'or commit <input name="q" value="{text(search)}" maxlength="{MAX_SEARCH}"></label>'
        "<button>Search</button></form>"
    )


def _list(
    picture: FarmPicture, found: Sequence[FarmBuild], root: str, search: str, number: int
) -> str:
    if not found:
        none = "No build fits." if search else "No client has told of a build yet."
        return panel("Builds", f'<p class="pad note">{none}</p>')
    last = max(1, -(-len(found) // ROWS))
    number = min(max(number, 1), last)
    shown = found[(number - 1) * ROWS : number * ROWS]
    columns = (*_COLUMNS[:2], "Tenant", *_COLUMNS[2:]) if picture.is_operator else _COLUMNS
    rows = "".join(_row(picture, build, root) for build in shown)
    others = "".join(
        f'<a href="{root}/{ADDRESS}?{text(_query(search, page))}">{word}</a>'
        for page, word in ((number - 1, "Newer"), (number + 1, "Older"))
        if 1 <= page <= last
    )
    pages = f'<nav class="pages" aria-label="More builds">{others}</nav>' if others else ""
    note = (
        f"the last report first; page {number} of {last}" if last > 1 else "the last report first"
    )
    return panel("Builds", table("Builds", columns, rows, "wide") + pages, note, _legend())


def _query(search: str, page: int) -> str:
    return urlencode({"q": search, "page": page}, errors="replace")


def _legend() -> str:
    return legend(("hit", "farm", "here", "fallback", "failed"))


def _row(picture: FarmPicture, build: FarmBuild, root: str) -> str:
    last, s = build.last, build.summary
    tenant = f"<td>{tenant_link(picture, last.tenant, root)}</td>" if picture.is_operator else ""
    served, lookups = served_of(s)
    return (
        f'<tr><td class="name"><a href="{root}/farm-build/{build.build_id}">{text(s.build)}</a>'
        f"</td><td>{text(last.principal)}</td>{tenant}"
        f'<td class="word">{moment(int(last.reported_at * 1e6))}</td>'
        f'<td class="n">{duration((s.ended_ms - s.began_ms) * 1000)}</td>'
        f'<td class="n">{s.compiles:,}</td><td class="share">{outcome_bar(s, 8)}</td>'
        f'<td class="n">{percent(served, lookups)}</td><td class="n">{instead_of(s):,}</td></tr>'
    )


def outcome_bar(s: BuildSummary, height: int) -> str:
    """Return one bar of how the compiles of a build ended."""
    ends = ends_of(s)
    failed = count_of(s, "failed", "given-up")
    rows = (
        ("hit", "from a cache", ends.cache), ("farm", "in guests", ends.farm),
        ("here", "here", ends.here), ("fallback", "here instead of the farm", ends.instead),
        ("failed", "failed", failed),
    )  # fmt: skip
    return share_bar(
        [(style, f"{what}: {n:,.0f}", round(n)) for style, what, n in rows if n], height
    )


def build_page(picture: FarmPicture, build: FarmBuild, root: str) -> Page:
    """Return the page of one build."""
    # Put together once: each of many machines reports up to a thousand rows.
    s, last = build.summary, build.last
    main = (
        heading(s.build, _sub(picture, build, s, root), _state(build, picture.farm_at))
        + _warnings(s, lacking(build.silent, build.left_out))
        + figures(_figures(build, s))
        + activity_panel(s, len(build.reports))
        + lanes_panel(s, len(build.reports))
        + _shares(s)
        + f'<div class="grid two">{_causes(s)}<div class="stack">{_places(picture, s, root)}'
        + f"{_commands(last.summary.build)}</div></div>"
        + _slowest(picture, s, root)
        + farm_footer(picture)
    )
    return Page(s.build, main, is_live=True, section="Builds")


def _sub(picture: FarmPicture, build: FarmBuild, s: BuildSummary, root: str) -> str:
    last = build.last
    proof = "proved by the login" if last.is_proved else "a claim: all have one secret"
    parts = [
        f"<b>{text(last.principal)}</b> of {tenant_link(picture, last.tenant, root)} ({proof})",
        f"{moment(s.began_ms * 1000)} to {moment(s.ended_ms * 1000)}",
    ]
    if s.commit:
        parts.append(f"commit <code>{text(s.commit[:_SHORT])}</code>")
    if is_guessed(s.build):
        parts.append("guessed: no variable named the build")
    compare = f'<a href="{root}/farm-build/{build.build_id}/compare">compare with…</a>'
    parts += [text(_CLAIMED), compare, f'<a href="{root}/{ADDRESS}">all builds</a>']
    return " · ".join(parts)


def is_reported(build: FarmBuild, now: float) -> bool:
    """Return whether clients report a build now."""
    return now - build.last.reported_at < _RUNNING_SECONDS


def _state(build: FarmBuild, now: float) -> str:
    if is_reported(build, now):
        return tag("farm", "reports now")
    return tag("rest", f"last report {moment(int(build.last.reported_at * 1e6))}")


def _warnings(s: BuildSummary, lack: str) -> str:
    found = [*([lack] if lack else []), *uncounted(s)]
    return "".join(f'<p class="panel warn">{text(line)}</p>' for line in found)


def _figures(build: FarmBuild, s: BuildSummary) -> list[Figure]:
    served, lookups = served_of(s)
    farm = count_of(s, "farm")
    here = count_of(s, "here", "not-kept")
    failed, bypassed = count_of(s, "failed"), count_of(s, "bypass")
    sources = count(len(build.reports), "machine", "machines")
    return [
        Figure("Took", duration((s.ended_ms - s.began_ms) * 1000), "",
               f"compiles under way for {duration(s.busy_ms * 1000)}"),
        Figure("Compiles", f"{s.compiles:,}", "", f"{failed:,} failed, {bypassed:,} bypassed"),
        Figure("From a cache", percent(served, lookups), "",
               f"{served:,} of {lookups:,} that a cache can serve"),
        Figure("Compiled", f"{farm + here:,}", "", f"{farm:,} on the farm, {here:,} here"),
        Figure("Here instead", f"{instead_of(s):,}", "", "the farm should have done them"),
        Figure("At once", f"{s.at_once:,}", "", f"at most on one machine; {sources} reported"),
    ]  # fmt: skip


def _shares(s: BuildSummary) -> str:
    shares = [
        (style, f"{kind_words(t.word)}: {duration(t.took_ms * 1000)}", t.took_ms)
        for style, kinds in _STYLES
        for t in s.kinds
        if t.word in kinds and t.took_ms
    ]
    ends = "".join(
        f'<tr><td>{text(kind_words(t.word))}</td><td class="n">{t.compiles:,}</td>'
        f'<td class="n">{duration(t.took_ms * 1000)}</td></tr>'
        for t in s.kinds
    )
    phases = "".join(
        f"<tr><td>{text(phase_words(t.word))}</td>"
        f'<td class="n">{duration(t.took_ms * 1000)}</td></tr>'
        for t in s.phases
    )
    content = (
        f'<div class="pad">{share_bar(shares, 14)}</div><div class="grid two">'
        + table("Compiles by their end", ("End", "#Compiles", "#Time"), ends)
        + table("Parts of compiles", ("Part, inside the one above it or beside", "#Time"), phases)
        + "</div>"
    )
    return panel("Where the time went", content, "sums over all compiles")


def _causes(s: BuildSummary) -> str:
    most = max((cause.took_ms for cause in s.causes), default=0)
    rows = "".join(_cause(cause, most) for cause in s.causes)
    if not rows:
        return panel("Why it was not served", '<p class="pad note">Everything was.</p>')
    columns = ("Reason, and what to do", "#Compiles", "#They took")
    content = table("Reasons", columns, rows)
    return panel("Why it was not served", content, "with what these compiles took")


def _cause(cause: CauseTally, most_ms: int) -> str:
    words = words_of(cause.family, cause.word)
    style = "fallback" if cause.family in {"fallback", "refused"} else "here"
    bar = length_bar("failed" if cause.family == "failed" else style, cause.took_ms, most_ms)
    meaning = f": {text(words.text)}" if words.text else ""
    # The compiler after a bypass is not observed.
    took = "-" if cause.family == "bypass" else duration(cause.took_ms * 1000)
    return (
        f'<tr class="why"><td><b>{text(words.title)}</b>{meaning}{bar}'
        f'<span class="note">{quoted(words.remedy)}</span></td>'
        f'<td class="n">{cause.compiles:,}</td><td class="n">{took}</td></tr>'
    )


def tenant_link(picture: FarmPicture, name: str, root: str) -> str:
    """Return a tenant's name; a link if that tenant has a page now."""
    has_page = any(tenant.tenant == name for tenant in picture.tenants)
    return tenant_name(name, root) if has_page else text(name)


def _place(picture: FarmPicture, name: str, root: str) -> str:
    """Return a worker's name; a link if the viewer sees that worker now."""
    if not name:
        return "the machine that built"
    if any(w.worker_id == name for w in picture.workers):
        return f'<a href="{root}/worker/{text(name)}">{text(name)}</a>'
    return text(name)


def _places(picture: FarmPicture, s: BuildSummary, root: str) -> str:
    most = max((t.took_ms for t in s.places), default=0)
    rows = "".join(
        f"<tr><td>{_place(picture, t.word, root)}</td>"
        f'<td class="n">{t.compiles:,}</td>'
        f'<td class="bar">{length_bar("farm" if t.word else "here", t.took_ms, most)}</td>'
        f'<td class="n">{duration(t.took_ms * 1000)}</td></tr>'
        for t in s.places
    )
    if not rows:
        return panel("Where compilers ran", '<p class="pad note">No compiler ran.</p>')
    columns = ("Where", "#Compiles", "", "#They took")
    return panel("Where compilers ran", table("Where compilers ran", columns, rows))


def _slowest(picture: FarmPicture, s: BuildSummary, root: str) -> str:
    if not s.slowest:
        return ""
    most = max(slow.took_ms for slow in s.slowest)
    rows = "".join(
        f'<tr><td class="n">{duration(slow.offset_ms * 1000)}</td>'
        f"<td>{text(kind_words(slow.kind))}</td>"
        f"<td>{text(slow.word) or '-'}</td><td>{_place(picture, slow.where, root)}</td>"
        f"<td><code>{text(slow.guest) or '-'}</code></td>"
        f'<td class="bar">{length_bar("farm" if slow.where else "here", slow.took_ms, most)}</td>'
        f'<td class="n">{duration(slow.took_ms * 1000)}</td></tr>'
        for slow in s.slowest
    )
    columns = ("#Began after", "End", "Because", "Where", "Guest", "", "#Took")
    content = table("Slowest compiles", columns, rows, "wide")
    note = "no name of a file leaves the machine that built: `hpcc report` there has them"
    return f'<div class="grid">{panel("Slowest compiles", content, note.replace("`", ""))}</div>'


def _commands(build: str) -> str:
    # A name of somebody else may look like an option, which quotes do not prevent.
    name = shlex.quote(build)
    rows = "".join(
        f"<dt><code>{text(command)}</code></dt><dd>{text(what)}</dd>"
        for command, what in (
            (f"hpcc report -- {name}", "on the machine that built: files, inputs that changed"),
            (f"hpcc trace -o build.json -- {name}", "there: for ui.perfetto.dev"),
            (f"hpcc audit list --build={name}", "at a worker: the rows of its compiles"),
        )
    )
    return panel(
        "More of this build", f'<dl class="facts cmds">{rows}</dl>', "these pages change nothing"
    )
