"""`hpcc web` of a real farm: who sees what, in the real Chromium and without one."""

from __future__ import annotations

import asyncio
import http.client
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.config.paths import Paths
from hpcc.core import Isolation, PolicyError, TenantId
from hpcc.core.build_summary import BuildSummary
from hpcc.rpc.scheduler.api import RouteAsk
from hpcc.rpc.scheduler.builds import build_id_of, send_build
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc.scheduler.tenants.table import TenantPolicy, TenantQuotas
from hpcc_testkit.farm.in_process import IMAGE, TENANT, FarmUnderTest, farm_under_test
from hpcc_testkit.farm.policies import TenantsAuthenticator
from hpcc_testkit.farm.several import workers
from hpcc_testkit.services.browser import browser, check_page, missing_or_none
from hpcc_testkit.services.builds import summary
from hpcc_testkit.services.web import Fetched, statuses, web_pages

pytestmark = pytest.mark.timeout(300)
SECRET = build_id_of("acme", "ann", "secret-product")
ODD = (
    "<script>alert(1)</script>-a-name-that-is-as-long-as-a-name-can-be-and-has-no-space-" + "x" * 40
)
# Pages of which docs/images has pictures.
_PICTURES = {"farm-builds": "web-builds", f"farm-build/{SECRET}": "web-farm-build"}
PATHS = (
    "worker/w1", "tenant/acme", "workers?page=2", f"farm-build/{SECRET}",
    f"farm-build/{SECRET}/compare", f"farm-build/{SECRET}/compare/{SECRET}",
)  # fmt: skip


def policy(name: str) -> TenantPolicy:
    return TenantPolicy(
        tenant=TenantId(name), identity=None, images=(), minimum_isolation=Isolation.LOCAL_NONE,
        quotas=TenantQuotas(),
    )  # fmt: skip


@asynccontextmanager
async def two_tenants(directory: Path) -> AsyncIterator[FarmUnderTest]:
    """Run a farm of two tenants, whose one operator is Olga."""
    authenticator = TenantsAuthenticator(policy(TENANT.value), policy("globex"))
    async with farm_under_test(
        directory, tenants=directory / "tenants.toml", authenticator=authenticator,
        operators=("acme/olga",),
    ) as farm:  # fmt: skip
        yield farm


@contextmanager
def pages_of(farm: FarmUnderTest, who: str) -> Iterator[str]:
    """Run `hpcc web` as a person of a tenant, `tenant/person`; yield its link."""
    tenant, person = who.split("/")
    env = {"HPCC_DIR": str(farm.directory / "homes" / who), "PATH": os.environ["PATH"]}
    paths = Paths.from_env(env)
    paths.state.mkdir(parents=True, exist_ok=True)
    paths.farm_file.write_text(replace(farm.farm(person), tenant=tenant).to_json())
    paths.farm_file.chmod(0o600)
    with web_pages(env, local=False) as link:
        yield link


async def report(farm: FarmUnderTest, who: str, build: BuildSummary) -> None:
    """Report a build as a person of a tenant."""
    async with farm.logged_in(who) as (schedulers, session):
        await send_build(schedulers, session, TenantId(who.partition("/")[0]), build)


def every_page(link: str) -> tuple[dict[str, str], Callable[[str], int]]:
    """Follow all links of the pages; return the pages by path, and how to ask for another one."""
    client = Fetched(link)
    seen, ahead = dict[str, str](), [f"{client.root}/"]
    while ahead:
        target = ahead.pop()
        path = target.removeprefix(f"{client.root}/")
        if path not in seen and not path.endswith((".css", ".svg")):
            seen[path], links = client.page(target)
            ahead += [there for there in links if not there.startswith("#")]
    return seen, lambda path: client.ask(f"{client.root}/{path}")[0].status


async def test_an_operator_sees_the_farm_and_a_member_nothing_of_others(tmp_path: Path) -> None:
    def visit(who: str) -> tuple[dict[str, str], list[int]]:
        with pages_of(farm, who) as link:
            seen, ask = every_page(link)
            return seen, [ask(p) for p in PATHS]

    async with two_tenants(tmp_path) as farm, workers(farm, "w1", "w2", slots=2):
        await report(farm, "acme/ann", summary("secret-product"))
        async with farm.logged_in("acme/ann") as (schedulers, session):
            ask = RouteAsk(tenant=TenantId("globex"), image=IMAGE)
            with pytest.raises(PolicyError):
                await SchedulerClient(schedulers).route(session, ask)
        seen, found = await asyncio.to_thread(visit, "acme/olga")
        for path in ("", "alerts"):
            assert "foreign-tenant" in seen[path]
            assert "ipv4:127.0.0.1" in seen[path], "who called"
        assert {
            "", "workers", "worker/w1", "worker/w2", "tenants", "alerts", "builds", "cache", "farm-builds",
            f"farm-build/{SECRET}", f"farm-build/{SECRET}/compare",
        } <= set(seen)  # fmt: skip
        assert "2 workers take compiles; 0 of 4 places are busy" in seen[""]
        assert found[0] == http.client.OK
        seen, found = await asyncio.to_thread(visit, "globex/zed")
        while "No worker takes compiles." in seen[""]:  # what members see is a second old
            await asyncio.sleep(0.2)
            seen, found = await asyncio.to_thread(visit, "globex/zed")
        assert set(seen) == {
            "", "workers", "tenants", "tenant/globex", "alerts", "builds", "cache", "farm-builds",
            "objects",
        }  # fmt: skip
        assert "2 workers take compiles, and there is room." in seen[""]
        assert found[:2] == [http.client.NOT_FOUND] * 2
        assert found[3:] == [http.client.NOT_FOUND] * 3, "nor that there is such a build"
        assert not [path for path, page in seen.items() if "w1" in page or "acme" in page]
        assert not [path for path, page in seen.items() if "foreign-tenant" in page]


async def test_a_login_that_the_farm_refuses_and_a_farm_that_is_away_are_sentences(
    tmp_path: Path,
) -> None:
    def front(who: str) -> str:
        with pages_of(farm, who) as link:
            client = Fetched(link)
            return client.page(f"{client.root}/")[0]

    async with farm_under_test(tmp_path) as farm:
        port = farm.scheduler.port
        assert "hpcc login" in await asyncio.to_thread(front, "other/ann")
    farm.scheduler = replace(farm.scheduler, port=port)
    assert "No scheduler answers." in await asyncio.to_thread(front, "acme/ann")


@pytest.mark.skipif(bool(missing_or_none()), reason=missing_or_none() or "it is here")
async def test_every_page_of_a_farm_is_quiet_readable_and_reached_by_keyboard_and_follows_it(
    tmp_path: Path,
) -> None:
    going = asyncio.get_running_loop()

    def visit() -> None:
        with pages_of(farm, "acme/olga") as link, browser() as chromium:
            root = link.partition("open?")[0]
            chromium.do("open", url=link)
            chromium.do("wait", text="1 worker takes compiles")
            assert chromium.do("wait", text="live")["url"] == root
            check_page(chromium, rules=True)
            odd = f"farm-build/{build_id_of('acme', 'ann', ODD)}"
            pair = f"{odd}/compare/{SECRET}"
            builds = ("farm-builds", f"farm-build/{SECRET}", odd, f"{odd}/compare", pair)
            for path in (
                "workers",
                "worker/w1",
                "tenants",
                "tenant/acme",
                "alerts",
                "objects",
                *builds,
            ):
                chromium.do("open", url=f"{root}{path}")
                check_page(chromium, rules=True, name=_PICTURES.get(path, ""))

            # A second worker comes. What is chosen and not sent yet stays, also at the button.
            chromium.do("open", url=root)
            chromium.do("choose", css="main select[name='hours']", value="24")
            chromium.do("focus", css="main form button")
            going.call_soon_threadsafe(more.set)
            assert there.wait(60)
            assert (
                "1 worker takes" in chromium.do("wait", text="paused: a form has the focus")["text"]
            )
            assert chromium.do("value", css="main select[name='hours']") == "24"
            # Live: the focus stays where it was, of two links to one place at the same one.
            build = f"main a[href$='{SECRET}']"
            chromium.do("focus", css=build, number=1)
            chromium.do("wait", text="2 workers take compiles")
            assert chromium.do("place", css=build) == 1
            chromium.do("wait", text="live")
            assert chromium.do("log") == []

            # Without scripts all but that is the same.
            chromium.do("script", on=False)
            assert "2 workers take compiles" in chromium.do("open", url=root)["text"]
            assert statuses(link) == [403, 403]

    async with two_tenants(tmp_path) as farm, workers(farm, "w1", slots=2):
        # A tenant has a page once it has asked for something.
        await farm.route()
        await report(farm, "acme/ann", summary("secret-product"))
        await report(farm, "acme/ann", summary(ODD, causes=(), places=(), activity=()))
        more, there = asyncio.Event(), threading.Event()
        async with asyncio.TaskGroup() as group:
            visiting = group.create_task(asyncio.to_thread(visit))
            await more.wait()
            async with workers(farm, "w2", slots=2):
                there.set()
                await visiting
