"""Sums over a farm's builds: what is outside the time is not counted, claims cannot cost much."""

from __future__ import annotations

import html
import re

import pytest

from hpcc.cli.web.overview.choosing import choice_form, choice_of
from hpcc.cli.web.overview.outcome_chart import outcome_panel
from hpcc.cli.web.overview.reasons import reasons_panel
from hpcc.cli.web.overview.search import farm_places, search_page
from hpcc.cli.web.parts.shell import Page, PageFrame, document, theme_of
from hpcc.cli.web.parts.sums import BINS, Choice, Ends, ends_of, outcomes
from hpcc.core.build_summary import INSTEAD, MAX_AT_MS, MAX_NUMBER, Activity, CauseTally, Tally
from hpcc.rpc.scheduler.builds import by_build
from hpcc.rpc.scheduler.farm_picture import FarmPicture
from hpcc_testkit.guests.objects import ACTION
from hpcc_testkit.services.builds import BEGAN_MS, kept
from hpcc_testkit.services.pictures import member, picture, status, worker
from hpcc_testkit.suite.markup import read_markup

NOW = BEGAN_MS / 1000 + 100.0
EVIL = "'\"><img src=x onerror=alert(1)>"


def rounded(ends: Ends) -> tuple[int, ...]:
    return tuple(round(n) for n in ends)


def test_a_build_inside_the_time_is_counted_whole_with_its_reasons_and_its_tenant() -> None:
    found = outcomes([kept(), kept(tenant="globex", source="f" * 16)], Choice(), NOW)
    # Eight hits, three in guests, two here, both instead of the farm.
    assert ends_of(kept().summary) == Ends(8, 3, 0, 2)
    assert rounded(found.whole) == (16, 6, 0, 4)
    assert {t: rounded(e) for t, e in found.tenants.items()} == {
        "acme": (8, 3, 0, 2), "globex": (8, 3, 0, 2),
    }  # fmt: skip
    assert found.causes_of(INSTEAD) == [("fallback", "guest-lost", 4)]
    assert found.causes_of(("missed",)) == [("missed", "inputs-changed", 6)]
    assert found.reports == len(found.slowest) == 2
    one = outcomes([kept(), kept(tenant="globex")], Choice(1, "globex"), NOW)
    assert list(one.tenants) == ["globex"]


def test_what_was_before_the_time_is_left_out_and_parts_are_where_they_were() -> None:
    late = Tally("hit", 10, 1)
    parts = (Activity(4, 0, 0, 0), Activity(6, 0, 0, 0))
    # Two hours long: the first half was before the last hour.
    build = kept(
        began_ms=BEGAN_MS, ended_ms=BEGAN_MS + 7_200_000, kinds=(late,), causes=(), slowest=(),
        activity=parts, reported_at=BEGAN_MS / 1000 + 7200,
    )  # fmt: skip
    found = outcomes([build], Choice(), BEGAN_MS / 1000 + 7200)
    assert rounded(found.whole) == (6, 0, 0, 0)
    assert all(abs(part.cache - 0.1) < 1e-6 for part in found.bins)
    assert outcomes([build], Choice(), BEGAN_MS / 1000 + 12_000).whole.compiles < 6
    assert not outcomes([build], Choice(), BEGAN_MS / 1000 + 20_000).reports


def test_a_clock_that_is_ahead_is_moved_back_and_hostile_times_cost_little() -> None:
    ahead = kept(began_ms=BEGAN_MS + 9_000_000, ended_ms=BEGAN_MS + 9_075_000)
    assert rounded(outcomes([ahead], Choice(), NOW).whole) == (8, 3, 0, 2)
    most = Tally("hit", MAX_NUMBER, MAX_NUMBER)
    forever = kept(began_ms=0, ended_ms=MAX_AT_MS, kinds=(most,), reported_at=0.0)
    moment = kept(ended_ms=BEGAN_MS, kinds=(most,))
    found = outcomes([forever, moment], Choice(), NOW)
    assert len(found.bins) == BINS
    assert MAX_NUMBER <= round(found.whole.cache) < 2 * MAX_NUMBER


def test_the_chart_has_the_sums_and_says_so_if_there_are_none() -> None:
    found = outcomes([kept()], Choice(), NOW)
    drawn = outcome_panel(found)
    text = read_markup(drawn, ["polygon"], ["points", "viewbox", "preserveaspectratio"])
    assert "Compiles by outcome: 3 in guests, 2 here instead, 0 here, no farm, 8 from a cache" in (
        drawn
    )
    assert "a minute, last hour" in text
    for points in re.findall(r'points="([^"]*)"', drawn):
        ys = [float(pair.split(",")[1]) for pair in points.split()]
        assert min(ys) >= 0
        assert max(ys) <= 100
    assert "No client has told of a compile" in outcome_panel(outcomes([], Choice(24), NOW))


def test_reasons_have_a_remedy_and_what_a_list_has_not_by_name_is_said() -> None:
    causes = [("fallback", "guest-lost", 5), ("fallback", "other", 3), ("refused", "", 1)]
    found = reasons_panel("Instead", causes, "", "Nothing.")
    for part in ("guest-lost", "55.6 %", "the next compile tries the farm again", "others"):
        assert part in found, part
    assert "Nothing." in reasons_panel("Instead", [], "", "Nothing.")
    many = [("fallback", f"w{n}", 1) for n in range(20)]
    assert "12 more reasons, 12 compiles" in reasons_panel("Instead", many, "", "")


def test_only_a_known_time_and_tenant_are_chosen() -> None:
    builds = [kept(), kept(tenant="globex")]
    assert choice_of({"hours": "24", "tenant": "globex"}, builds) == Choice(24, "globex")
    assert choice_of({"hours": EVIL, "tenant": EVIL}, builds) == Choice(1, "")
    shown = choice_form("/r/", Choice(24, "globex"), builds, is_operator=True)
    assert '<option value="globex" selected>' in shown
    assert "tenant" not in choice_form("/r/", Choice(), builds, is_operator=False)


def test_a_search_finds_what_was_shown_and_nothing_else() -> None:
    builds = by_build([kept(), kept("nightly", principal="ci")])
    olga, ann = picture(status(worker("w1"))), picture(member())

    def names(said: str, seen: FarmPicture = olga) -> list[str]:
        return [f.address for f in farm_places(seen, builds, said)]

    assert names("W1") == ["worker/w1"]
    assert "tenant/acme" in names("acme")
    assert names("nightly") == [f"farm-build/{builds[1].build_id}"]
    assert names(builds[0].build_id) == [f"farm-build/{builds[0].build_id}", ""]
    assert names(str(ACTION)) == [f"object/{ACTION.hash}-{ACTION.size_bytes}"]
    assert names("w1", picture(member(workers=()))) == []
    assert names("zzz", ann) == []
    page = search_page("/r", EVIL, farm_places(olga, by_build([kept(EVIL[:40])]), "img")).main
    assert "<img" not in page
    assert EVIL[:40] in html.unescape(page)


@pytest.mark.parametrize(
    ("cookies", "theme"),
    [
        ("hpcc-theme=dark", "dark"),
        ("a=b; hpcc-theme=light", "light"),
        ("hpcc-theme=auto", ""),
        ('hpcc-theme="><script>', ""),
        ("hpcc-theme=dark2", ""),
        ("", ""),
    ],
)
def test_a_theme_is_one_of_two_words(cookies: str, theme: str) -> None:
    assert theme_of(cookies) == theme
    page = document(Page("x", "<p>x</p>"), PageFrame("/r", theme=theme)).decode()
    assert ("data-theme" in page) is bool(theme)


def test_causes_that_no_compile_explains_divide_by_nothing() -> None:
    odd = kept(kinds=(), causes=(CauseTally("missed", "evicted", 3, 1),), activity=())
    assert outcomes([odd], Choice(), NOW).causes_of(("missed",)) == []
