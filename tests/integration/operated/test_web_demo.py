"""Every page of `hpcc web`, full of data, in the real Chromium: quiet, readable, and usable with a keyboard."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcc.cache.recorder.places import hash_of
from hpcc_testkit.services.browser import browser, check_page, missing_or_none
from hpcc_testkit.suite.demo_farm import EARLIER_BUILD, MACHINE_BUILD, OBJECT, DemoFarm, demo_pages

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(missing_or_none()), reason=missing_or_none() or "it is here"),
]
MACHINE = f"build/{hash_of(MACHINE_BUILD)}"
PAGES = (
    "", "?hours=24&tenant=globex", "farm-builds", "workers", "worker/w5", "tenants", "tenant/acme",
    "cache", "objects", OBJECT, "alerts", "search?q=w3", "search?q=%3Cb%3E", "builds",
    MACHINE, f"{MACHINE}/compiles", f"{MACHINE}/compare",
    f"{MACHINE}/compare/{hash_of(EARLIER_BUILD)}",
)  # fmt: skip


async def test_every_page_with_data_is_quiet_and_readable_in_each_width_and_theme(
    tmp_path: Path,
) -> None:
    first, second, *_ = (await DemoFarm().builds()).builds
    compare = f"farm-build/{first.build_id}/compare"
    with demo_pages(tmp_path) as link, browser() as chromium:
        root = link.partition("open?")[0]
        chromium.do("open", url=link)
        chromium.do("wait", text="5 workers take compiles")
        build = f"farm-build/{first.build_id}"
        for path in (*PAGES, build, compare, f"{compare}/{second.build_id}"):
            chromium.do("open", url=f"{root}{path}")
            check_page(chromium, rules=True)
        assert "globex" in chromium.do("open", url=f"{root}?hours=24&tenant=globex")["text"]


def test_a_theme_stays_and_beats_the_systems_and_a_search_leads_on(tmp_path: Path) -> None:
    with demo_pages(tmp_path, operator=False) as link, browser() as chromium:
        root = link.partition("open?")[0]
        chromium.do("open", url=link)
        chromium.do("wait", text="Theme: auto")
        chromium.do("look", width=1440, dark=True)
        dark = chromium.do("style", css="body", name="background-color")
        chromium.do("click", css="#theme")
        light = chromium.do("style", css="body", name="background-color")
        assert light != dark
        chromium.do("open", url=f"{root}cache")
        chromium.do("wait", text="Theme: light")
        assert chromium.do("style", css="body", name="background-color") == light
        chromium.do("click", css="#theme")
        chromium.do("wait", text="Theme: dark")
        chromium.do("look", width=1440, dark=False)
        assert chromium.do("style", css="body", name="background-color") == dark
        # A click moves where Tab begins; a page that is loaded again begins at its begin.
        chromium.do("open", url=f"{root}cache")
        check_page(chromium, rules=True)
        chromium.do("look", width=1440, dark=False)
        chromium.do("click", css="#theme")
        chromium.do("wait", text="Theme: auto")
        assert chromium.do("style", css="body", name="background-color") == light

        chromium.do("write", css=".find input", text="firmware")
        chromium.do("wait", text="build of ann, acme")
        # A member's pages have nothing of others.
        assert "of raj" not in chromium.do("open", url=f"{root}search?q=raj")["text"]
        assert chromium.do("log") == []
