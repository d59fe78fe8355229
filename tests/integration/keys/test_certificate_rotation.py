"""A scheduler shows another certificate while compiles run, and clients follow without a restart.

The commands are those of docs/operate.md, run beside real processes.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from hpcc.core import RemoteFailure
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.scheduler.api import SessionGrant
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc.rpc.scheduler.schedulers import Schedulers, open_schedulers
from hpcc.scheduler.base.certificate import TLS_NAME, make_next, switch
from hpcc_testkit.farm.in_process import TENANT, farm_under_test
from hpcc_testkit.farm.processes import Load, ProcessFarm, process_farm

# A session is renewed a minute before it ends: here every five seconds.
QUICK: dict[str, object] = {"session_seconds": 65.0}
USER = "user1/s/scheduler-certificates.json"
WORKER = "worker/keys/scheduler-certificates.json"


async def test_new_connections_get_the_new_certificate_and_the_others_stay(
    tmp_path: Path,
) -> None:
    async with farm_under_test(tmp_path) as farm:
        keys, old = farm.scheduler_config.keys, farm.scheduler.certificate_pem.encode()
        endpoint = f"{farm.scheduler.host}:{farm.scheduler.port}"

        async def logs_in(schedulers: Schedulers) -> SessionGrant:
            return await SchedulerClient(schedulers).authenticate(
                secret=farm.tenant_secret, tenant=TENANT, principal="ann", client_version="t"
            )

        async with open_schedulers(endpoint, certificate_pem=old, name=TLS_NAME) as before:
            grant = await logs_in(before)
            assert len(grant.certificates) == 1
            new = make_next(keys, farm.clock).certificate_pem
            switch(keys)
            assert await logs_in(before)
            both = old + new
            async with open_schedulers(endpoint, certificate_pem=both, name=TLS_NAME) as after:
                assert await logs_in(after)
            async with open_schedulers(endpoint, certificate_pem=old, name=TLS_NAME) as late:
                with pytest.raises(UnavailableError):
                    await logs_in(late)


async def parts(farm: ProcessFarm) -> dict[str, str]:
    """Return the part of each certificate by its id, as an operator sees it."""
    lines = (await farm.hpcc("scheduler", "certificates")).splitlines()[1:]
    return {line.split()[1]: line.split()[0] for line in lines}


async def trusted(farm: ProcessFarm, name: str, count: int) -> None:
    """Wait until a file of trusted certificates has so many."""

    def holds() -> int:
        file = farm.directory / name
        return file.read_text().count("BEGIN CERTIFICATE") if file.exists() else 0

    async with asyncio.timeout(90):
        while holds() != count:  # noqa: ASYNC110 - written by another process
            await asyncio.sleep(0.2)


@pytest.mark.nightly
@pytest.mark.timeout(240)
async def test_a_new_certificate_during_a_build_fails_no_compile(tmp_path: Path) -> None:
    async with process_farm(tmp_path, scheduler=QUICK) as farm:
        with farm.client() as client:
            load = Load(farm, client, "load")
            load.start()
            await load.until(3)
            old = (await parts(farm))["serving"]
            said = await farm.hpcc("scheduler", "announce-certificate")
            new = (await parts(farm))["next"]
            assert f"certificate {new} is announced" in said
            await trusted(farm, USER, 2)
            await trusted(farm, WORKER, 2)
            # Not every client had time to learn it, as far as the scheduler can know.
            assert "--now" in await farm.hpcc("scheduler", "use-certificate", code=2)
            assert (await parts(farm))["serving"] == old
            await farm.hpcc("scheduler", "use-certificate", "--now")
            assert await parts(farm) == {"other": old, "serving": new}
            # What is connected stays connected, and compiles go on.
            await load.until(3)
            assert (load.failures, load.wrong) == ([], [])
            # All must connect again, to a scheduler that shows only the new certificate.
            await farm.kill("scheduler")
            await farm.start_scheduler()
            await load.until(5)
            before = len(load.failures)
            said = await farm.hpcc("scheduler", "retire-certificate", new, code=2)
            assert "shows it" in said
            await farm.hpcc("scheduler", "retire-certificate", old)
            await trusted(farm, USER, 1)
            await trusted(farm, WORKER, 1)
            await load.until(5)
            await asyncio.to_thread(load.stop)
            assert (load.failures[before:], load.wrong) == ([], [])
        # A worker and a user who start with the old configuration know what was announced.
        await farm.kill("worker")
        await farm.start_worker()
        # A user without it, who was never told, compiles here, and nothing fails.
        with farm.client() as client:
            outcome = await asyncio.to_thread(client.compile, farm.request("x"), lambda: False)
        assert isinstance(outcome, RemoteFailure)
        # With the text that the command printed there is a farm again.
        farm.ready["certificate_pem"] = json.loads((tmp_path / USER).read_text())["certificates"]
        await farm.back()
        assert await farm.compiled(["load-0-0"]) == [True]


@pytest.mark.nightly
@pytest.mark.timeout(240)
async def test_a_switch_that_was_killed_between_its_files_is_finished(tmp_path: Path) -> None:
    async with process_farm(tmp_path, scheduler=QUICK) as farm:
        said = await farm.hpcc("scheduler", "announce-certificate")
        new = (await parts(farm))["next"]
        await trusted(farm, WORKER, 2)
        keys = tmp_path / "scheduler/keys"
        name = "scheduler.hpcc.internal"
        (keys / "next" / f"{name}.key").replace(keys / f"{name}.key")
        await farm.kill("scheduler")
        await farm.start_scheduler()
        assert (await parts(farm))["serving"] == new
        # The worker connects again by itself, and a user with the text that was printed.
        farm.ready["certificate_pem"] = said.partition("\n")[2]
        await farm.back()
