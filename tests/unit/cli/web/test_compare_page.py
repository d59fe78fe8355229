"""The comparison of two builds on the pages: escaped, of who may see both, and said what it lacks."""

from __future__ import annotations

import re

import pytest

from hpcc.cli.web.compare_page import compared
from hpcc.cli.web.farm_site import FarmSite
from hpcc.cli.web.session import BrowserSession
from hpcc.core import NotFoundError
from hpcc.core.build_summary import MAX_CAUSES, CauseTally
from hpcc_testkit.services.builds import kept, summary
from hpcc_testkit.suite.demo_farm import DemoClock, DemoFarm
from hpcc_testkit.suite.markup import read_markup

TAGS = ["a", "nav", "form", "label", "input", "button", "circle"]
ATTRIBUTES = ["title", "href", "method", "action", "value", "maxlength"]
EVIL = "'\"><img src=x onerror=alert(1)>"


def site(*, operator: bool) -> FarmSite:
    farm = DemoFarm(operator=operator)
    return FarmSite(farm, farm, BrowserSession().root, DemoClock())


async def test_a_build_is_compared_with_one_that_this_login_sees_and_with_no_other() -> None:
    every = (await DemoFarm().builds()).builds
    mine = [b for b in every if b.tenant == "acme"]
    other = next(b for b in every if b.tenant == "globex")
    now, before = mine[0], mine[1]
    for operator in (True, False):
        pages = site(operator=operator)
        page = await pages.page_or_none(f"farm-build/{now.build_id}/compare/{before.build_id}", {})
        assert page is not None
        found = read_markup(page.main, TAGS, ATTRIBUTES)
        for part in (now.summary.build, before.summary.build, "Why compiles were not served",
                     "by rank", "guest-lost", "before "):  # fmt: skip
            assert part in found, part
        offered = await pages.page_or_none(f"farm-build/{now.build_id}/compare", {})
        assert offered is not None
        assert f"/compare/{before.build_id}" in offered.main
        assert other.build_id not in offered.main, "another tenant's"
        assert f"/compare/{now.build_id}" not in offered.main, "itself"
    member = site(operator=False)
    for path in (
        f"{now.build_id}/compare/{other.build_id}", f"{other.build_id}/compare/{now.build_id}",
        f"{other.build_id}/compare", f"{now.build_id}/compare/{'0' * 32}",
        f"{now.build_id}/compare/", f"{now.build_id}/compare{now.build_id}", "/compare", "compare",
        f"{now.build_id}/compare/{before.build_id}/compare/{before.build_id}",
    ):  # fmt: skip
        with pytest.raises(NotFoundError):
            await member.page_or_none(f"farm-build/{path}", {})


def test_hostile_names_are_escaped_and_reasons_that_are_not_kept_are_no_vanished_ones() -> None:
    odd = summary(f"{EVIL} a"[:128])
    page = compared(odd, summary(), ("/r/farm-build/a", "/r/farm-build/b"))
    assert "<img" not in page
    assert "onerror=alert" in read_markup(page, TAGS, ATTRIBUTES)
    assert re.findall(r'href="([^"]*)"', page) == ["/r/farm-build/b", "/r/farm-build/a"]
    full = summary(causes=tuple(CauseTally("missed", f"w{n}", 1, 1) for n in range(MAX_CAUSES)))
    assert "may seem gone" in compared(full, summary(), ("/a", "/b"))
    assert "may seem gone" not in page
    empty = kept(kinds=(), causes=(), phases=(), places=(), slowest=(), activity=()).summary
    assert "Neither build has any." in compared(empty, empty, ("/a", "/b"))
