"""Measures how soon a client gets a route after the replica that it used was killed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from _farm_rows import Figure
from _measure import BenchError

from hpcc.core import HpccError
from hpcc.identity.tls import PinnedPeer
from hpcc.rpc.scheduler.api import RouteAsk
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc.rpc.scheduler.schedulers import open_schedulers
from hpcc_testkit.farm.in_process import IMAGE, TENANT
from hpcc_testkit.farm.replicas import Replica, ReplicaFarm, replica_farm
from hpcc_testkit.services.postgres import PrivatePostgres, missing_or_none, private_postgres

GOAL_MS: Final = 2000.0
_WAIT_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.05


class RecoveryBench:
    """Two replicas on PostgreSQL and a worker; the one that the client uses is killed."""

    def __init__(self, rounds: int, directory: Path, show: Callable[[Figure], None]) -> None:
        self._rounds, self._directory, self._show = rounds, directory, show
        self._taken: list[float] = []
        self._failed = 0

    def run(self) -> None:
        """Kill each replica in turn and report how long the next route took.

        Raises:
            BenchError: there is no PostgreSQL.
        """
        if missing := missing_or_none():
            raise BenchError(missing)
        with private_postgres() as cluster:
            asyncio.run(self._farm(cluster))
        self._show(Figure("replicas killed with SIGKILL", len(self._taken), "times"))
        self._show(Figure("routes that failed meanwhile", self._failed, "calls", 0))
        if self._taken:
            what = "until the next route, the longest"
            self._show(Figure(what, 1e3 * max(self._taken), "ms", GOAL_MS))

    async def _farm(self, cluster: PrivatePostgres) -> None:
        async with AsyncExitStack() as stack:
            farm = await stack.enter_async_context(
                replica_farm(self._directory, cluster, "recovery")
            )
            await stack.enter_async_context(farm.worker())
            for number in range(self._rounds):
                victim, other = farm.replicas[number % 2], farm.replicas[1 - number % 2]
                await self._kill(farm, victim, other)
                await victim.start()

    async def _kill(self, farm: ReplicaFarm, victim: Replica, other: Replica) -> None:
        for replica in (other, victim):
            await known(farm, f"127.0.0.1:{replica.port}", replica.certificate_pem)
        # Both addresses, as a daemon has them; the killed replica is asked first.
        addresses = f"127.0.0.1:{victim.port},127.0.0.1:{other.port}"
        certificates = victim.certificate_pem + other.certificate_pem
        async with opened(addresses, certificates) as client:
            session = await login(client, farm)
            await ask(client, session)
            await victim.end()
            begun = time.monotonic()
            try:
                async with asyncio.timeout(_WAIT_SECONDS):
                    await ask(client, session)
            except (HpccError, TimeoutError):
                self._failed += 1
                return
            self._taken.append(time.monotonic() - begun)


async def known(farm: ReplicaFarm, address: str, certificates: str) -> None:
    """Wait until a replica issues routes."""
    async with asyncio.timeout(_WAIT_SECONDS):
        while True:
            with suppress(HpccError):
                async with opened(address, certificates) as client:
                    await ask(client, await login(client, farm))
                    return
            await asyncio.sleep(_POLL_SECONDS)


@asynccontextmanager
async def opened(addresses: str, certificates: str) -> AsyncGenerator[SchedulerClient]:
    pem = certificates.encode()
    name = PinnedPeer.from_pem(pem).name
    async with open_schedulers(addresses, certificate_pem=pem, name=name) as schedulers:
        yield SchedulerClient(schedulers)


async def login(client: SchedulerClient, farm: ReplicaFarm) -> str:
    grant = await client.authenticate(
        secret=farm.tenant_secret, tenant=TENANT, principal="bench", client_version="bench"
    )
    return grant.session


async def ask(client: SchedulerClient, session: str) -> None:
    await client.route(session, RouteAsk(tenant=TENANT, image=IMAGE))
