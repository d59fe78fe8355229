"""`hpcc farm status` on a real farm: who sees what, and what the exit status says."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpcc.config.paths import Paths
from hpcc.core import Isolation, TenantId
from hpcc.scheduler.tenants.table import TenantPolicy, TenantQuotas
from hpcc_testkit.farm.in_process import TENANT, FarmUnderTest, farm_under_test
from hpcc_testkit.farm.policies import TenantsAuthenticator
from hpcc_testkit.farm.several import workers

pytestmark = pytest.mark.timeout(180)


def policy(name: str) -> TenantPolicy:
    return TenantPolicy(
        tenant=TenantId(name), identity=None, images=(), minimum_isolation=Isolation.LOCAL_NONE,
        quotas=TenantQuotas(),
    )  # fmt: skip


async def status(farm: FarmUnderTest, who: str, *argv: str) -> tuple[int, str, str]:
    """Run the command as a person of a tenant, `tenant/person`; return code and outputs."""
    tenant, person = who.split("/")
    home = farm.directory / "homes" / who
    home.mkdir(parents=True, exist_ok=True)
    env = {"HPCC_DIR": str(home), "PATH": os.environ["PATH"]}
    paths = Paths.from_env(env)
    paths.state.mkdir(parents=True, exist_ok=True)
    paths.farm_file.write_text(replace(farm.farm(person), tenant=tenant).to_json())
    paths.farm_file.chmod(0o600)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hpcc.cli", "farm", "status", *argv, env=env,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def document(farm: FarmUnderTest, who: str) -> tuple[int, dict[str, Any]]:
    code, out, err = await status(farm, who, "--json")
    assert err == "", err
    found: dict[str, Any] = json.loads(out)
    return code, found


async def test_a_member_and_an_operator_of_a_real_farm(tmp_path: Path) -> None:
    table = tmp_path / "tenants.toml"
    authenticator = TenantsAuthenticator(policy(TENANT.value), policy("globex"))
    async with farm_under_test(
        tmp_path, tenants=table, authenticator=authenticator, operators=("acme/olga",)
    ) as farm:
        code, nobody = await document(farm, "acme/ann")
        assert (code, nobody["health"]) == (2, "down"), "no worker yet"
        async with workers(farm, "w1", "w2", slots=2):
            code, member = await document(farm, "globex/zed")
            while member["workers"]["live"] < 2:  # the guard is the test's own limit of time
                code, member = await document(farm, "globex/zed")
            assert (code, member["view"], member["tenant"]) == (0, "tenant", "globex")
            assert member["workers"] == {
                "live": 2, "stale": 0, "draining": 0, "has_room": True
            }  # fmt: skip
            assert [t["tenant"] for t in member["tenants"]] == ["globex"]
            assert "w1" not in json.dumps(member)
            assert "acme" not in json.dumps(member)
            code, found = await document(farm, "acme/olga")
            assert (code, found["view"], found["health"]) == (0, "operator", "healthy")
            assert [w["worker_id"] for w in found["workers"]["list"]] == ["w1", "w2"]
            assert found["workers"]["capacity"] == 4
            assert found["schedulers"][0]["answers"]
            code, text, _ = await status(farm, "acme/olga")
            assert code == 0
            assert "farm: healthy" in text
            assert "2 live, 0 silent; 0 of 4 places busy, 0 compiles wait" in text
            assert "w2" in text


async def test_who_has_no_farm_or_no_scheduler_is_told(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path) as farm:
        port = farm.scheduler.port
        code, out, err = await status(farm, "other/ann", "--json")
        assert (code, out) == (2, ""), "a login that is refused says nothing of the farm"
        assert "hpcc: " in err
    farm.scheduler = replace(farm.scheduler, port=port)
    code, gone = await document(farm, "acme/ann")
    assert (code, gone["health"]) == (2, "down")
    (scheduler,) = gone["schedulers"]
    assert not scheduler["answers"]
    assert [w["code"] for w in gone["warnings"]] == ["scheduler-silent"]
