"""`hpcc web --local` in the real Chromium: what a person sees, hears and types, and nothing else.

axe-core (MPL-2.0, fetched for tests only) has the rules of accessibility.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.cache.recorder.places import DIRECTORY_NAME
from hpcc.cache.recorder.recorder import Recorder
from hpcc.config.paths import Paths
from hpcc_testkit.cache.recorded import AT_US, compile_at, hostile_build, small_build
from hpcc_testkit.services.browser import browser, check_page, missing_or_none
from hpcc_testkit.services.web import statuses, web_pages

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(missing_or_none()), reason=missing_or_none() or "it is here"),
]


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[tuple[str, Recorder]]:
    """Return the link of running pages about two builds, and what records more of them."""
    env = {**os.environ, "HPCC_DIR": str(tmp_path)}
    cache = Paths.from_env(env).cache
    recorder = Recorder(str(cache / DIRECTORY_NAME), lambda: AT_US / 1e6)
    for recorded in (hostile_build(), small_build()):
        for c in recorded.compiles:
            recorder.add(recorded.build, c)
        recorder.flush()
    with web_pages(env) as link:
        yield link, recorder


def test_every_page_is_quiet_readable_and_reached_by_keyboard_and_follows_its_build(
    pages: tuple[str, Recorder],
) -> None:
    link, recorder = pages
    with browser() as chromium:
        chromium.do("open", url=link)
        root = link.partition("open?")[0]
        chromium.do("wait", text="release-7")
        assert chromium.do("wait", text="live")["url"] == root, "the token is not in the address"
        check_page(chromium, rules=True)
        names = ("a[href*='/build/']", "a[href$='/compiles']", "td.file a")
        for number, name in enumerate(names):
            there = chromium.do("click", css=name)["url"]
            assert there.startswith(f"{root}build/")
            check_page(chromium, rules=True)
            if number == 0:
                build = there
        # A build of hostile names is text as any other. Only in it the legend has all colours.
        chromium.do("open", url=root)
        hostile = chromium.do("click", css="tbody tr:last-child a")
        assert "<script>alert(1)</script>" in hostile["text"]
        check_page(chromium, rules=False)

        # Live: what is recorded now appears, and the focus stays where it was.
        chromium.do("open", url=build)
        chromium.do("focus", css="a[href$='/compiles']")
        recorder.add("release-7", compile_at(9000, 950, source="/home/ann/app/later.c"))
        recorder.flush()
        assert "All 11 compiles" in chromium.do("wait", text="later.c")["text"]
        assert str(chromium.do("focused")).endswith("/compiles")
        assert chromium.do("log") == []

        # Without scripts all but that is the same.
        chromium.do("script", on=False)
        still = chromium.do("open", url=build)["text"]
        assert "later.c" in still
        assert "live" not in still.split()

        # Another browser gets nothing from the link, or from a page's address.
        assert statuses(link) == [403, 403]
