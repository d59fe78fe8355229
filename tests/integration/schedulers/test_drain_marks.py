"""An operator's order to drain, in a farm of two schedulers, one of which dies."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from hpcc.core import NotFoundError
from hpcc.identity.tls import PinnedPeer
from hpcc.ports import SystemClock
from hpcc.rpc.scheduler.api import RouteAsk
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc.rpc.scheduler.farm_picture import picture_of
from hpcc.rpc.scheduler.observe import FarmStatus, ask_all
from hpcc.rpc.scheduler.schedulers import open_schedulers
from hpcc_testkit.farm.in_process import IMAGE, TENANT
from hpcc_testkit.farm.replicas import Replica, ReplicaFarm, replica_farm
from hpcc_testkit.services.postgres import PrivatePostgres

pytestmark = pytest.mark.timeout(240)


async def drain(replica: Replica, *argv: str) -> str:
    command = [sys.executable, "-m", "hpcc.cli", "scheduler", "drain-worker", "w1", *argv]
    done = await asyncio.to_thread(
        subprocess.run, [*command, "--config", str(replica.config)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def routed(farm: ReplicaFarm, replica: Replica) -> str:
    """Return the worker that a scheduler routes to; "" if there is none."""
    async with replica.client() as client:
        grant = await client.authenticate(
            secret=farm.tenant_secret, tenant=TENANT, principal="ann", client_version="t"
        )
        try:
            route = await client.route(grant.session, RouteAsk(tenant=TENANT, image=IMAGE))
        except NotFoundError:
            return ""
        return route.worker_id


async def both_route(farm: ReplicaFarm) -> None:
    while [await routed(farm, r) for r in farm.replicas] != ["w1", "w1"]:  # noqa: ASYNC110 - other processes
        await asyncio.sleep(0.1)


async def both_announce(farm: ReplicaFarm) -> None:
    """Wait until each scheduler knows the certificate of the other, which has just started."""
    for replica in farm.replicas:
        known = 0
        while known < len(farm.replicas):
            async with replica.client() as client:
                grant = await client.authenticate(
                    secret=farm.tenant_secret, tenant=TENANT, principal="ann", client_version="t"
                )
            known = len(grant.certificates)
            await asyncio.sleep(0.1)


async def shown(farm: ReplicaFarm) -> list[str]:
    """Return what each scheduler says of w1's drain, and then their picture."""
    peer = PinnedPeer.from_pem(farm.certificates.encode())
    async with open_schedulers(
        farm.addresses, certificate_pem=peer.certificate_pem, name=peer.name
    ) as schedulers:
        grant = await SchedulerClient(schedulers).authenticate(
            secret=farm.tenant_secret, tenant=TENANT, principal="ann", client_version="t"
        )
        answers = await ask_all(schedulers, grant.session, TENANT)
    picture = picture_of(
        farm.addresses.split(","), answers, tenant=TENANT.value, at=SystemClock().now()
    )
    return [
        w.drain for s in (*answers, picture) if isinstance(s, FarmStatus) for w in s.workers
    ] + [w.drain for w in picture.workers]


async def test_an_order_holds_at_both_schedulers_and_when_one_dies(
    tmp_path: Path, postgres: PrivatePostgres
) -> None:
    async with (
        replica_farm(tmp_path, postgres, f"farm_{uuid4().hex}", lease_seconds=2.0) as farm,
        farm.worker("w1"),
    ):
        one, two = farm.replicas
        await both_announce(farm)
        await both_route(farm)
        said = (await drain(one, "--wait", "--json")).splitlines()
        assert json.loads(said[-1])["state"] == "drained"
        assert [await routed(farm, r) for r in (one, two)] == ["", ""]
        found = await shown(farm)
        assert len(found) == 3
        assert all(found)
        assert found[-1] == "drained", "as the scheduler that hears it says"
        for dead, other in ((one, two), (two, one)):
            await dead.end()
            said = (await drain(other, "--wait", "--json")).splitlines()
            assert json.loads(said[-1])["state"] == "drained", "whichever it speaks to"
            assert await routed(farm, other) == ""
            await dead.start()
        await drain(two, "--undo")
        await both_route(farm)
