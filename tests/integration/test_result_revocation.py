"""An operator revokes a result key: its results become misses, and its worker is dropped."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from hpcc.cli.main import main
from hpcc.core import (
    NotFoundError,
    PolicyError,
    RemoteFailure,
    RemoteInput,
    RemoteRequest,
    RemoteResult,
)
from hpcc.dispatch.compile import Dispatcher
from hpcc.dispatch.farm import connect_farm
from hpcc.identity.keys import key_id, load_or_create_signing_key
from hpcc.ports import SystemClock
from hpcc_testkit.farm.actions import made_action, run_script
from hpcc_testkit.farm.in_process import TENANT, FarmUnderTest, farm_under_test

SCRIPT = "cp a.c a.o"


@pytest.fixture
async def farm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[FarmUnderTest]:
    # What is a minute in the product is at once here.
    monkeypatch.setattr("hpcc.scheduler.result_keys.REREAD_SECONDS", 0.0)
    monkeypatch.setattr("hpcc.identity.result_keys.FRESH_SECONDS", 0.0)
    async with farm_under_test(tmp_path) as farm:
        yield farm


def worker_key(farm: FarmUnderTest) -> Path:
    return farm.directory / "worker/keys/result-signing.key"


def worker_kid(farm: FarmUnderTest) -> str:
    return key_id(load_or_create_signing_key(worker_key(farm)).public_key())


async def hpcc(farm: FarmUnderTest, *argv: str) -> int:
    """Run `hpcc scheduler ...` beside the running one, as an operator does."""
    config = farm.directory / "scheduler.json"
    if not config.exists():
        config.touch(0o600)
        config.write_text(
            json.dumps(
                {
                    "keys": str(farm.directory / "scheduler/keys"),
                    "state": str(farm.directory / "scheduler/state"),
                    "tenant": TENANT.value,
                    "tenant_secret": farm.tenant_secret,
                    "minimum_isolation": "local/none",
                }
            )
        )
    return await asyncio.to_thread(main, ["scheduler", *argv, "--config", str(config)])


async def test_the_key_file_is_the_workers_own_and_not_its_tls_key(farm: FarmUnderTest) -> None:
    async with farm.serving():
        pass
    assert worker_key(farm).stat().st_mode & 0o777 == 0o600
    assert (
        worker_key(farm).read_bytes()
        != (farm.directory / "worker/keys/worker.hpcc.internal.key").read_bytes()
    )


async def test_results_outlive_restarts_of_worker_and_scheduler(tmp_path: Path) -> None:
    for is_cached in (False, True):
        shutil.rmtree(tmp_path / "guests", ignore_errors=True)
        async with (
            farm_under_test(tmp_path) as farm,
            farm.serving(),
            farm.client() as client,
        ):
            assert (await run_script(client, SCRIPT))[1] is is_cached


@pytest.mark.timeout(120)
async def test_results_of_a_revoked_key_are_misses_and_its_worker_is_dropped(
    farm: FarmUnderTest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "a.c"
    source.write_text("int x;\n")
    request = RemoteRequest(
        argv=("sh", "-c", SCRIPT),
        env=(("PATH", "/usr/bin:/bin"),),
        cwd="",
        inputs=(RemoteInput("a.c", str(source), False),),
        outputs=("a.o",),
    )
    clock = SystemClock()
    dispatcher = Dispatcher(clock, timeout_seconds=20.0, version="t", build_id="b")

    async def until_dropped() -> None:
        async with farm.serving(), connect_farm(farm.farm(), clock, "t") as connection:
            assert isinstance(await dispatcher.compile(connection, request), RemoteResult)
            async with farm.client() as client:
                await run_script(client, SCRIPT)
                assert await hpcc(farm, "revoke-result-key", worker_kid(farm)) == 0
                with pytest.raises(NotFoundError):
                    await client.cached_result(made_action(SCRIPT)[-1].digest, [])
            assert dict(farm.audit.events[-1].fields)["reason"] == "result-key"
            outcome = await dispatcher.compile(connection, request)
            assert isinstance(outcome, RemoteFailure)
            await asyncio.Event().wait()  # until the worker ends: it is dropped and not let in

    with pytest.raises(PolicyError) as dropped:
        async with asyncio.timeout(90):
            await until_dropped()
    dispatcher.close()
    assert dropped.value.reason == "result-key-revoked"
    assert await hpcc(farm, "result-keys") == 0
    assert f"{worker_kid(farm)}  revoked" in capsys.readouterr().out
    with pytest.raises(PolicyError):
        async with farm.serving():
            pass
    worker_key(farm).unlink()
    async with farm.serving(), farm.client() as client:
        assert not (await run_script(client, SCRIPT))[1]
        assert (await run_script(client, SCRIPT))[1]


@pytest.mark.parametrize("kid", ["0" * 32, "../../etc", "0" * 31, ""])
async def test_a_key_that_is_none_cannot_be_revoked(
    farm: FarmUnderTest, kid: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await hpcc(farm, "revoke-result-key", kid) != 0
    assert "key" in capsys.readouterr().err
