"""Builds of a whole farm: a real daemon reports, real schedulers keep, and who may sees them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc.core import (
    CallerError,
    NotFoundError,
    PolicyError,
    RemoteInput,
    RemoteRequest,
    RemoteResult,
    TenantId,
)
from hpcc.core.build_summary import NO_DISPATCHER, NO_REPORTS
from hpcc.dispatch.remote import start_remote
from hpcc.rpc.base.errors import BusyError, UnauthenticatedError
from hpcc.rpc.scheduler.builds import ask_build, ask_builds, build_id_of, by_build, send_build
from hpcc_testkit.cache.launcher import build_launcher, stop_daemon
from hpcc_testkit.farm.in_process import TENANT, FarmUnderTest, farm_under_test
from hpcc_testkit.services.builds import summary
from hpcc_testkit.suite.people import environment, hpcc, tenants

pytestmark = pytest.mark.timeout(300)
GLOBEX = TenantId("globex")
EVIL = "<script>alert(1)</script>"


@asynccontextmanager
async def two_tenants(directory: Path) -> AsyncIterator[FarmUnderTest]:
    """Run a farm of two tenants, whose one operator is Olga."""
    async with farm_under_test(
        directory, tenants=directory / "tenants.toml", authenticator=tenants("acme", "globex"),
        operators=("acme/olga",),
    ) as farm:  # fmt: skip
        yield farm


def document(env: dict[str, str], *words: str) -> dict[str, Any]:
    code, out, err = hpcc(env, "farm", *words, "--json")
    assert code == 0, err
    return json.loads(out)  # type: ignore[no-any-return]  # JSON


def build_with_a_daemon(env: dict[str, str], launcher: Path, tree: Path) -> dict[str, Any]:
    """Build five units twice with one daemon, which is then stopped; return its own report."""
    tree.mkdir()
    for number in range(5):
        (tree / f"secret{number}.c").write_text(f"int f{number}(void) {{ return {number}; }}\n")
    old = time.time() - 3600
    for path in tree.iterdir():
        os.utime(path, (old, old))
    try:
        assert hpcc(env, "start")[0] == 0
        for _ in range(2):
            for number in range(5):
                argv = [launcher, "gcc", "-c", f"secret{number}.c"]
                subprocess.run(
                    argv, cwd=tree, env={**env, "HPCC_BUILD": "release-7"}, check=True, timeout=60
                )
    finally:
        stop_daemon(env)
    code, out, err = hpcc(env, "report", "release-7", "--json")
    assert code == 0, err
    return json.loads(out)  # type: ignore[no-any-return]  # JSON


async def test_a_real_build_is_seen_by_its_tenant_and_operators_and_has_no_name_of_a_file(
    tmp_path: Path,
) -> None:
    launcher = await asyncio.to_thread(build_launcher, tmp_path / "bin")
    async with two_tenants(tmp_path) as farm, farm.serving():
        ann, olga, zed = (environment(farm, w) for w in ("acme/ann", "acme/olga", "globex/zed"))
        report = await asyncio.to_thread(build_with_a_daemon, ann, launcher, tmp_path / "tree")
        assert report["compiles"] == 10
        for who in (ann, olga):
            found = await asyncio.to_thread(document, who, "builds")
            (build,) = found["builds"]
            assert (build["build"], build["tenant"], build["principal"]) == (
                "release-7", "acme", "ann",
            )  # fmt: skip
            assert build["is_principal_proved"]
            assert build["counts"] == {k: n for k, n in report["counts"].items() if n}
            whole = await asyncio.to_thread(document, who, "build", build["id"])
            assert whole["compiles"] == 10
            assert [c["reason"] for c in whole["causes"]] == [c["reason"] for c in report["causes"]]
            bars = [bar for lane in whole["lanes"] for bar in lane["bars"]]
            compiled = sum(
                report["counts"].get(k, 0) for k in ("farm", "here", "not-kept", "failed")
            )
            assert sum(bar["compiles"] for bar in bars) + whole["not_in_lanes"] == compiled > 0
            same = await asyncio.to_thread(
                document, who, "build", build["id"], "--compare", build["id"]
            )
            assert {row["change"] for row in (*same["ends"], *same["causes"])} == {"same"}
            assert same["now"]["compiles"] == 10
            for name in ("secret", str(tmp_path), "/"):
                assert name not in json.dumps(whole), name
        code, text, _ = await asyncio.to_thread(hpcc, ann, "farm", "builds")
        assert code == 0
        assert "release-7" in text

        nothing = await asyncio.to_thread(document, zed, "builds")
        assert nothing["builds"] == []
        code, text, err = await asyncio.to_thread(
            hpcc, ann, "farm", "build", build["id"], "--compare", build["id"]
        )
        assert (code, err) == (0, "")
        assert "from a cache" in text
        code, out, err = await asyncio.to_thread(hpcc, zed, "farm", "build", build["id"])
        assert (code != 0, out) == (True, "")
        assert "no build of this id" in err
        assert "release-7" not in err


async def test_who_asks_for_another_tenants_builds_or_without_a_session_gets_nothing(
    tmp_path: Path,
) -> None:
    async with two_tenants(tmp_path) as farm, farm.logged_in("acme/ann") as (to, ann):
        await send_build(to, ann, TENANT, summary("secret-product"))
        secret = build_id_of("acme", "ann", "secret-product")
        async with farm.logged_in("globex/zed") as (other, zed):
            # With its session it cannot name another tenant, whatever it asks or tells.
            for call in (
                ask_builds(other, zed, TENANT), ask_build(other, zed, TENANT, secret),
                send_build(other, zed, TENANT, summary("forged")),
            ):  # fmt: skip
                with pytest.raises(PolicyError) as refused:
                    await call
                assert refused.value.reason == "foreign-tenant"
            with pytest.raises(NotFoundError):
                await ask_build(other, zed, GLOBEX, secret)
            # Its forgery is its own: under its tenant and its name.
            await send_build(other, zed, GLOBEX, summary("secret-product", kinds=()))
            found = await ask_builds(other, zed, GLOBEX)
            assert [(b.tenant, b.principal) for b in found.builds] == [("globex", "zed")]
        with pytest.raises(UnauthenticatedError):
            await ask_builds(to, "no-session", TENANT)
        with pytest.raises(UnauthenticatedError):
            await send_build(to, ann[:-2], TENANT, summary())
        (own,) = by_build((await ask_builds(to, ann, TENANT)).builds)
        assert own.summary.compiles == 14
        async with farm.logged_in("acme/olga") as (there, olga):
            both = await ask_builds(there, olga, TENANT)
            assert {b.tenant for b in both.builds} == {"acme", "globex"}


async def test_a_flood_is_refused_and_a_hostile_summary_is_not_kept(tmp_path: Path) -> None:
    async with two_tenants(tmp_path) as farm, farm.logged_in("acme/ann") as (to, ann):
        good = summary("<b>bold</b>")
        await send_build(to, ann, TENANT, good)
        for field, value in (("build", EVIL * 20), ("source", EVIL), ("commit", "../..")):
            bad = summary()
            object.__setattr__(bad, field, value)  # past the checks of this end
            with pytest.raises(CallerError):
                await send_build(to, ann, TENANT, bad)
        (one,) = (await ask_builds(to, ann, TENANT)).builds
        assert one.summary == good.head()
        refused = list[str]()

        async def flood(number: int) -> None:
            try:
                await send_build(to, ann, TENANT, summary(f"flood-{number}"))
            except BusyError as error:
                refused.append(error.reason)

        async with asyncio.TaskGroup() as group:
            for number in range(400):
                group.create_task(flood(number))
        assert set(refused) == {"build-rate"}
        async with farm.logged_in("globex/zed") as (other, zed):
            await send_build(other, zed, GLOBEX, summary())


async def test_a_dispatcher_reports_in_the_session_of_compiles_and_begins_nothing(
    tmp_path: Path,
) -> None:
    async with two_tenants(tmp_path) as farm, farm.serving():
        paths = Paths.from_env(environment(farm, "acme/ann"))

        def use() -> list[str]:
            client = start_remote(paths, Settings())
            try:
                said = [client.report(summary())]
                assert not client.can_report()
                (tmp_path / "a.c").write_text("int a;\n")
                request = RemoteRequest(
                    argv=("sh", "-c", "cat a.c > a.o"), env=(), cwd="", client_version="t",
                    inputs=(RemoteInput("a.c", str(tmp_path / "a.c"), False),), outputs=("a.o",),
                )  # fmt: skip
                assert isinstance(client.compile(request, lambda: False), RemoteResult)
                assert client.can_report()
                said.append(client.report(summary()))
                paths.farm_file.unlink()
                said.append(client.report(summary()))
                return said
            finally:
                client.close()

        assert await asyncio.to_thread(use) == [NO_DISPATCHER, "", NO_REPORTS]
        async with farm.logged_in("acme/ann") as (to, ann):
            assert len((await ask_builds(to, ann, TENANT)).builds) == 1
