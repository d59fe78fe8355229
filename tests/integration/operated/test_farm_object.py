"""`hpcc farm object` and the page: what a real worker gives, checked, to whom it may."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc.core import RemoteInput, RemoteRequest, RemoteResult, TenantId
from hpcc.dispatch.remote import start_remote
from hpcc.scheduler.tenants.sharing import TenantSharing
from hpcc_testkit.farm.in_process import farm_under_test
from hpcc_testkit.services.browser import browser, check_page, missing_or_none
from hpcc_testkit.services.web import Fetched, web_pages
from hpcc_testkit.suite.people import environment, hpcc, tenants

pytestmark = pytest.mark.timeout(180)


def compiled(env: dict[str, str], tree: Path) -> RemoteResult:
    """Compile one unit on the farm as a person; return the result."""
    tree.mkdir()
    (tree / "a.c").write_text("int a(void) { return 1; }\n")
    client = start_remote(Paths.from_env(env), Settings())
    try:
        request = RemoteRequest(
            argv=("sh", "-c", "cat a.c > out/a.o"), env=(("PATH", "/usr/bin:/bin"),), cwd="",
            inputs=(RemoteInput("a.c", str(tree / "a.c"), False),), outputs=("out/a.o",),
            client_version="t", build="release-7",
        )  # fmt: skip
        outcome = client.compile(request, lambda: False)
        assert isinstance(outcome, RemoteResult), outcome
        return outcome
    finally:
        client.close()


def checks(document: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["state"] for check in document["checks"]}


async def test_an_object_is_shown_to_whom_it_may_serve_and_to_nobody_else(tmp_path: Path) -> None:
    table, people = tmp_path / "tenants.toml", tenants("acme", "globex", "initech")
    initech = TenantId("initech")
    private = TenantSharing(share="private")
    people.policies[initech] = replace(people.policies[initech], sharing=private)
    async with (
        farm_under_test(tmp_path, tenants=table, authenticator=people) as farm,
        farm.serving(),
    ):
        ann, bob, zed, mia, tom = (
            environment(farm, who)
            for who in ("acme/ann", "acme/bob", "globex/zed", "initech/mia", "initech/tom")
        )
        result = await asyncio.to_thread(compiled, ann, tmp_path / "tree")
        action = result.action

        async def asked(
            env: dict[str, str], *more: str, action: str = action
        ) -> tuple[int, str, str]:
            return await asyncio.to_thread(hpcc, env, "farm", "object", action, *more)

        code, out, err = await asked(ann, "--json")
        assert code == 0, err
        found = json.loads(out)
        (row,) = [r for r in farm.audit.rows if r.cache_status == "executed"]
        assert (found["action"], found["guest"], found["worker"]) == (action, row.guest_id, "w1")
        assert found["command"] == ["sh", "-c", "cat a.c > out/a.o"]
        assert [o["path"] for o in found["outputs"]] == ["out/a.o"]
        states = checks(found)
        assert states["Audit row"] == "unknown"
        assert {states[n] for n in ("Signature", "Bytes", "Isolation", "Guest", "Toolchain")} == {
            "holds"
        }
        # Who looks gets the result, and the trail a row.
        assert [r.principal for r in farm.audit.rows if r.cache_status == "hit"] == ["ann"]
        code, text, _ = await asked(ann)
        assert code == 0
        assert f"hpcc audit query --action={action}" in text

        # Its guest was fresh, and acme accepts that: it serves a colleague, who sees why.
        code, out, err = await asked(bob, "--json")
        assert (code, json.loads(out)["class"]) == (0, "fresh"), err
        assert json.loads(out)["audit_row"] == row.row_id

        # A colleague's private result, and another tenant's, are as if there were none.
        hidden = (await asyncio.to_thread(compiled, mia, tmp_path / "other")).action
        code, out, err = await asked(mia, "--json", action=hidden)
        assert (code, json.loads(out)["class"]) == (0, "private"), err
        for other, what in ((tom, hidden), (zed, action)):
            code, out, err = await asked(other, "--json", action=what)
            assert (code != 0, out) == (True, ""), err
            assert "no worker has a result of this action that may serve you" in err

        # The page has the same, and asks with the person's own login.
        page, missing = await asyncio.to_thread(pages, ann, zed, action)
        assert "that are seen hold" in page
        assert "out/a.o" in page
        assert "no worker has a result" in missing
        assert "out/a.o" not in missing


def pages(ann: dict[str, str], zed: dict[str, str], action: str) -> tuple[str, str]:
    """Return the page of an action as two people get it."""
    found = []
    for env in (ann, zed):
        with web_pages(env, local=False) as link:
            client = Fetched(link)
            name = action.replace("/", "-")
            found.append(client.page(f"{client.root}/object/{name}")[0])
    return found[0], found[1]


@pytest.mark.skipif(bool(missing_or_none()), reason=missing_or_none() or "it is here")
async def test_the_page_of_an_object_is_quiet_readable_and_reached_by_keyboard(
    tmp_path: Path,
) -> None:
    table, people = tmp_path / "tenants.toml", tenants("acme")

    def visit(env: dict[str, str], action: str) -> None:
        with web_pages(env, local=False) as link, browser() as chromium:
            root = link.partition("open?")[0]
            chromium.do("open", url=link)
            chromium.do("open", url=f"{root}object/{action.replace('/', '-')}")
            chromium.do("wait", text="that are seen hold")
            check_page(chromium, rules=True, name="web-object")
            time.sleep(1.1)  # the pages put one question a second to workers
            chromium.do("open", url=f"{root}object/{'0' * 64}-1")
            chromium.do("wait", text="no worker has a result")
            check_page(chromium, rules=True)

    async with (
        farm_under_test(tmp_path, tenants=table, authenticator=people) as farm,
        farm.serving(),
    ):
        ann = environment(farm, "acme/ann")
        result = await asyncio.to_thread(compiled, ann, tmp_path / "tree")
        await asyncio.to_thread(visit, ann, result.action)
