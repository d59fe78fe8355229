"""Two schedulers and three workers, seen by `hpcc farm status`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest

from hpcc.identity.tls import PinnedPeer
from hpcc.ports import SystemClock
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc.rpc.scheduler.farm_picture import FarmPicture, picture_of
from hpcc.rpc.scheduler.observe import ask_all
from hpcc.rpc.scheduler.schedulers import open_schedulers
from hpcc_testkit.farm.in_process import TENANT
from hpcc_testkit.farm.replicas import replica_farm
from hpcc_testkit.services.postgres import PrivatePostgres

pytestmark = pytest.mark.timeout(240)


async def test_two_schedulers_and_three_workers_make_one_picture(
    tmp_path: Path, postgres: PrivatePostgres
) -> None:
    names = ["w1", "w2", "w3"]
    async with (
        replica_farm(tmp_path, postgres, f"farm_{uuid4().hex}") as farm,
        farm.worker("w1"),
        farm.worker("w2"),
        farm.worker("w3"),
    ):
        peer = PinnedPeer.from_pem(farm.certificates.encode())
        addresses = farm.addresses.split(",")
        async with open_schedulers(
            farm.addresses, certificate_pem=peer.certificate_pem, name=peer.name
        ) as schedulers:
            grant = await SchedulerClient(schedulers).authenticate(
                secret=farm.tenant_secret, tenant=TENANT, principal="ann", client_version="t"
            )

            async def picture() -> FarmPicture:
                answers = await ask_all(schedulers, grant.session, TENANT)
                return picture_of(addresses, answers, tenant=TENANT.value, at=SystemClock().now())

            while True:
                found = await picture()
                known = [[w.worker_id for w in s.workers] for s in found.statuses]
                if known == [names] * 2:
                    break
                await asyncio.sleep(0.2)
            assert found.health == "healthy", found.warnings
            assert all(w.is_heard for w in found.workers), "each by the scheduler that hears it"
            assert [w.worker_id for w in found.workers] == names
            await farm.replicas[0].end()
            less = await picture()
            assert less.health == "degraded"
            assert less.warnings[0].code == "scheduler-silent"
            assert [w.worker_id for w in less.workers] == names, "the other one knows them all"
