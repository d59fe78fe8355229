"""The page, the text and the document: all of a report, and no name that does anything."""

from __future__ import annotations

import base64
import hashlib
import json
import re

from hypothesis import given
from hypothesis import strategies as st

from hpcc.cache.recorder.reading import BuildLine, RecordedBuild
from hpcc.cache.recorder.report import report_of
from hpcc.cli.builds.document import document_of
from hpcc.cli.builds.page import page_of
from hpcc.cli.builds.text import builds_lines, report_lines
from hpcc.cli.builds.words import duration
from hpcc_testkit.cache.recorded import HOSTILE, compile_at, hostile_build, small_build
from hpcc_testkit.suite.markup import read_markup as read


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
    line = BuildLine("b", 0, 5, compiles=1, bypassed=1, source=HOSTILE)
    assert "\x1b" not in "\n".join(builds_lines([line]))


@given(st.integers(0, 10**13))
def test_a_duration_is_short(us: int) -> None:
    assert len(duration(us)) <= 14
