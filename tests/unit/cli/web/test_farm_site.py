"""The farm's pages: what a login may see and nothing else, escaped, and cheap for schedulers."""

from __future__ import annotations

import asyncio
import html
import re
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import pytest

from hpcc.cli.base.farm_object import FarmObject
from hpcc.cli.web.alerts_page import RUNBOOK
from hpcc.cli.web.farm_site import PLACES, FarmSite
from hpcc.cli.web.parts.farm_parts import MAX_CELLS
from hpcc.cli.web.session import BrowserSession
from hpcc.cli.web.site import Site
from hpcc.cli.web.worker_pages import ROWS
from hpcc.config.farm import Farm as FarmFile
from hpcc.core import CallerError, Digest, HpccError, NotFoundError
from hpcc.core.build_summary import Tally
from hpcc.obs.http.request import Request
from hpcc.obs.http.serve import HttpAnswer
from hpcc.routing.load import LoadSample
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.scheduler.builds import FarmBuild, KeptBuilds
from hpcc.rpc.scheduler.farm_picture import FarmPicture
from hpcc.rpc.scheduler.observe import RouteCount, TenantStatus
from hpcc.rpc.scheduler.recent_events import SeenEvent, SeenEvents
from hpcc.rpc.scheduler.worker_detail import TenantPlaces, WorkerDetail, WorkerImage
from hpcc_testkit.farm.in_process import IMAGE, LaterClock
from hpcc_testkit.services.builds import BEGAN_MS, NoBuilds, kept, kept_builds
from hpcc_testkit.services.pictures import hour, member, picture, status, worker
from hpcc_testkit.suite.markup import read_markup

TAGS = [
    "a", "nav", "link", "script", "polygon", "polyline", "circle", "form", "label", "select",
    "input", "button", "option",
]  # fmt: skip
ATTRIBUTES = [
    "href", "rel", "type", "src", "id", "data-live", "aria-current", "points", "viewbox",
    "preserveaspectratio", "cx", "cy", "r", "method", "action", "value", "maxlength", "size",
    "placeholder", "hidden", "selected", "title",
]  # fmt: skip
AWAY = UnavailableError("no answer <b>in time</b>")
EVIL = "<script>alert(1)</script>"


def login_of(person: str) -> FarmFile:
    return FarmFile(
        scheduler="s0:7443", scheduler_certificate_pem="", tenant="acme", principal=person,
        secret="", image=str(IMAGE), isolation="local/none",
    )  # fmt: skip


class Farm(NoBuilds):
    """Schedulers that show what a test says, and count how often they are asked."""

    def __init__(
        self,
        shows: FarmPicture | HpccError,
        samples: tuple[LoadSample, ...] = (),
        detail: WorkerDetail | HpccError | None = None,
    ) -> None:
        self.shows, self.samples, self.detail = shows, samples, detail or WorkerDetail()
        self.asked = self.hours = self.details = 0
        self.hangs: asyncio.Event | None = None
        self.waits = asyncio.Event()
        self.login: FarmFile | CallerError = login_of("ann")

    def farm(self) -> FarmFile:
        if isinstance(self.login, CallerError):
            raise self.login
        return self.login

    async def picture(self) -> FarmPicture:
        self.asked += 1
        if self.hangs is not None:
            self.waits.set()
            await self.hangs.wait()
        if isinstance(self.shows, HpccError):
            raise self.shows
        return self.shows

    async def history(self) -> tuple[LoadSample, ...]:
        self.hours += 1
        return self.samples

    async def worker(self, worker_id: str) -> WorkerDetail:
        del worker_id
        self.details += 1
        if isinstance(self.detail, HpccError):
            raise self.detail
        return self.detail


class NoObjects:
    """Workers that have no result."""

    async def object(self, action: Digest) -> FarmObject:
        raise NotFoundError(f"no worker has {action}")


class Visitor:
    """A browser that has opened the link, without a browser."""

    def __init__(self, cache: Path, farm: Farm) -> None:
        self.session, self.clock = BrowserSession(), LaterClock()
        pages = FarmSite(farm, NoObjects(), self.session.root, self.clock)
        self.site = Site(str(cache), self.session, self.clock, pages)
        self._cookie = self.session.cookie.partition(";")[0]

    async def ask(self, path: str, tag: str = "") -> HttpAnswer:
        headers = (("cookie", self._cookie), ("if-none-match", tag))
        target = f"{self.session.root}/{path}"
        return await self.site.answer(Request(target=target, is_head=False, headers=headers))

    async def text(self, path: str) -> str:
        answer = await self.ask(path)
        assert answer.status is HTTPStatus.OK, answer
        return read_markup(answer.body.decode("ascii"), TAGS, ATTRIBUTES)

    async def every_page(self) -> dict[str, str]:
        """Follow all links from the root; return the text of each page."""
        seen, ahead = dict[str, str](), [""]
        while ahead:
            path = ahead.pop()
            if path in seen or path.endswith((".css", ".js", ".svg")):
                continue
            seen[path] = await self.text(path)
            found = re.findall(r'href="([^"#]*)"', (await self.ask(path)).body.decode())
            own = f"{self.session.root}/"
            assert all(link.startswith(own) for link in found), found
            ahead += [html.unescape(link.removeprefix(own)) for link in found]
        return seen


async def test_an_operator_reaches_every_page_by_links_and_each_has_its_figures(
    tmp_path: Path,
) -> None:
    drained = worker("w3", drain="draining", drain_seconds=40.0, drain_by="olga",
                     drain_reason="kernel update", running=3)  # fmt: skip
    busy = worker("w1", running=3, queued=2)
    farm = Farm(picture(status(busy, worker("w2", is_stale=True), drained), AWAY), hour([1, 3, 2]))
    seen = await Visitor(tmp_path, farm).every_page()
    assert set(seen) == {
        "", "workers", "worker/w1", "worker/w2", "worker/w3", "tenants", "tenant/acme", "alerts",
        "builds", "cache", "farm-builds", "objects",
    }  # fmt: skip
    assert "1 worker takes compiles; 3 of 4 places are busy, and 2 compiles wait." in seen[""]
    assert "1 of 2 schedulers answered." in seen[""]
    assert "peak 3 in this hour" in seen[""]
    assert "no answer" in seen[""]
    for part in ("draining, 40 s", "olga", "kernel update", "hpcc scheduler drain-worker w3"):
        assert part in seen["worker/w3"], part
    assert "has not reported for too long" in seen["worker/w2"]
    assert "has not reported" not in seen["worker/w1"]
    for code in ("scheduler-silent", "worker-stale", "worker-drained", "HpccWorkerApart"):
        assert code in seen["alerts"], code
    assert "No build is recorded yet" in seen["builds"]


async def test_a_member_sees_its_tenant_and_gets_not_found_for_everything_else(
    tmp_path: Path,
) -> None:
    visitor = Visitor(tmp_path, Farm(picture(member())))
    seen = await visitor.every_page()
    assert set(seen) == {
        "", "workers", "tenants", "tenant/acme", "alerts", "builds", "cache", "farm-builds",
        "objects",
    }  # fmt: skip
    assert "2 workers take compiles, and there is room." in seen[""]
    assert "to operators only" in seen["workers"]
    answers = {
        (await visitor.ask(path)).status
        for path in ("worker/w1", "worker/w1?live=1", "tenant/globex", "tenant/globex?live=1")
    }
    assert answers == {HTTPStatus.NOT_FOUND}


async def test_at_every_address_that_names_something_a_member_finds_nothing_of_others(
    tmp_path: Path,
) -> None:
    others = {
        "worker": "w1", "tenant": "globex", "farm-build": kept(tenant="globex").build_id,
        "object": f"{'ab' * 32}-150",
    }  # fmt: skip
    assert {place for place, is_named in PLACES.items() if is_named} == set(others)
    visitor = Visitor(tmp_path, Farm(picture(member())))
    # The question for objects is a form: it says the same of an object of others as of none.
    assert "no worker has" in await visitor.text(f"object/{others.pop('object')}")
    for place, name in others.items():
        for more in ("", "?live=1"):
            answer = await visitor.ask(f"{place}/{name}{more}")
            assert answer.status is HTTPStatus.NOT_FOUND, place


async def test_a_member_causes_no_question_that_the_farm_would_refuse(tmp_path: Path) -> None:
    farm = Farm(picture(member()), hour([1, 2]))
    visitor = Visitor(tmp_path, farm)
    await visitor.every_page()
    await visitor.ask("worker/w1")
    assert (farm.hours, farm.details) == (0, 0)


async def test_a_worker_has_its_images_and_the_tenants_that_have_places_there(
    tmp_path: Path,
) -> None:
    places = TenantPlaces(tenant="acme", wanted=6, granted=4, held=5, principals=2)
    image = WorkerImage("sha256:" + "ab" * 32, ("gcc 14.2.0", EVIL))
    farm = Farm(picture(status(worker("w1", images=7))), (), WorkerDetail((image,), (places,)))
    visitor = Visitor(tmp_path, farm)
    said = await visitor.text("worker/w1")
    for part in ("sha256:abab", "gcc 14.2.0", EVIL, "1 of 7", "acme"):
        assert part in said, part
    await visitor.ask("worker/w1?live=1")
    assert farm.details == 1, "a picture's worker is asked for once"
    visitor.clock.ahead += 3.0
    await visitor.ask("worker/w1?live=1")
    assert farm.details == 2
    farm.detail = AWAY
    visitor.clock.ahead += 3.0
    assert "No scheduler shows them now." in await visitor.text("worker/w1")


async def test_a_worker_has_what_it_says_of_its_machine_and_one_that_says_nothing_has_none(
    tmp_path: Path,
) -> None:
    says = worker(
        "w1", version=EVIL, load=1.25, up_seconds=90_000.0, heard_seconds=2.0,
        store_bytes=1 << 30, store_limit_bytes=4 << 30, wait_p95_seconds=1.5, waits=20,
    )  # fmt: skip
    visitor = Visitor(tmp_path, Farm(picture(status(says))))
    assert "95 of 100 waited at most 1.50 s, at w1 the longest" in await visitor.text("")
    assert "20 in ten minutes" in await visitor.text("worker/w1")
    for part in (EVIL, "125 %", "25 %", "1 d", "2 s", "1.50 s"):
        assert part in await visitor.text("workers"), part
    for part in (EVIL, "1.25", "1,024 of 4,096 MiB", "1 d"):
        assert part in await visitor.text("worker/w1"), part
    assert "1,024 MiB" in await visitor.text("cache")
    silent = Visitor(tmp_path, Farm(picture(status(worker("w2")))))
    assert "%" not in (await silent.text("workers")).partition("w2")[2]
    assert "No worker has told of its store." in await silent.text("cache")
    member_pages = Visitor(tmp_path, Farm(picture(member())))
    assert "Stores of workers" not in await member_pages.text("cache")


@pytest.mark.parametrize("path", ["workers/", "worker", "tenants/x", "alerts/1", "builds/", "x"])
async def test_an_address_of_nothing_is_not_found_and_asks_nobody(
    tmp_path: Path, path: str
) -> None:
    farm = Farm(picture(status(worker("w1"))))
    assert (await Visitor(tmp_path, farm).ask(path)).status is HTTPStatus.NOT_FOUND
    assert farm.asked == 0


async def test_no_text_of_a_scheduler_becomes_markup(tmp_path: Path) -> None:
    evil = worker(
        "w1", endpoint=EVIL, isolation=EVIL, drain="drained", drain_by=EVIL, drain_reason=EVIL
    )
    tenants = (TenantStatus(tenant=EVIL), TenantStatus(tenant='x" onclick="x'))
    said = status(evil, version=EVIL, tenants=tenants)
    seen = await Visitor(tmp_path, Farm(picture(said, UnavailableError(EVIL)))).every_page()
    assert EVIL in seen[""]
    assert EVIL in seen["worker/w1"]
    assert not [path for path in seen if path.startswith("tenant/")], "no link to no tenant"
    refused = Visitor(tmp_path, Farm(CallerError(EVIL, reason="login-ended")))
    assert EVIL in await refused.text("")


async def test_a_login_that_is_refused_is_a_sentence_and_the_page_recovers(tmp_path: Path) -> None:
    farm = Farm(CallerError("your login has ended", reason="login-ended"))
    visitor = Visitor(tmp_path, farm)
    for path in ("", "workers", "worker/w1", "tenant/acme", "alerts"):
        said = await visitor.text(path)
        assert "your login has ended" in said
        assert "hpcc login" in said
    farm.shows = picture(status(worker("w1")))
    visitor.clock.ahead += 60.0
    assert "1 worker takes compiles" in await visitor.text("")


async def test_nothing_is_shown_of_a_login_that_is_over_or_was_another_ones(
    tmp_path: Path,
) -> None:
    farm = Farm(picture(status(worker("w1"))), hour([1, 2]))
    visitor = Visitor(tmp_path, farm)
    assert "ann · acme" in await visitor.text("")
    farm.login = CallerError("no farm: run `hpcc login`", reason="login-none")
    for path in ("", "workers", "worker/w1"):
        said = await visitor.text(path)
        assert "no farm" in said
        assert "w1" not in said
        assert "ann" not in said
    farm.login, farm.shows = login_of("zed"), picture(member())
    said = await visitor.text("")
    assert "zed · acme" in said
    assert "w1" not in said
    assert "Between 1 and 2" not in (await visitor.ask("")).body.decode()


async def test_all_pages_of_two_seconds_share_one_question_and_a_large_farm_is_asked_less_often(
    tmp_path: Path,
) -> None:
    farm = Farm(picture(status(worker("w1"))), hour([1, 2]))
    visitor = Visitor(tmp_path, farm)
    for _ in range(3):
        for path in ("", "workers", "tenants", "alerts"):
            await visitor.ask(f"{path}?live=1")
    assert (farm.asked, farm.hours) == (1, 1)
    visitor.clock.ahead += 3.0
    await visitor.ask("")
    assert (farm.asked, farm.hours) == (2, 1), "a sample is ten seconds apart from the next"
    farm.shows = picture(status(*(worker(f"w{number:04}") for number in range(2000))))
    visitor.clock.ahead += 60.0
    for _ in range(6):
        await visitor.ask("")
        visitor.clock.ahead += 3.0
    assert (farm.asked, farm.hours) == (3, 2)


async def test_while_a_scheduler_hangs_other_requests_get_the_picture_before(
    tmp_path: Path,
) -> None:
    farm = Farm(picture(status(worker("w1"))))
    visitor = Visitor(tmp_path, farm)
    await visitor.ask("")
    farm.hangs = asyncio.Event()
    visitor.clock.ahead += 60.0
    first = asyncio.Task(visitor.ask(""))
    await farm.waits.wait()
    assert "1 worker takes compiles" in await visitor.text("alerts")
    farm.hangs.set()
    await first
    assert farm.asked == 2


async def test_a_live_page_changes_with_the_farm_and_else_costs_no_content(tmp_path: Path) -> None:
    farm = Farm(picture(status(worker("w1"))))
    visitor = Visitor(tmp_path, farm)
    tag = dict((await visitor.ask("?live=1")).headers)["ETag"]
    same = await visitor.ask("?live=1", tag)
    assert (same.status, same.body) == (HTTPStatus.NOT_MODIFIED, b"")
    farm.shows = picture(status(worker("w1", running=4)))
    visitor.clock.ahead += 60.0
    changed = await visitor.ask("?live=1", tag)
    assert changed.status is HTTPStatus.OK
    assert b"4 of 4 places are busy" in changed.body
    assert b"<html" not in changed.body


async def test_a_large_farm_comes_in_pages_and_a_large_worker_as_a_bar(tmp_path: Path) -> None:
    many = [worker(f"w{number:04}") for number in range(2 * ROWS + 1)]
    many[0] = worker("w0000", capacity=1 << 32, running=1 << 31)
    visitor = Visitor(tmp_path, Farm(picture(status(*many))))
    found = set[str]()
    for number in range(1, 4):
        page = (await visitor.ask(f"workers?page={number}")).body.decode()
        names = set(re.findall(r"/worker/(w\d+)", page))
        assert len(names) <= ROWS
        found |= names
    assert found == {w.worker_id for w in many}
    assert "w0200" in await visitor.text("workers?page=999999")
    first = (await visitor.ask("worker/w0000")).body
    assert len(first) < 10_000 + 200 * MAX_CELLS
    front = (await visitor.ask("")).body.decode()
    assert len(set(re.findall(r"/worker/(w\d+)", front))) == 20


async def test_the_hour_is_drawn_without_what_no_sample_says(tmp_path: Path) -> None:
    before, after = hour([1, 2, 3]), hour([4, 5])
    later = tuple(LoadSample(s.at + 600.0, s.load) for s in after)
    visitor = Visitor(tmp_path, Farm(picture(status(worker("w1"))), before + later))
    page = (await visitor.ask("")).body.decode()
    lines = re.findall(r'<polyline class="line l-free" points="([^"]*)"', page)
    assert [len(line.split()) for line in lines] == [3, 2], "a gap is no line"
    assert "Between 1 and 5 places were busy, of 8 at most" in page
    visitor = Visitor(tmp_path, Farm(picture(status(worker("w1"))), hour([1])))
    assert "a sample every ten seconds" in await visitor.text("")


async def test_routes_that_were_refused_have_their_share_and_what_to_do(tmp_path: Path) -> None:
    reasons = tuple(RouteCount(f"reason-{number:02}", 1) for number in range(20))
    acme = TenantStatus(
        tenant="acme", routes=(*reasons, RouteCount("no-worker", 30), RouteCount("ok", 50))
    )
    globex = TenantStatus(tenant="globex", routes=(RouteCount("ok", 100),))
    visitor = Visitor(tmp_path, Farm(picture(status(worker("w1"), tenants=(acme, globex)))))
    front = await visitor.text("")
    assert "50 of 200 requests, since the schedulers started" in front
    assert "15.0 %" in front
    assert "Prepare it on one." in front
    assert "13 more reasons, 13 requests" in front
    assert "Each of 100 requests for a route had one." in await visitor.text("tenant/globex")
    assert "50.0 %" in await visitor.text("tenant/acme")
    # A tenant beyond the 64 that a scheduler counts by name is shown as one without a request.
    initech = TenantStatus(tenant="initech", daemons=3)
    visitor = Visitor(tmp_path, Farm(picture(status(worker("w1"), tenants=(initech,)))))
    assert "counts 64 tenants by name" in await visitor.text("tenant/initech")


def test_each_warning_with_an_entry_in_the_runbook_names_one_that_exists() -> None:
    runbook = (Path(__file__).parents[4] / "docs/runbook.md").read_text()
    entries = set(re.findall(r"^## (Hpcc\w+)$", runbook, re.M))
    assert set(RUNBOOK.values()) <= entries


async def test_a_page_claims_nothing_of_builds_that_it_does_not_know(tmp_path: Path) -> None:
    class Builds(Farm):
        def __init__(self, shows: FarmPicture, said: KeptBuilds | HpccError) -> None:
            super().__init__(shows)
            self.said = said

        async def builds(self) -> KeptBuilds:
            if isinstance(self.said, HpccError):
                raise self.said
            return self.said

    def farm(said: KeptBuilds | HpccError) -> Visitor:
        return Visitor(tmp_path, Builds(picture(status(worker("w1"))), said))

    away, off = farm(UnavailableError("away")), farm(kept_builds(keep_seconds=0))
    for visitor, why in ((away, "builds are not shown"), (off, "this farm keeps no builds")):
        front, cache = await visitor.text(""), await visitor.text("cache")
        assert front.count(f"Nothing is known of it: {why}.") == 5
        assert cache.count(f"Nothing is known of it: {why}.") == 2
        for page in (front, cache):
            assert "No client has told" not in page
            assert "no client told" not in page
            assert "The farm did each" not in page
    assert "The farm did each" not in await farm(kept_builds()).text(""), "there is no compile"
    now = BEGAN_MS / 1000 + 100.0
    served = kept(reported_at=now, causes=(), kinds=(Tally("hit", 5, 9),))
    told = kept_builds(served, since=now - 600.0, kept=9, silent=1)
    shown = picture(status(worker("w1"), at=now))
    visitor = Visitor(tmp_path, Builds(shown, said=told))
    for page in (await visitor.text(""), await visitor.text("cache")):
        assert "Builds are known since" in page
        assert "1 scheduler showed nothing" in page
        assert "8 older reports are kept" in page
    assert "The farm did each" in await visitor.text("")
    older = replace(told, since=now - 90_000.0, kept=1, silent=0)
    assert "Builds are known" not in await Visitor(tmp_path, Builds(shown, said=older)).text("")


async def test_security_events_are_on_an_operators_pages_escaped_and_asked_for_with_the_load(
    tmp_path: Path,
) -> None:
    class Events(Farm):
        asked_events = 0

        async def events(self) -> SeenEvents:
            self.asked_events += 1
            one = SeenEvent(name="login-refused", at=9.0, peer=EVIL, fields=(("reason", EVIL),))
            lost = SeenEvent(name="guest-lost", at=8.0, worker="w1")
            odd = SeenEvent(name=EVIL, at=7.0, worker=EVIL)
            return SeenEvents(5.0, (one,) * 12, 1, (lost, lost, lost, lost, lost, odd))

    farm = Events(picture(status(worker("w1"))))
    visitor = Visitor(tmp_path, farm)
    front, alerts = await visitor.text(""), await visitor.text("alerts")
    # Half of the rows are for workers, and a worker that says much hides no other.
    assert (front.count("login-refused"), front.count("guest-lost")) == (4, 3)
    assert (alerts.count("login-refused"), alerts.count("guest-lost")) == (12, 5)
    assert front.count(EVIL) == 4 * 2 + 2
    own = await visitor.text("worker/w1")
    assert (own.count("guest-lost"), own.count(EVIL)) == (5, 0)
    assert f"reason {EVIL}" in front
    assert "1 of the schedulers show none" in alerts
    assert (farm.hours, farm.asked_events) == (1, 1)
    farm.shows = picture(member())
    visitor.clock.ahead += 3.0
    for path in ("", "alerts"):
        page = await visitor.text(path)
        assert "login-refused" not in page
        assert "guest-lost" not in page
    assert farm.asked_events == 1
    quiet = await Visitor(tmp_path, Farm(picture(status(worker("w1"))))).text("alerts")
    assert "No scheduler shows events." in quiet


@pytest.mark.parametrize("wrong_seconds", [-90_000.0, 90_000.0])
async def test_a_viewer_whose_clock_is_wrong_loses_no_build(
    tmp_path: Path, wrong_seconds: float
) -> None:
    class Builds(Farm):
        async def builds(self) -> KeptBuilds:
            return kept_builds(served, since=now - 600.0)

        async def build(self, build_id: str) -> FarmBuild:
            return FarmBuild(build_id=build_id, reports=(served,))

    now = BEGAN_MS / 1000 + 100.0
    served = kept(reported_at=now, causes=(), kinds=(Tally("hit", 5, 9),))
    # Another scheduler's clock is a little behind.
    said = status(worker("w1"), at=now), status(worker("w1"), at=now - 60.0)
    shown = replace(picture(*said), at=now + wrong_seconds)
    visitor = Visitor(tmp_path, Builds(shown))
    front = await visitor.text("")
    assert "5 of 5" in front
    assert "reports now" in front
    assert "reports now" in await visitor.text(f"farm-build/{served.build_id}")


async def test_a_system_without_a_load_has_none_and_an_idle_one_has_it(tmp_path: Path) -> None:
    idle = worker("w1", version="7.7.7")
    windows = worker("w2", version="7.7.7", isolation="hyperv")
    visitor = Visitor(tmp_path, Farm(picture(status(idle, windows))))
    said = (await visitor.text("workers")).partition("w2")
    assert "0 %" in said[0]
    assert "%" not in said[2]
    assert "Load for each processor" in await visitor.text("worker/w1")
    assert "Load for each processor" not in await visitor.text("worker/w2")
