"""Answers requests: reads the flight recorder, makes pages, and keeps both inside bounds.

A page is made again only if the files of its build changed, and one at a time. After a page that
took long to make, the held one serves for nine times as long: a browser that follows a build takes
at most a tenth of one core from it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import parse_qs

from hpcc.cache.recorder.compiles import Compile
from hpcc.cache.recorder.places import PartFile
from hpcc.cache.recorder.reading import BuildLines, RecordedBuild, files_of, read_build
from hpcc.cache.recorder.report import changed_key, report_of
from hpcc.cache.results.changed_inputs import changed_inputs
from hpcc.cache.results.records_read import read_records
from hpcc.cli.builds.parts import text
from hpcc.cli.cache.explain import explain_lines
from hpcc.cli.web.pages import MAX_SEARCH, Filter, Pages, id_of
from hpcc.cli.web.session import BrowserSession, VisitDecision
from hpcc.cli.web.shell import HTML, Page, document, file_of, fragment, opened
from hpcc.core import NotFoundError
from hpcc.obs.http.request import Request
from hpcc.obs.http.serve import HttpAnswer
from hpcc.ports import Clock

MAX_HELD: Final = 8
_PAUSES: Final = 9
_MAX_PAGE: Final = 1_000_000
_BUILD: Final = re.compile(r"build/([0-9a-f]{16})(?:/(compiles|[0-9]{1,18}-[0-9a-f]{8}))?")
_REFUSAL: Final = (
    b"This page belongs to the browser that opened the link of `hpcc web --local`.\n"
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


class Site:
    """The pages about one cache directory, for one session."""

    def __init__(self, directory: str, session: BrowserSession, clock: Clock) -> None:
        self._directory, self._session, self._clock = directory, session, clock
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

    async def _page(self, request: Request, rest: str) -> HttpAnswer:
        root = self._session.root
        try:
            target, is_fragment = _target_of(rest, request.query)
            made = await self._in_turn(target)
        except NotFoundError as error:
            page = Page("Not here", f"<h1>Not here</h1><p>{text(error)}</p>")
            return HttpAnswer(HTTPStatus.NOT_FOUND, document(page, root), HTML)
        if not is_fragment:
            return HttpAnswer(HTTPStatus.OK, document(made.page, root, made.tag), HTML)
        tag = (("ETag", made.tag),)
        if request.header("if-none-match") == made.tag:
            return HttpAnswer(HTTPStatus.NOT_MODIFIED, b"", HTML, tag)
        return HttpAnswer(HTTPStatus.OK, fragment(made.page), HTML, tag)

    async def _in_turn(self, target: _Target) -> _Made:
        """Return a page. The turn ends with the thread, also when the request ends before it."""
        await self._turn.acquire()
        making = asyncio.get_running_loop().run_in_executor(None, self._current, target)
        making.add_done_callback(lambda _: self._turn.release())
        return await asyncio.shield(making)

    def _current(self, target: _Target) -> _Made:
        """Return a page that is new enough. Runs in a thread, one call at a time."""
        began = self._clock.monotonic()
        files = files_of(self._directory, target.build or None)
        made = self._made.get(target)
        if made is None or (
            made.files != files and began >= made.made_at + _PAUSES * made.cost_seconds
        ):
            page = self._new(target, files)
            tag = f'"{hashlib.sha256(page.main.encode("utf-8", "surrogatepass")).hexdigest()[:32]}"'
            now = self._clock.monotonic()
            made = self._made[target] = _Made(files, page, tag, now, now - began)
        self._made.move_to_end(target)
        while len(self._made) > MAX_HELD:
            self._made.popitem(last=False)
        return made

    def _new(self, target: _Target, files: tuple[PartFile, ...]) -> Page:
        if not target.build:
            return self._pages.list_of(self._lines.lines())
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

    def _compile(self, recorded: RecordedBuild, name: str) -> Page:
        found = next((c for c in recorded.compiles if id_of(c) == name), None)
        if found is None:
            raise NotFoundError("this compile is not recorded, or no longer")
        key, changed = changed_key(found), tuple[str, ...]()
        if found.reason == "inputs-changed":
            changed = changed_inputs(self._directory, {key}).get(key, ())
        return self._pages.compile_of(recorded, found, changed, self._explained(found))

    def _explained(self, c: Compile) -> list[str]:
        """Return what `hpcc explain` says of this compile; empty if its record is gone."""
        output, ended_ms = changed_key(c)
        if not output:
            return []
        history = [r for r in read_records(self._directory) if r.output == output]
        for number in range(len(history), 0, -1):
            # A record's time is rounded.
            if abs(round(history[number - 1].at * 1000) - ended_ms) <= 1:
                return explain_lines(history[:number])
        return []


def _target_of(rest: str, query: str) -> tuple[_Target, bool]:
    """Return what is asked for, and whether only its content.

    Raises:
        NotFoundError: no page has this address.
    """
    try:
        fields = parse_qs(query, max_num_fields=8, errors="replace")
    except ValueError:
        raise NotFoundError("no page has this address") from None
    said = {name: values[0] for name, values in fields.items()}
    is_fragment = "live" in said
    if not rest:
        return _Target(), is_fragment
    match = _BUILD.fullmatch(rest)
    if match is None:
        raise NotFoundError("no page has this address")
    build, part = match[1], match[2] or ""
    if part != "compiles":
        return _Target(build, part), is_fragment
    page = said.get("page", "1")
    number = int(page) if re.fullmatch(r"[0-9]{1,6}", page) else 1
    chosen = Filter(said.get("end", "")[:MAX_SEARCH], said.get("q", "")[:MAX_SEARCH], number)
    return _Target(build, part, chosen), is_fragment
