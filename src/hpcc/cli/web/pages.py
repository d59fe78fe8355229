"""The pages of `hpcc web --local`: builds, the compiles of a build, one compile."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import urlencode

from hpcc.cache.recorder.compiles import Compile, CompileKind
from hpcc.cache.recorder.places import hash_of
from hpcc.cache.recorder.reading import BuildLine, RecordedBuild
from hpcc.cache.recorder.report import BuildReport, causes_of
from hpcc.cli.builds.comparison import UnitChanges
from hpcc.cli.builds.page import body_of
from hpcc.cli.builds.parts import (
    COMPILE_COLUMNS,
    CompileNames,
    compile_row,
    panel,
    quoted,
    table,
    tag_of,
    text,
)
from hpcc.cli.builds.timeline import class_of, length_bar
from hpcc.cli.builds.words import (
    KINDS,
    PHASES,
    common_directory,
    duration,
    moment,
    name_of,
    percent,
    place_of,
    words_of,
)
from hpcc.cli.web.compare_page import COMPARE, Offered, compared, offer
from hpcc.cli.web.overview.search import FoundPlace
from hpcc.cli.web.parts.addresses import address_of
from hpcc.cli.web.parts.shell import Page, footer
from hpcc.core import NotFoundError
from hpcc.core.build_summary import BuildSummary

ROWS: Final = 100
MAX_SEARCH: Final = 200
_MAX_SAME: Final = 20
_MAX_PLACES: Final = 10
# A search offers the files of so many builds; reading all of them would take too long.
_MAX_FILES: Final = 3
_MAX_EXPLAINED: Final = 120
_MAX_LINE: Final = 2000
_SERVED: Final = {
    CompileKind.HIT: "The command and all its inputs were as when the result was made.",
    CompileKind.FARM_CACHE: "This machine had no result, and the farm's cache had it.",
}
_RUNS: Final = "Times are this machine's. The recorder writes every two seconds."


class Filter(NamedTuple):
    """Which compiles of a build are shown: an end, a text, and which hundred of them."""

    end: str = ""
    search: str = ""
    page: int = 1

    def fits(self, c: Compile) -> bool:
        """Return whether a compile is shown."""
        if self.end and c.kind.value != self.end:
            return False
        wanted = self.search.lower()
        return any(wanted in word.lower() for word in (c.source, c.output, c.reason, c.fallback))

    def query(self, page: int) -> str:
        """Return the query of another page of the same."""
        return urlencode({"end": self.end, "q": self.search, "page": page}, errors="replace")


def id_of(c: Compile) -> str:
    """Return by what the address of a page names a compile: when it began, and a hash."""
    said = "\0".join((c.output, c.source, c.outcome)).encode("utf-8", "surrogatepass")
    return f"{c.began_us}-{hashlib.sha256(said).hexdigest()[:8]}"


class Pages:
    """Makes pages. `root` begins each address."""

    def __init__(self, root: str) -> None:
        self._root = root

    def list_of(self, lines: Sequence[BuildLine]) -> Page:
        """Return the list of builds, the last one first."""
        rows = "".join(self._line(line) for line in reversed(lines))
        columns = ("Build", "Last compile", "#Took", "#Compiles", "#From a cache", "", "Example")
        content = (
            table("Builds", columns, rows, "builds") if rows
            else '<p class="pad note">Compile through hpcc: the build appears here.</p>'
        )  # fmt: skip
        title = "Builds of this machine" if rows else "No build is recorded yet"
        sub = '<p class="sub">What the flight recorder holds, the last build first</p>'
        main = f"<h1>{title}</h1>{sub}{panel('Builds', content)}{footer(_RUNS)}"
        return Page("Builds", main, is_live=True)

    def places(self, lines: Sequence[BuildLine], wanted: str) -> list[FoundPlace]:
        """Return this machine's builds of a name, and where the last ones show files of a name."""
        last, low = list(reversed(lines)), wanted.lower()
        named = [line for line in last if low in line.build.lower()][:_MAX_PLACES]
        found = [
            FoundPlace(f"build/{hash_of(line.build)}", line.build, "build of this machine")
            for line in named
        ]
        query = Filter(search=wanted).query(1)
        return found + [
            FoundPlace(f"build/{hash_of(line.build)}/compiles?{query}", f"{wanted} in {line.build}",
                  "a search among files, outputs and reasons of this machine's build")
            for line in last[:_MAX_FILES]
        ]  # fmt: skip

    def _line(self, line: BuildLine) -> str:
        damaged = ' <span class="tag t-failed">damaged</span>' if line.is_damaged else ""
        return (
            f'<tr><td><a href="{self._build(line.build)}">{text(line.build)}</a>{damaged}</td>'
            f"<td>{moment(line.ended_us)}</td>"
            f'<td class="n">{duration(line.ended_us - line.began_us)}</td>'
            f'<td class="n">{line.compiles:,}</td>'
            f'<td class="n">{percent(line.hits, line.lookups)}</td>'
            f'<td class="share">{length_bar("hit", line.hits, line.lookups)}</td>'
            f"<td><code>{text(line.source)}</code></td></tr>"
        )

    def _build(self, build: str) -> str:
        return f"{self._root}/build/{hash_of(build)}"

    def build_of(self, report: BuildReport, recorded: RecordedBuild) -> Page:
        """Return the page of a build: what `hpcc report --html` shows, with links."""
        where = self._build(recorded.build)
        body = body_of(report, recorded, lambda c: f"{where}/{id_of(c)}")
        more = (
            f'<p class="sub"><a href="{where}/compiles">All {report.compiles:,} compiles</a>'
            f' · <a href="{where}/{COMPARE}">compare with…</a>'
            " · <code>hpcc trace</code> writes a build for ui.perfetto.dev</p>"
        )
        head, end, rest = body.partition("</h1>")
        return Page(recorded.build, f"{head}{end}{more}{rest}", is_live=True)

    def offer_of(self, name: str, lines: Sequence[BuildLine]) -> Page:
        """Return the builds with which the build of a hashed name can be compared.

        Raises:
            NotFoundError: it is not recorded.
        """
        own = next((line for line in lines if hash_of(line.build) == name), None)
        if own is None:
            raise NotFoundError("this build is not recorded, or no longer")
        where = self._build(own.build)
        offered = [
            Offered(
                f"{where}/{COMPARE}/{hash_of(line.build)}", line.build, "", line.ended_us,
                line.ended_us - line.began_us, line.compiles, (line.hits, line.lookups),
            )
            for line in reversed(lines)
            if line is not own
        ]  # fmt: skip
        return Page("Compare", offer(own.build, where, offered) + footer(_RUNS), is_live=True)

    def compared(
        self, names: tuple[str, str], before: BuildSummary, now: BuildSummary, units: UnitChanges
    ) -> Page:
        """Return the comparison of two builds; `names` are their hashed names."""
        links = f"{self._root}/build/{names[0]}", f"{self._root}/build/{names[1]}"
        return Page("Two builds", compared(before, now, links, units) + footer(_RUNS), is_live=True)

    def compiles_of(self, recorded: RecordedBuild, chosen: Filter) -> Page:
        """Return a hundred compiles of a build, the last that began first."""
        where = self._build(recorded.build)
        found = [c for c in reversed(recorded.compiles) if chosen.fits(c)]
        last = max(1, -(-len(found) // ROWS))
        number = min(max(chosen.page, 1), last)
        shown = found[(number - 1) * ROWS : number * ROWS]
        names = CompileNames(common_directory(recorded.compiles), lambda c: f"{where}/{id_of(c)}")
        most = max((c.took_us for c in shown), default=0)
        rows = "".join(compile_row(c, names, most) for c in shown)
        others = "".join(
            f'<a href="{where}/compiles?{text(chosen.query(page))}">{word}</a>'
            for page, word in ((number - 1, "Newer"), (number + 1, "Older"))
            if 1 <= page <= last
        )
        pages = f'<nav class="pages" aria-label="More compiles">{others}</nav>' if others else ""
        content = table("Compiles", COMPILE_COLUMNS, rows, "wide") + pages
        if not rows:
            content = '<p class="pad note">No compile of this build fits.</p>'
        note = (
            f"{len(found):,} of {len(recorded.compiles):,}, the last first; page {number} of {last}"
        )
        main = (
            f'<h1>Compiles of <a href="{where}">{text(recorded.build)}</a></h1>'
            f"{_form(where, chosen)}{panel('Compiles', content, note)}"
            f"{footer('This page stands: load it again for newer compiles.')}"
        )
        return Page(f"Compiles of {recorded.build}", main)

    def _evidence(self, action: str) -> str:
        where = address_of(action) if action else ""
        return f' · <a href="{self._root}/{where}">evidence of its result</a>' if where else ""

    def compile_of(
        self, recorded: RecordedBuild, c: Compile, changed: Sequence[str],
        explained: Sequence[str], action: str = "",
    ) -> Page:  # fmt: skip
        """Return the page of one compile: how it ended and why, and where its time went.

        `action` is the farm's name of it, where the farm has a page for it.
        """
        where = self._build(recorded.build)
        base = common_directory(recorded.compiles)
        same = [o for o in recorded.compiles if o.output == c.output and o != c][-_MAX_SAME:]
        title = name_of(c, base)
        main = (
            f'<h1 class="path">{text(title)}</h1><p class="sub">{tag_of(c)} '
            f"{text(KINDS[c.kind])} · {duration(c.took_us)} from {moment(c.began_us)} · build "
            f'<a href="{where}">{text(recorded.build)}</a>{self._evidence(action)}</p>'
            f'<div class="grid two">{_why(c, changed)}{_parts(c)}{_facts(c)}'
            f"{_explained(explained)}</div>"
        )
        if same and c.output:
            names = CompileNames(base, lambda other: f"{where}/{id_of(other)}")
            most = max(o.took_us for o in same)
            rows = "".join(compile_row(o, names, most) for o in reversed(same))
            content = table("The same output", COMPILE_COLUMNS, rows, "wide")
            main += panel("Other compiles of this output", content, "in this build")
        return Page(title, main + footer("Times are this machine's."))


def _form(where: str, chosen: Filter) -> str:
    options = "".join(
        f'<option value="{kind.value}"{" selected" if kind.value == chosen.end else ""}>'
        f"{text(KINDS[kind])}</option>"
        for kind in CompileKind
    )
    return (
        f'<form class="panel filter" method="get" action="{where}/compiles" role="search" '
        'aria-label="Compiles">'
        f'<label>End <select name="end"><option value="">every end</option>{options}</select>'
        f'</label><label>File or reason <input type="search" name="q" maxlength="{MAX_SEARCH}" '
        f'value="{text(chosen.search)}"></label><button type="submit">Show</button></form>'
    )


def _why(c: Compile, changed: Sequence[str]) -> str:
    served = _SERVED.get(c.kind)
    causes = [words_of(*cause) for cause in causes_of(c)]
    rows = f"<li>{text(served)}</li>" if served else ""
    rows += "".join(
        f"<li><b>{text(words.title)}</b>{text(': ' + words.text if words.text else '')}"
        f'<span class="note">{quoted(words.remedy)}</span></li>'
        for words in causes
    )
    if c.culprit:
        rows += f"<li>Found at <code>{text(c.culprit)}</code></li>"
    rows += "".join(f"<li>Changed: <code>{text(path)}</code></li>" for path in changed)
    title = "Why it was served" if served else "Why it was not served"
    return panel(title, f'<ul class="reasons">{rows or "<li>No reason is recorded.</li>"}</ul>')


def _parts(c: Compile) -> str:
    if not c.phases:
        none = '<p class="pad note">No parts are recorded: most hits have none.</p>'
        return panel("Where its time went", none)
    rows = "".join(
        f"<tr><td>{text(PHASES[part.phase])}</td>"
        f'<td class="n">{duration(part.offset_us)}</td>'
        f'<td class="bar">{length_bar(class_of(c), part.took_us, c.took_us, part.offset_us)}</td>'
        f'<td class="n">{duration(part.took_us)}</td></tr>'
        for part in c.phases
    )
    content = table("Parts", ("Part", "#Began after", "", "#Took"), rows, "parts")
    note = f"{duration(c.took_us)} in all; a part is inside the one above it, or beside"
    return panel("Where its time went", content, note)


def _facts(c: Compile) -> str:
    facts = (
        ("Source", c.source), ("Output", c.output), ("Outcome", c.outcome),
        ("Reason", c.reason), ("Not on the farm", c.fallback), ("Where", place_of(c)),
        ("Guest", c.guest), ("Size", f"{c.size_bytes:,} bytes" if c.size_bytes else ""),
        ("Saved", f"{duration(c.saved_us)}, what the result took" if c.saved_us else ""),
    )  # fmt: skip
    rows = "".join(
        f"<dt>{name}</dt><dd><code>{text(value)}</code></dd>" for name, value in facts if value
    )
    return panel("What is recorded", f'<dl class="facts">{rows}</dl>')


def _explained(lines: Sequence[str]) -> str:
    if not lines:
        return panel(
            "hpcc explain", '<p class="pad note">Its record is gone, or has no output.</p>'
        )
    shown = [text(line[:_MAX_LINE]) for line in lines[:_MAX_EXPLAINED]]
    if len(lines) > _MAX_EXPLAINED:
        shown.append(f"… and {len(lines) - _MAX_EXPLAINED} more lines")
    content = f'<pre class="cmd">{"\n".join(shown)}</pre>'
    return panel("hpcc explain", content, "the record of this compile")
