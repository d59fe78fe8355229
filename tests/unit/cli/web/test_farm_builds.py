"""The pages of a farm's builds: all texts escaped, claims named as such, and cheap to follow."""

from __future__ import annotations

import asyncio
import html
import re
import shlex

import pytest

from hpcc.cli.web.build_site import BuildsSeen
from hpcc.cli.web.parts.farm_builds import ROWS, build_page, builds_page
from hpcc.config.farm import Farm
from hpcc.core import HpccError, NotFoundError
from hpcc.core.build_summary import CauseTally, SlowCompile, Tally
from hpcc.rpc.scheduler.builds import FarmBuild, KeptBuild, KeptBuilds
from hpcc_testkit.farm.in_process import IMAGE, LaterClock
from hpcc_testkit.services.builds import ShownBuilds, kept, kept_builds
from hpcc_testkit.services.pictures import member, picture, status, worker
from hpcc_testkit.suite.markup import read_markup

TAGS = ["a", "nav", "form", "label", "input", "button", "circle"]
ATTRIBUTES = ["title", "href", "method", "action", "value", "maxlength"]
EVIL = "'\"><img src=x onerror=alert(1)>"
OLGA, ANN = picture(status(worker("w1"))), picture(member())


def listed(*builds: KeptBuild, operator: bool = True, **more: object) -> str:
    shown = builds_page(OLGA if operator else ANN, kept_builds(*builds, **more), "/r")
    return read_markup(shown.main, TAGS, ATTRIBUTES)


def shown(*reports: KeptBuild, operator: bool = True) -> str:
    build = FarmBuild(build_id=reports[0].build_id, reports=reports)
    return read_markup(build_page(OLGA if operator else ANN, build, "/r").main, TAGS, ATTRIBUTES)


def test_a_list_has_each_build_with_its_person_and_says_what_it_is_made_of() -> None:
    found = listed(kept(), kept("nightly", tenant="globex", principal="ci"), displaced=3)
    for part in ("release-7", "nightly", "globex", "ci", "2 builds of all tenants.", "61.5 %",
                 "3 reports made room", "14 days", "as clients count them"):  # fmt: skip
        assert part in found, part
    one = listed(kept(), operator=False)
    assert "1 build of acme." in one
    assert "Tenant" not in one.split("Outcome", maxsplit=1)[0].rpartition("Build")[2]


def test_pages_say_what_lacks_in_their_numbers() -> None:
    assert "2 schedulers showed nothing" in listed(kept(), silent=2)
    build = FarmBuild(build_id=kept().build_id, reports=(kept(),), left_out=1, silent=1)
    found = build_page(ANN, build, "/r").main
    assert "1 scheduler showed nothing" in found
    assert "1 older report is kept" in found


def test_an_empty_list_and_a_farm_that_keeps_none_are_sentences() -> None:
    assert "No client has told of a build yet." in listed()
    assert "This farm keeps no builds" in listed(keep_seconds=0)


def test_a_build_says_why_it_was_slow_and_what_to_do() -> None:
    found = shown(kept())
    for part in (
        "1 min 15 s", "8 of 13 that a cache can serve", "5", "inputs changed",
        "not on the farm: guest-lost", "not for the cache: stdin", "wait for a guest", "w1-g6",
        "hpcc report -- release-7", "hpcc audit list --build=release-7", "proved by the login",
        "no name of a file leaves the machine", "abababababab",
    ):  # fmt: skip
        assert part in found, part


def test_a_worker_is_a_link_only_for_who_sees_that_worker() -> None:
    build = FarmBuild(build_id=kept().build_id, reports=(kept(),))
    assert 'href="/r/worker/w1"' in build_page(OLGA, build, "/r").main
    assert "/worker/" not in build_page(ANN, build, "/r").main
    gone = kept(places=(Tally("w9", 1, 1),), slowest=())
    gone_build = FarmBuild(build_id=gone.build_id, reports=(gone,))
    assert "/worker/" not in build_page(OLGA, gone_build, "/r").main


def test_a_principal_without_a_proof_is_shown_as_a_claim() -> None:
    assert "a claim: all have one secret" in shown(kept(is_proved=False))


def test_hostile_names_are_escaped_everywhere_and_a_command_to_copy_runs_nothing_else() -> None:
    odd = kept(f"$(reboot);{EVIL}"[:128], principal=EVIL, commit="")
    for page in (
        builds_page(OLGA, kept_builds(odd), "/r", search=EVIL),
        build_page(OLGA, FarmBuild(build_id=odd.build_id, reports=(odd,)), "/r"),
    ):
        text = read_markup(page.main, TAGS, ATTRIBUTES)
        assert "<img" not in page.main
        assert "onerror=alert" in text
        assert re.findall(r'href="([^"]*)"', page.main)
        assert all(link.startswith("/r/") for link in re.findall(r'href="([^"]*)"', page.main))
    commands = re.findall(r"<code>(hpcc [^<]*)</code>", page.main)
    words = [shlex.split(html.unescape(command)) for command in commands]
    name = odd.summary.build
    assert ["hpcc", "report", "--", name] in words
    assert ["hpcc", "trace", "-o", "build.json", "--", name] in words
    assert ["hpcc", "audit", "list", f"--build={name}"] in words


def test_words_of_a_later_version_and_empty_parts_have_a_page() -> None:
    odd = kept(
        kinds=(Tally("quantum", 3, 5),), causes=(CauseTally("later", "unheard-of", 1, 1),),
        phases=(Tally("entangle", 0, 2),), places=(), activity=(),
        slowest=(SlowCompile(0, 1, "quantum", "unheard-of", "", ""),),
    )  # fmt: skip
    found = shown(odd)
    for part in ("quantum", "later: unheard-of", "entangle", "No client reported it."):
        assert part in found, part
    assert "Everything was." in shown(kept(causes=(), slowest=(), kinds=()))


def test_several_machines_are_one_build_and_the_page_says_so() -> None:
    found = shown(kept(), kept(source="f" * 16, is_damaged=True, left_out=5))
    for part in ("2 machines reported", "whose clocks may differ", "5 compiles are not counted",
                 "damaged or made room"):  # fmt: skip
        assert part in found, part


def test_lanes_are_rows_by_place_with_what_is_not_drawn() -> None:
    build = kept(off_lanes=7)
    page = shown(build)
    drawing = build_page(OLGA, FarmBuild(build_id="", reports=(build,)), "/r").main
    (lanes,) = re.findall(r'<svg class="chart"[^>]*by place.*?</svg>', drawing)
    assert re.findall(r'<rect class="(\w+)" [^>]*y="(\d+)"[^>]*><title>([^<]*)', lanes) == [
        ("farm", "18", "2 compiles, 51.3 s from 7.32 s"),
        ("farm", "27", "1 compile, 14.6 s from 14.6 s"),
        ("fallback", "60", "2 compiles, 29.3 s from 3.66 s"),
    ]
    assert "7 compiles are not drawn" in page
    assert "of an earlier version" in shown(kept(lanes=()))
    assert "Lanes" not in shown(kept(places=(), slowest=()))
    assert "the machines that built" in shown(kept(), kept(source="f" * 16))


def test_a_search_and_pages_of_a_long_list() -> None:
    many = [kept(f"b{n:03}", reported_at=1e9 - n) for n in range(2 * ROWS + 1)]
    every = kept_builds(*many)
    first = builds_page(OLGA, every, "/r").main
    assert "b000" in first
    assert f"b{ROWS:03}" not in first
    assert "farm-builds?q=&amp;page=2" in first
    last = builds_page(OLGA, every, "/r", number=999).main
    assert f"b{2 * ROWS:03}" in last
    assert "No build fits." in builds_page(OLGA, every, "/r", search="zzz").main
    assert "B007".lower() in builds_page(OLGA, every, "/r", search="B007").main


def login(person: str) -> Farm:
    return Farm(
        scheduler="s0:7443", scheduler_certificate_pem="", tenant="acme", principal=person,
        secret="", image=str(IMAGE), isolation="local/none",
    )  # fmt: skip


async def test_browsers_ask_seldom_and_another_login_gets_nothing_of_before() -> None:
    farm, clock = ShownBuilds(kept()), LaterClock()
    seen = BuildsSeen(farm, clock)
    for _ in range(20):
        assert (await seen.builds(login("ann"))).kept == 1
        assert (await seen.build(login("ann"), kept().build_id)).reports
        with pytest.raises(NotFoundError):
            await seen.build(login("ann"), "0" * 32)
    assert (farm.lists, farm.looks) == (1, 2)
    clock.ahead += 2.5
    await seen.builds(login("ann"))
    await seen.build(login("ann"), kept().build_id)
    assert (farm.lists, farm.looks) == (1, 3)
    clock.ahead += 10.5
    await seen.builds(login("ann"))
    assert farm.lists == 2
    farm.kept = kept_builds()
    assert (await seen.builds(login("bob"))).kept == 0
    for number in range(50):
        with pytest.raises(NotFoundError):
            await seen.build(login("bob"), f"{number:032x}")
    farm.is_refused = True
    clock.ahead += 60
    for _ in range(3):
        with pytest.raises(HpccError):
            await seen.builds(login("bob"))
    assert farm.lists == 4


async def test_while_a_scheduler_hangs_other_requests_get_the_list_before() -> None:
    class Hanging(ShownBuilds):
        hangs: asyncio.Event | None = None

        async def builds(self) -> KeptBuilds:
            if self.hangs is not None:
                await self.hangs.wait()
            return await super().builds()

    farm, clock = Hanging(kept()), LaterClock()
    seen = BuildsSeen(farm, clock)
    await seen.builds(login("ann"))
    farm.hangs = asyncio.Event()
    clock.ahead += 60
    first = asyncio.Task(seen.builds(login("ann")))
    await asyncio.sleep(0)
    assert (await seen.builds(login("ann"))).kept == 1
    another = asyncio.Task(seen.builds(login("bob")))
    await asyncio.sleep(0)
    assert not another.done(), "another login waits for what it may see"
    farm.hangs.set()
    assert (await first).kept == (await another).kept == 1
    assert farm.lists == 3
