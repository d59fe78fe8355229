"""The page, the text and the document: all of a report, and no name that does anything."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from hpcc.cache.recorder.compiles import Compile
from hpcc.cache.recorder.reading import BuildLine, RecordedBuild
from hpcc.cache.recorder.report import report_of
from hpcc.cli.builds.document import document_of
from hpcc.cli.builds.page import page_of
from hpcc.cli.builds.text import builds_lines, report_lines
from hpcc.cli.builds.words import duration
from hpcc_testkit.cache.recorded import compile_at, small_build

HOSTILE = "</style><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x1b[31m\u202e\udcff"
_VOID = {"meta"}
_ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "main", "section", "header", "h1", "h2", "p",
    "span", "code", "div", "dl", "dt", "dd", "ul", "li", "table", "thead", "tbody", "tr", "th",
    "td", "b", "footer", "svg", "rect", "line", "text",
}  # fmt: skip
_ATTRIBUTES = {
    "lang", "charset", "http-equiv", "content", "name", "class", "height", "width", "role", "scope",
    "aria-label", "aria-hidden", "tabindex", "x", "y", "x1", "x2", "y1", "y2", "rx", "text-anchor",
}  # fmt: skip


class Reader(HTMLParser):
    """Reads a page, and refuses what the report has no use for."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _ALLOWED, tag
        assert {name for name, _ in attrs} <= _ATTRIBUTES, attrs
        if tag not in _VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not (self.get_starttag_text() or "").endswith("/>") or self.open[-1:] == [tag]:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def read(page: str) -> str:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return " ".join(reader.text)


def hostile_build() -> RecordedBuild:
    compiles = tuple(
        Compile(c.began_us, c.took_us, c.outcome, f"/p/{HOSTILE}", HOSTILE, HOSTILE, HOSTILE,
                HOSTILE, HOSTILE, 1, 0, HOSTILE, c.phases)
        for c in small_build().compiles
    )  # fmt: skip
    return RecordedBuild(build=HOSTILE, compiles=compiles, left_out=3, is_damaged=True)


def test_the_page_has_a_policy_that_names_its_style_and_nothing_else() -> None:
    recorded = small_build()
    page = page_of(report_of(recorded), recorded)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert (
        f"content=\"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'\"" in page
    )
    assert "url(" not in style
    assert "@import" not in style
    assert "//" not in page.replace("<!doctype html>", "")
    text = read(page)
    for part in ("release-7", "net/far.cc", "42.9 %", "guest-lost", "longest", "hpcc explain FILE"):
        assert part.lower() in text.lower(), part


def test_no_name_becomes_markup_or_a_control() -> None:
    recorded = hostile_build()
    report = report_of(recorded)
    page = page_of(report, recorded)
    shown = page.encode("ascii", "xmlcharrefreplace").decode()
    text = read(shown)
    assert "<script>alert(1)</script>" in text
    for lines in (text, "\n".join(report_lines(report))):
        assert not set(lines) & {"\x1b", "\u202e", "\udcff"}
    assert "left out" in text


def test_the_text_says_what_the_page_says() -> None:
    text = "\n".join(report_lines(report_of(small_build())))
    for part in (
        "build      release-7", "below      /home/ann/app", "compiles   10; hits are 42.9 % of 7",
        "inputs changed: a source or header changed", "for example net/far.cc",
        "not for the cache: stdin", "1.60 s in 3 compiles: what a perfect cache would have saved",
        "this machine", "w1",
    ):  # fmt: skip
        assert part in text, part


def test_the_document_is_json_with_seconds() -> None:
    document = json.loads(json.dumps(document_of(report_of(small_build()))))
    assert document["format"] == 1
    assert document["perfect_cache"] == {"compiles": 3, "saved_seconds": 1.6}
    assert document["counts"]["hit"] == 2
    bypass = next(cause for cause in document["causes"] if cause["family"] == "bypass")
    assert (bypass["seconds"], bypass["compiles"]) == (None, 1)
    assert document["slowest"][0]["phases"][-1] == ["place", 0.852, 0.048]


def test_a_build_of_one_hit_has_a_report_in_each_form() -> None:
    recorded = RecordedBuild(build="b", compiles=(compile_at(0, 0, "hit.local"),))
    report = report_of(recorded)
    assert "100.0 %" in "\n".join(report_lines(report))
    assert "100.0 %" in read(page_of(report, recorded))
    line = BuildLine("b", 0, 5, 1, 0, 1, HOSTILE)
    assert "\x1b" not in "\n".join(builds_lines([line]))


@given(st.integers(0, 10**13))
def test_a_duration_is_short(us: int) -> None:
    assert len(duration(us)) <= 14
