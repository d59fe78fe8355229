"""Answers requests: reads the flight recorder, makes pages, and keeps both inside bounds.

A page about a build is made again only if the files of its build changed, and one at a time. After
a page that took long to make, the held one serves for nine times as long: a browser that follows a
build takes at most a tenth of one core from it. `farm_site` bounds what the farm's pages cost.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Final, NamedTuple, Protocol
from urllib.parse import parse_qs

from hpcc.cache.recorder.compiles import Compile
from hpcc.cache.recorder.places import PartFile
from hpcc.cache.recorder.reading import BuildLines, RecordedBuild, files_of, read_build
from hpcc.cache.recorder.report import changed_key, report_of
from hpcc.cache.results.changed_inputs import changed_inputs
from hpcc.cache.results.records_read import CompileRecord, read_records
from hpcc.cli.builds.comparison import changed_units, comparable, units_of
from hpcc.cli.builds.parts import text
from hpcc.cli.cache.explain import explain_lines
from hpcc.cli.web.compare_page import COMPARE
from hpcc.cli.web.overview.search import FoundPlace, search_page
from hpcc.cli.web.pages import MAX_SEARCH, Filter, Pages, id_of
from hpcc.cli.web.parts.shell import (
    HTML,
    SEARCH,
    Page,
    PageFrame,
    document,
    file_of,
    fragment,
    opened,
    theme_of,
)
from hpcc.cli.web.session import BrowserSession, VisitDecision
from hpcc.core import NotFoundError
from hpcc.obs.http.request import Request
from hpcc.obs.http.serve import HttpAnswer
from hpcc.ports import Clock

MAX_HELD: Final = 8
BUILDS: Final = "builds"
"""The address of the list of builds, where the root is the farm's."""
THIS_MACHINE: Final = "This machine"
"""What the bar calls it there: `Builds` are the farm's."""
_PAUSES: Final = 9
_MAX_PAGE: Final = 1_000_000
_BUILD: Final = re.compile(
    r"build/([0-9a-f]{16})(?:/(compiles|compare(?:/[0-9a-f]{16})?|[0-9]{1,18}-[0-9a-f]{8}))?"
)
_REFUSAL: Final = (
    b"This page belongs to the browser that opened the link of `hpcc web`.\n"
    b"The link works once. Run the command again for another one.\n"
)


class _Target(NamedTuple):
    """What a page is about. `build` is the hash in the address, "" for the list."""

    build: str = ""
    part: str = ""
    chosen: Filter = Filter()


class _Made(NamedTuple):
    """A page with the files that it was made from, and what making it cost."""

    files: tuple[PartFile, ...]
    page: Page
    tag: str
    made_at: float
    cost_seconds: float


class FarmPages(Protocol):
    """The pages about a farm. `sections` are their names in the bar, with their addresses."""

    sections: tuple[tuple[str, str], ...]

    @property
    def who(self) -> str:
        """The person who is logged in now; "" if nobody is."""
        ...

    async def page_or_none(self, rest: str, fields: Mapping[str, str]) -> Page | None:
        """Return the page of an address below the root; None for one that has no farm's page.

        Raises:
            NotFoundError: the farm has, or shows, nothing of this name.
        """
        ...

    async def places(self, wanted: str) -> list[FoundPlace]:
        """Return the places of a farm that fit a search."""
        ...


class Site:
    """The pages about one cache directory and, if there is one, the farm; for one session."""

    def __init__(
        self,
        directory: str,
        session: BrowserSession,
        clock: Clock,
        farm: FarmPages | None = None,
    ) -> None:
        self._directory, self._session, self._clock = directory, session, clock
        self._farm = farm
        self._pages = Pages(session.root)
        self._lines = BuildLines(directory)
        # The build that was read last, with its files: pages of one build share it.
        self._held: tuple[tuple[PartFile, ...], RecordedBuild] | None = None
        self._made: OrderedDict[_Target, _Made] = OrderedDict()
        self._turn = asyncio.Lock()

    async def answer(self, request: Request) -> HttpAnswer:
        """Answer a request of any origin."""
        root = self._session.root
        match self._session.admit(request):
            case VisitDecision.REFUSED:
                return HttpAnswer(HTTPStatus.FORBIDDEN, _REFUSAL)
            case VisitDecision.OPENED:
                cookie = (("Set-Cookie", self._session.cookie),)
                return HttpAnswer(HTTPStatus.OK, opened(root), HTML, cookie)
            case VisitDecision.ALLOWED:
                rest = request.path[len(root) + 1 :]
                file = file_of(rest)
                return (
                    await self._page(request, rest)
                    if file is None
                    else HttpAnswer(HTTPStatus.OK, *file)
                )

    def _frame(self, request: Request) -> PageFrame:
        root, farm = self._session.root, self._farm
        theme = theme_of(request.header("cookie"))
        if farm is None:
            return PageFrame(root, theme=theme)
        return PageFrame(root, (*farm.sections, (THIS_MACHINE, BUILDS)), farm.who, theme)

    async def _page(self, request: Request, rest: str) -> HttpAnswer:
        frame = self._frame(request)
        try:
            fields = _fields(request.query)
            page, tag = await self._page_and_tag(rest, fields)
        except NotFoundError as error:
            page = Page("Not here", f"<h1>Not here</h1><p>{text(error)}</p>", section="")
            return HttpAnswer(HTTPStatus.NOT_FOUND, document(page, frame), HTML)
        if "live" not in fields:
            return HttpAnswer(HTTPStatus.OK, document(page, frame, tag), HTML)
        headers = (("ETag", tag),)
        if request.header("if-none-match") == tag:
            return HttpAnswer(HTTPStatus.NOT_MODIFIED, b"", HTML, headers)
        return HttpAnswer(HTTPStatus.OK, fragment(page), HTML, headers)

    async def _page_and_tag(self, rest: str, fields: Mapping[str, str]) -> tuple[Page, str]:
        if rest == SEARCH:
            found = await self._search(fields.get("q", "").strip()[:MAX_SEARCH])
            return found, _tag(found)
        if self._farm is not None:
            page = await self._farm.page_or_none(rest, fields)
            if page is not None:
                return page, _tag(page)
            rest = "" if rest == BUILDS else rest
        made = await self._in_turn(partial(self._current, _target_of(rest, fields)))
        page = made.page if self._farm is None else made.page._replace(section=THIS_MACHINE)
        return page, made.tag

    async def _search(self, wanted: str) -> Page:
        found = await self._farm.places(wanted) if self._farm is not None and wanted else []
        if wanted:
            lines = await self._in_turn(self._lines.lines)
            found += self._pages.places(lines, wanted)
        return search_page(self._session.root, wanted, found)

    async def _in_turn[T](self, make: Callable[[], T]) -> T:
        """Return what a thread makes, one at a time: a page, or the list for a search.

        The turn ends with the thread, also when the request ends before it.
        """
        await self._turn.acquire()
        making = asyncio.get_running_loop().run_in_executor(None, make)
        making.add_done_callback(lambda _: self._turn.release())
        return await asyncio.shield(making)

    def _current(self, target: _Target) -> _Made:
        """Return a page that is new enough. Runs in a thread, one call at a time."""
        began = self._clock.monotonic()
        # The page that offers builds is of all of them.
        build = target.build if target.part != COMPARE else ""
        files = files_of(self._directory, build or None)
        if target.part.startswith(f"{COMPARE}/"):
            files += files_of(self._directory, _other_of(target))
        made = self._made.get(target)
        if made is None or (
            made.files != files and began >= made.made_at + _PAUSES * made.cost_seconds
        ):
            page = self._new(target, files)
            now = self._clock.monotonic()
            made = self._made[target] = _Made(files, page, _tag(page), now, now - began)
        self._made.move_to_end(target)
        while len(self._made) > MAX_HELD:
            self._made.popitem(last=False)
        return made

    def _new(self, target: _Target, files: tuple[PartFile, ...]) -> Page:
        if not target.build:
            return self._pages.list_of(self._lines.lines())
        if target.part == COMPARE:
            return self._pages.offer_of(target.build, self._lines.lines())
        if target.part.startswith(COMPARE):
            return self._comparison(target)
        if self._held is None or self._held[0] != files:
            self._held = None  # two builds do not have to fit into memory
            self._held = files, read_build(self._directory, target.build)
        recorded = self._held[1]
        if target.part == "compiles":
            return self._pages.compiles_of(recorded, target.chosen)
        if target.part:
            return self._compile(recorded, target.part)
        asked = {changed_key(c) for c in recorded.compiles if c.reason == "inputs-changed"}
        changed = changed_inputs(self._directory, asked) if asked else {}
        return self._pages.build_of(report_of(recorded, changed), recorded)

    def _comparison(self, target: _Target) -> Page:
        """Return a comparison. One build after the other is in memory, and then a row of each."""
        self._held = None
        found = []
        names = _other_of(target), target.build
        for name in names:
            recorded = read_build(self._directory, name)
            found.append((comparable(recorded), units_of(recorded)))
            del recorded
        (before, old), (now, new) = found
        return self._pages.compared(names, before, now, changed_units(old, new))

    def _compile(self, recorded: RecordedBuild, name: str) -> Page:
        found = next((c for c in recorded.compiles if id_of(c) == name), None)
        if found is None:
            raise NotFoundError("this compile is not recorded, or no longer")
        key, changed = changed_key(found), tuple[str, ...]()
        if found.reason == "inputs-changed":
            changed = changed_inputs(self._directory, {key}).get(key, ())
        history = self._history(found)
        # Only a farm's page can show more of it.
        action = history[-1].action if history and self._farm is not None else ""
        explained = explain_lines(history) if history else []
        return self._pages.compile_of(recorded, found, changed, explained, action)

    def _history(self, c: Compile) -> list[CompileRecord]:
        """Return the records of an output up to this compile; empty if its record is gone."""
        output, ended_ms = changed_key(c)
        if not output:
            return []
        history = [r for r in read_records(self._directory) if r.output == output]
        for number in range(len(history), 0, -1):
            # A record's time is rounded.
            if abs(round(history[number - 1].at * 1000) - ended_ms) <= 1:
                return history[:number]
        return []


def _other_of(target: _Target) -> str:
    """Return the hashed name of the build that another one is compared with."""
    return target.part.partition("/")[2]


def _tag(page: Page) -> str:
    """Return by what a browser names the content of a page that it shows."""
    return f'"{hashlib.sha256(page.main.encode("utf-8", "surrogatepass")).hexdigest()[:32]}"'


def _fields(query: str) -> dict[str, str]:
    try:
        fields = parse_qs(query, max_num_fields=8, errors="replace")
    except ValueError:
        raise NotFoundError("no page has this address") from None
    return {name: values[0] for name, values in fields.items()}


def _target_of(rest: str, fields: Mapping[str, str]) -> _Target:
    """Return what is asked for.

    Raises:
        NotFoundError: no page has this address.
    """
    if not rest:
        return _Target()
    match = _BUILD.fullmatch(rest)
    if match is None:
        raise NotFoundError("no page has this address")
    build, part = match[1], match[2] or ""
    if part != "compiles":
        return _Target(build, part)
    page = fields.get("page", "1")
    number = int(page) if re.fullmatch(r"[0-9]{1,6}", page) else 1
    end, search = (fields.get(name, "")[:MAX_SEARCH] for name in ("end", "q"))
    return _Target(build, part, Filter(end, search, number))
