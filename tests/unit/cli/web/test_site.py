"""The pages: complete without a script, escaped, bounded, and made again only for new compiles."""

from __future__ import annotations

import asyncio
import html
import re
import threading
from http import HTTPStatus
from pathlib import Path

import pytest

from hpcc.cache.recorder.places import DIRECTORY_NAME, hash_of
from hpcc.cache.recorder.reading import read_build
from hpcc.cache.recorder.recorder import Recorder
from hpcc.cli.web import site as site_module
from hpcc.cli.web.pages import ROWS
from hpcc.cli.web.parts.shell import HEADERS
from hpcc.cli.web.session import BrowserSession
from hpcc.cli.web.site import MAX_HELD, Site
from hpcc.obs.http.request import Request
from hpcc.obs.http.serve import HttpAnswer
from hpcc.ports import Clock, SystemClock
from hpcc_testkit.cache.recorded import (
    AT_US,
    HOSTILE,
    compile_at,
    earlier_build,
    hostile_build,
    small_build,
)
from hpcc_testkit.farm.in_process import LaterClock
from hpcc_testkit.suite.markup import read_markup

TAGS = ["a", "nav", "form", "label", "select", "option", "input", "button", "pre", "link", "script"]
ATTRIBUTES = [
    "href",
    "rel",
    "type",
    "src",
    "id",
    "data-live",
    "method",
    "action",
    "value",
    "maxlength",
    "placeholder",
    "hidden",
    "selected",
    "aria-current",
]


class Visitor:
    """A browser that has opened the link, without a browser."""

    def __init__(self, cache: Path, clock: Clock | None = None) -> None:
        self.session = BrowserSession()
        self.site = Site(str(cache), self.session, clock or SystemClock())
        self._cookie = self.session.cookie.partition(";")[0]

    async def ask(self, path: str, tag: str = "") -> HttpAnswer:
        headers = (("cookie", self._cookie), ("if-none-match", tag))
        target = f"{self.session.root}/{path}"
        return await self.site.answer(Request(target=target, is_head=False, headers=headers))

    async def markup(self, path: str) -> str:
        answer = await self.ask(path)
        assert answer.status is HTTPStatus.OK, answer
        return answer.body.decode("ascii")

    def links(self, markup: str) -> list[str]:
        found = re.findall(r'(?:href|src|action)="([^"]*)"', markup)
        own = f"{self.session.root}/"
        assert all(link.startswith(own) or link == "#main" for link in found), found
        return [html.unescape(link.removeprefix(own)) for link in found if link != "#main"]


def record(cache: Path, build: str = "release-7", hostile: bool = False) -> Recorder:
    recorder = Recorder(str(cache / DIRECTORY_NAME), lambda: AT_US / 1e6)
    recorded = hostile_build() if hostile else small_build()
    for c in recorded.compiles:
        recorder.add(recorded.build if hostile else build, c)
    recorder.flush()
    return recorder


async def test_each_page_is_reached_by_links_and_none_shows_markup_of_a_record(
    tmp_path: Path,
) -> None:
    record(tmp_path, hostile=True)
    visitor = Visitor(tmp_path)
    seen, ahead = dict[str, str](), [""]
    while ahead:
        path = ahead.pop()
        if path in seen:
            continue
        answer = await visitor.ask(path)
        assert answer.status is HTTPStatus.OK, path
        seen[path] = answer.body.decode()
        if answer.kind.startswith("text/html"):
            text = read_markup(seen[path], TAGS, ATTRIBUTES)
            assert path == "search" or "<script>alert(1)</script>" in text, path
            assert not set(text) & {"\x1b", "\u202e", "\udcff"}
            assert "javascript:" not in seen[path]
            assert " style=" not in seen[path]
            ahead += visitor.links(seen[path])
    kinds = {re.sub(r"[0-9a-f]{16}", "B", re.sub(r"[0-9]{16}-\w{8}", "C", path)) for path in seen}
    assert kinds == {
        "", "build/B", "build/B/compiles", "build/B/C", "build/B/compare", "hpcc.css", "live.js", "theme.js",
        "favicon.svg", "search",
    }  # fmt: skip
    compiles = [path for path in seen if re.search(r"-\w{8}$", path)]
    assert len(compiles) == len(hostile_build().compiles)


async def test_a_page_says_why_a_compile_missed_and_what_to_do(tmp_path: Path) -> None:
    record(tmp_path)
    visitor = Visitor(tmp_path)
    build = next(link for link in visitor.links(await visitor.markup("")) if "build/" in link)
    found = await visitor.markup(f"{build}/compiles?q=app%2FHERE.C")
    (here,) = [link for link in visitor.links(found) if re.search(r"-\w{8}$", link)][:1]
    text = read_markup(await visitor.markup(here), TAGS, ATTRIBUTES)
    for part in (
        "here.c", "compiled here and stored", "new command", "guest-lost", "Where its time went",
        "compiler", "380 ms", "/home/ann/app/here.o",
    ):  # fmt: skip
        assert part in text, part
    hits = await visitor.markup(f"{build}/compiles?end=hit")
    assert "2 of 10" in hits
    assert "No compile of this build fits" in await visitor.markup(f"{build}/compiles?end=no")


async def test_an_address_of_nothing_is_not_found_and_says_so_in_text(tmp_path: Path) -> None:
    record(tmp_path)
    visitor = Visitor(tmp_path)
    for path in (
        "x", "build/", "build/../../etc/passwd", f"build/{'0' * 16}", f"build/{'0' * 16}/compiles",
        f"build/{'0' * 15}", "live.js/", "?" + "&".join("abcdefghij"), "build/%2e",
        f"build/{'0' * 16}/{'9' * 18}-{'a' * 8}", f"<script>{HOSTILE}",
    ):  # fmt: skip
        answer = await visitor.ask(path)
        if path.startswith("?"):
            assert answer.status in {HTTPStatus.OK, HTTPStatus.NOT_FOUND}
            continue
        assert answer.status is HTTPStatus.NOT_FOUND, path
        read_markup(answer.body.decode(), TAGS, ATTRIBUTES)


async def test_without_the_cookie_every_address_gives_the_same_refusal(tmp_path: Path) -> None:
    record(tmp_path)
    visitor = Visitor(tmp_path)
    root = visitor.session.root
    answers = {
        await visitor.site.answer(Request(target=target, is_head=False))
        for target in (
            "/",
            f"{root}/",
            f"{root}/hpcc.css",
            f"{root}/build/x",
            "/other",
            f"{root}/open",
        )
    }
    (answer,) = answers
    assert answer.status is HTTPStatus.FORBIDDEN
    opened = await visitor.site.answer(Request(target=visitor.session.link, is_head=False))
    assert opened.headers == (("Set-Cookie", visitor.session.cookie),)
    assert f"url={root}/" in opened.body.decode()


async def test_the_policy_allows_no_inline_script_or_style_and_nothing_is_stored(
    tmp_path: Path,
) -> None:
    headers = dict(HEADERS)
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in policy if name.endswith("-src")} == {"'none'", "'self'"}
    assert policy["require-trusted-types-for"] == "'script'"
    assert (policy["base-uri"], policy["frame-ancestors"]) == ("'none'", "'none'")
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"
    visitor = Visitor(tmp_path)
    page = await visitor.markup("")
    assert "No build is recorded yet" in page
    assert not re.search(r"<style|<script(?! type=\"module\" src=)|\son\w+=", page)
    assert "//" not in page.replace("<!doctype html>", "")


async def test_a_live_page_changes_with_its_build_and_else_costs_no_answer(tmp_path: Path) -> None:
    recorder = record(tmp_path)
    visitor = Visitor(tmp_path)
    first = await visitor.ask("?live=1")
    tag = dict(first.headers)["ETag"]
    assert f'data-live="{html.escape(tag)}"' in await visitor.markup("")
    same = await visitor.ask("?live=1", tag)
    assert (same.status, same.body) == (HTTPStatus.NOT_MODIFIED, b"")
    recorder.add("release-7", compile_at(1000, 5, source="/home/ann/app/later.c"))
    recorder.flush()
    visitor.site._made.clear()  # as if making the list had cost nothing
    changed = await visitor.ask("?live=1", tag)
    assert changed.status is HTTPStatus.OK
    assert b"<html" not in changed.body
    assert b">11<" in changed.body


async def test_a_page_is_made_again_only_for_new_compiles_and_after_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, clock, made = record(tmp_path), LaterClock(), list[str]()

    def read(directory: str, build: str) -> object:
        made.append(build)
        clock.ahead += 2.0  # it costs two seconds
        return read_build(directory, build)

    monkeypatch.setattr(site_module, "read_build", read)
    visitor = Visitor(tmp_path, clock)
    build = next(link for link in visitor.links(await visitor.markup("")) if "build/" in link)
    for _ in range(3):
        await visitor.markup(build)
    assert len(made) == 1
    recorder.add("release-7", compile_at(1000, 5, source="/home/ann/app/later.c"))
    recorder.flush()
    assert "later.c" not in await visitor.markup(build)
    clock.ahead += 9 * 2.0 + 60
    assert "later.c" in await visitor.markup(build)
    assert len(made) == 2


async def test_a_page_whose_request_ended_is_made_to_its_end_before_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path)
    going, may_end, running = threading.Event(), threading.Event(), list[int]()
    most = 0

    def read(directory: str, build: str) -> object:
        nonlocal most
        running.append(1)
        most = max(most, len(running))
        going.set()
        assert may_end.wait(60)
        found = read_build(directory, build)
        running.pop()
        return found

    monkeypatch.setattr(site_module, "read_build", read)
    visitor = Visitor(tmp_path)
    build = next(link for link in visitor.links(await visitor.markup("")) if "build/" in link)
    first = asyncio.Task(visitor.markup(build))
    assert await asyncio.to_thread(going.wait, 60)
    first.cancel()
    await asyncio.wait([first])
    assert visitor.site._turn.locked(), "its thread still reads"
    later = asyncio.Task(visitor.markup(f"{build}/compiles"))
    await asyncio.sleep(0)
    may_end.set()
    await later
    assert most == 1


async def test_many_compiles_are_shown_a_hundred_at_a_time_and_few_pages_are_held(
    tmp_path: Path,
) -> None:
    recorder = Recorder(str(tmp_path / DIRECTORY_NAME), lambda: AT_US / 1e6)
    for number in range(3 * ROWS + 1):
        recorder.add("b", compile_at(number, 5, source=f"/p/n{number}.c"))
    recorder.flush()
    visitor = Visitor(tmp_path)
    build = next(link for link in visitor.links(await visitor.markup("")) if "build/" in link)
    path, names = f"{build}/compiles", set[str]()
    for _ in range(4):
        page = await visitor.markup(path)
        found = set(re.findall(r"<code>(n\d+\.c)</code>", page))
        assert len(found) <= ROWS
        names |= found
        older = [link for link in visitor.links(page) if "page=" in link]
        path = older[-1]
    assert len(names) == 3 * ROWS + 1
    for number in range(20):
        await visitor.ask(f"{build}/compiles?page={number}&q={'x' * 5000}")
        assert len(visitor.site._made) <= MAX_HELD


async def test_a_page_names_the_place_that_a_refusal_is_about(tmp_path: Path) -> None:
    recorder = Recorder(str(tmp_path / DIRECTORY_NAME), lambda: AT_US / 1e6)
    refused = compile_at(0, 5, "uncacheable", reason="date-time")._replace(culprit="/p/now.h:3")
    recorder.add("b", refused)
    recorder.flush()
    visitor = Visitor(tmp_path)
    build = next(link for link in visitor.links(await visitor.markup("")) if "build/" in link)
    links = visitor.links(await visitor.markup(f"{build}/compiles"))
    (here,) = [link for link in links if re.search(r"-\w{8}$", link)][:1]
    assert "<li>Found at <code>/p/now.h:3</code></li>" in await visitor.markup(here)


async def test_searches_and_pages_read_the_list_of_builds_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path)
    visitor = Visitor(tmp_path)
    lines, running, most = visitor.site._lines.lines, list[int](), 0
    going, may_end = threading.Event(), threading.Event()

    def read() -> object:
        nonlocal most
        running.append(1)
        most = max(most, len(running))
        going.set()
        assert may_end.wait(60)
        found = lines()
        running.pop()
        return found

    monkeypatch.setattr(visitor.site._lines, "lines", read)
    asked = [asyncio.Task(visitor.markup(path)) for path in ("search?q=re", "search?q=x", "")]
    assert await asyncio.to_thread(going.wait, 60)
    await asyncio.sleep(0.05)  # the others would begin meanwhile
    may_end.set()
    first, other, _ = await asyncio.gather(*asked)
    assert most == 1
    assert "build of this machine" in first
    assert "build of this machine" not in other


async def test_a_build_that_is_recorded_later_is_offered_for_a_comparison(tmp_path: Path) -> None:
    record(tmp_path)
    visitor = Visitor(tmp_path, clock := LaterClock())
    path = f"build/{hash_of('release-7')}/compare"
    assert "Only this build is known." in await visitor.markup(path)
    record(tmp_path, "release-8")
    clock.ahead += 600.0
    assert f"{path}/{hash_of('release-8')}" in await visitor.markup(path)


async def test_builds_of_this_machine_are_compared_by_output(tmp_path: Path) -> None:
    recorder = Recorder(str(tmp_path / DIRECTORY_NAME), lambda: AT_US / 1e6)
    for build in (earlier_build(), small_build()):
        for c in build.compiles:
            recorder.add(build.build, c)
    recorder.flush()
    record(tmp_path, hostile=True)
    visitor = Visitor(tmp_path)
    now, before = hash_of("release-7"), hash_of("release-6")
    page = await visitor.markup(f"build/{now}/compare/{before}")
    for part in ("/home/ann/app/net/far.o", "/home/ann/app/here.o", "served", "+150 ms",
                 "Faster than before", "only in the other build"):  # fmt: skip
        assert part in page, part
    assert f"build/{now}/compare/{before}" in await visitor.markup(f"build/{now}/compare")
    offered = visitor.links(await visitor.markup(f"build/{now}/compare"))
    (odd,) = (p for p in offered if "/compare/" in p and not p.endswith(before))
    assert "<script>" not in await visitor.markup(odd)
    for path in (f"build/{now}/compare/{'0' * 16}", f"build/{'0' * 16}/compare",
                 f"build/{now}/compare/x"):  # fmt: skip
        assert (await visitor.ask(path)).status is HTTPStatus.NOT_FOUND, path
