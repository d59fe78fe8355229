"""Two schedulers on a real PostgreSQL: either is killed, the database restarts, keys rotate."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from hpcc.config.farm import Farm
from hpcc.control.database import read_database_config
from hpcc.control.postgres import open_postgres
from hpcc.control.schema import SCHEMA_VERSION, migrate
from hpcc.core import (
    CallerError,
    HpccError,
    InfrastructureError,
    RemoteInput,
    RemoteOutcome,
    RemoteRequest,
    RemoteResult,
)
from hpcc.dispatch.compile import Dispatcher
from hpcc.dispatch.farm import FarmConnection, connect_farm
from hpcc.identity.tls import PinnedPeer
from hpcc.ports import REREAD, ControlStore, News, SystemClock
from hpcc.rpc.base.errors import UnauthenticatedError
from hpcc.rpc.scheduler.api import Route, RouteAsk, RouteChange, SessionGrant
from hpcc.rpc.scheduler.client import RegistryClient, SchedulerClient
from hpcc.rpc.scheduler.schedulers import open_schedulers
from hpcc.scheduler.base.control_store import open_control
from hpcc.worker.base.identity import load_identity_or_none
from hpcc_testkit.farm.in_process import IMAGE, TENANT
from hpcc_testkit.farm.replicas import ROLE, Replica, ReplicaFarm, replica_farm
from hpcc_testkit.services.postgres import PrivatePostgres
from hpcc_testkit.services.scraped import fetch

pytestmark = pytest.mark.timeout(240)
WAIT_SECONDS = 90.0
CLOCK = SystemClock()


@pytest.fixture
async def farm(tmp_path: Path, postgres: PrivatePostgres) -> AsyncIterator[ReplicaFarm]:
    async with replica_farm(tmp_path, postgres, f"farm_{uuid4().hex}", lease_seconds=4.0) as made:
        yield made


async def until[T](ask: Callable[[], Awaitable[T | None]]) -> T:
    """Ask until there is an answer."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            with suppress(HpccError):
                if (found := await ask()) is not None:
                    return found
            await asyncio.sleep(0.1)


async def login(client: SchedulerClient, farm: ReplicaFarm, principal: str = "ann") -> SessionGrant:
    return await client.authenticate(
        secret=farm.tenant_secret, tenant=TENANT, principal=principal, client_version="t"
    )


async def route(client: SchedulerClient, session: SessionGrant) -> Route:
    return await client.route(session.session, RouteAsk(tenant=TENANT, image=IMAGE))


async def known(farm: ReplicaFarm, replica: Replica) -> Route:
    """Wait until a replica routes to the worker."""
    async with replica.client() as client:
        session = await until(lambda: login(client, farm))
        return await until(lambda: route(client, session))


class Build:
    """Compiles one after the other, by two developers at once, until the test ends it."""

    def __init__(self, directory: Path, farm: Farm) -> None:
        self._farm = farm
        self._source = directory / "a.c"
        self._source.write_text("int x;\n")
        self._dispatcher = Dispatcher(CLOCK, timeout_seconds=60.0, version="t", build_id="b")
        self._numbers = itertools.count()
        self._end = asyncio.Event()
        self.outcomes: list[RemoteOutcome] = []

    async def __aenter__(self) -> Build:
        self._task = asyncio.Task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._end.set()
        await self._task
        self._dispatcher.close()

    async def more(self, count: int = 6) -> None:
        """Wait for further compiles, those under way not counted."""
        wanted = len(self.outcomes) + 2 + count
        async with asyncio.timeout(WAIT_SECONDS):
            while len(self.outcomes) < wanted:
                assert not self._task.done()
                await asyncio.sleep(0.02)

    @property
    def failures(self) -> Counter[str]:
        return Counter(o.reason for o in self.outcomes if not isinstance(o, RemoteResult))

    async def _run(self) -> None:
        async with (
            connect_farm(self._farm, CLOCK, "t") as one,
            connect_farm(self._farm, CLOCK, "t") as other,
            asyncio.TaskGroup() as group,
        ):
            for connection in (one, other):
                group.create_task(self._compile(connection))

    async def _compile(self, connection: FarmConnection) -> None:
        while not self._end.is_set():
            self.outcomes.append(
                await self._dispatcher.compile(connection, self._request(next(self._numbers)))
            )

    def _request(self, number: int) -> RemoteRequest:
        return RemoteRequest(
            argv=("sh", "-c", f"cp a.c a.o; echo {number}"), env=(("PATH", "/usr/bin:/bin"),),
            cwd="", inputs=(RemoteInput("a.c", str(self._source), False),), outputs=("a.o",),
        )  # fmt: skip


async def test_each_replica_killed_in_mid_build_costs_no_compile(
    farm: ReplicaFarm, tmp_path: Path
) -> None:
    one, other = farm.replicas
    async with farm.worker():
        generations = {(await known(farm, replica)).generation for replica in farm.replicas}
        async with Build(tmp_path, farm.farm()) as build:
            await build.more()
            for dead, left in ((one, other), (other, one)):
                await dead.end()
                await build.more()
                # The worker changes schedulers within its life: no route ends for that.
                generations.add((await known(farm, left)).generation)
                await dead.start()
                generations.add((await known(farm, dead)).generation)
                await build.more()
        assert build.failures == Counter()
        assert len(generations) == 1


async def test_a_build_goes_on_while_the_database_is_away_and_all_is_well_afterwards(
    farm: ReplicaFarm, tmp_path: Path
) -> None:
    one, other = farm.replicas
    async with farm.worker(), one.client() as a, other.client() as b:
        for replica in farm.replicas:
            await known(farm, replica)
        session = await login(a, farm)
        async with Build(tmp_path, farm.farm()) as build:
            await build.more()
            farm.cluster.stop()
            try:
                # Longer than a lease: workers that speak to the other one are kept.
                await asyncio.sleep(2 * farm.lease_seconds)
                for client in (a, b):
                    assert (await route(client, session)).worker_id == "w1"
                    with pytest.raises(InfrastructureError) as refused:
                        await login(client, farm)
                    assert refused.value.reason == "control-store"
                status, why = await asyncio.to_thread(fetch, one.admin, "/readyz")
                assert (status, why.partition(b":")[0]) == (503, b"control-store")
                balanced = "/readyz?exclude=control-store"
                assert await asyncio.to_thread(fetch, one.admin, balanced) == (200, b"ready\n")
                await build.more()
            finally:
                farm.cluster.start()
            for client in (a, b):
                fresh = await until(lambda client=client: login(client, farm))
                assert (await route(client, fresh)).worker_id == "w1"
            await build.more()
        assert build.failures == Counter()


async def test_a_key_that_follows_in_mid_build_costs_no_compile(
    farm: ReplicaFarm, tmp_path: Path
) -> None:
    one, other = farm.replicas
    async with farm.worker(), one.client() as a, other.client() as b:
        for replica in farm.replicas:
            await known(farm, replica)
        session = await login(a, farm)
        before = kid_of(await route(a, session))
        async with Build(tmp_path, farm.farm()) as build:
            await build.more()
            async with open_control(farm.config(), CLOCK) as (_, keys):
                kid = await keys.rotate(announce_seconds=2.0)
            for client in (a, b):

                async def follows(client: SchedulerClient = client) -> bool | None:
                    return kid_of(await route(client, session)) == kid or None

                assert await until(follows)
            await build.more()
        assert build.failures == Counter()
        assert before != kid
        # A session and a route of the old key are good until they end.
        assert (await route(b, session)).worker_id == "w1"


async def test_revoked_keys_end_sessions_and_routes_and_the_build_goes_on(
    farm: ReplicaFarm, tmp_path: Path
) -> None:
    one, other = farm.replicas
    async with farm.worker(), one.client() as a, other.client() as b:
        for replica in farm.replicas:
            await known(farm, replica)
        stolen = await login(a, farm)
        async with Build(tmp_path, farm.farm()) as build:
            await build.more()
            async with open_control(farm.config(), CLOCK) as (_, keys):
                kid = await keys.rotate(announce_seconds=0.0, is_revoking=True)
            for client in (a, b):

                async def is_over(client: SchedulerClient = client) -> bool | None:
                    try:
                        await route(client, stolen)
                    except UnauthenticatedError:
                        return True
                    return None

                assert await until(is_over)
                assert kid_of(await route(client, await login(client, farm))) == kid

            async def works() -> bool | None:
                return isinstance(build.outcomes[-1], RemoteResult) or None

            await build.more()
            assert await until(works)


def kid_of(found: Route) -> str:
    import base64

    header = found.token.split(".", maxsplit=1)[0]
    return str(json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"])


async def test_a_lost_sandbox_is_told_by_all_replicas_and_again_after_a_lost_broadcast(
    farm: ReplicaFarm,
) -> None:
    one, other = farm.replicas
    peer = PinnedPeer.from_pem(one.certificate_pem.encode())
    async with farm.worker(), one.client() as a, other.client() as b, AsyncExitStack() as stack:
        identity = load_identity_or_none(farm.directory / "w1" / "keys")
        assert identity is not None
        to_one = await stack.enter_async_context(
            open_schedulers(
                f"127.0.0.1:{one.worker_port}", certificate_pem=peer.certificate_pem,
                name=peer.name, client=identity.tls,
            )
        )  # fmt: skip
        generation = (await known(farm, one)).generation
        await known(farm, other)
        session = await login(a, farm)
        registry = RegistryClient(to_one)
        async with aclosing(b.watch(session.session, TENANT)) as watch:
            assert not (await anext(watch)).is_dead  # open, and told what lives

            async def dead() -> int:
                async with asyncio.timeout(WAIT_SECONDS):
                    return next(
                        c.generation
                        for c in [c async for c in _first_dead(watch)]
                        if c.worker_id == "w1"
                    )

            successor = await registry.sandbox_lost(
                worker_id="w1", generation=generation, guest_id="g", reason="killed"
            )
            assert await dead() >= generation
            assert (await route(b, session)).generation == successor
            # Nobody hears this one: the database is away. The rows say it when it is back.
            farm.cluster.stop()
            try:
                last = await registry.sandbox_lost(
                    worker_id="w1", generation=successor, guest_id="g", reason="killed"
                )
            finally:
                farm.cluster.start()
            assert await dead() >= successor

            async def is_current() -> bool | None:
                return (await route(b, session)).generation >= last or None

            assert await until(is_current)


async def _first_dead(watch: AsyncGenerator[RouteChange]) -> AsyncGenerator[RouteChange]:
    async for change in watch:
        if change.is_dead:
            yield change
            return


async def test_a_worker_that_leaves_is_gone_from_all_replicas_at_once(farm: ReplicaFarm) -> None:
    one, other = farm.replicas
    async with one.client() as a, other.client() as b:
        async with farm.worker():
            for replica in farm.replicas:
                await known(farm, replica)
            session = await login(a, farm)
        for client in (a, b):

            async def is_gone(client: SchedulerClient = client) -> bool | None:
                try:
                    await route(client, session)
                except HpccError as error:
                    return error.reason == "no-worker" or None
                return None

            assert await until(is_gone)


async def test_the_schedulers_role_changes_no_table(farm: ReplicaFarm) -> None:
    connection = await asyncpg.connect(farm.cluster.url(farm.database, ROLE))
    try:
        for statement in (
            "DROP TABLE hpcc.entry",
            "ALTER TABLE hpcc.anchor ADD COLUMN x int",
            "CREATE TABLE hpcc.mine (x int)",
            "TRUNCATE hpcc.anchor",
            "UPDATE hpcc.schema_version SET version = 0",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_database_without_tables_or_with_newer_ones_is_refused(
    postgres: PrivatePostgres,
) -> None:
    config = read_database_config(postgres.make_database(f"bare_{uuid4().hex}"))
    async with open_postgres(config, CLOCK) as store:
        with pytest.raises(CallerError, match="hpcc scheduler migrate"):
            await store.check()
        assert await migrate(config) == (0, SCHEMA_VERSION)
        assert await migrate(config) == (SCHEMA_VERSION, SCHEMA_VERSION)
        await store.check()
        postgres.sql(config.database, "UPDATE hpcc.schema_version SET version = 9, oldest = 9")
        with pytest.raises(CallerError, match="newer"):
            await store.check()
        with pytest.raises(CallerError, match="newer"):
            await migrate(config)


async def test_a_watch_is_told_to_read_again_after_each_interruption(
    postgres: PrivatePostgres,
) -> None:
    config = read_database_config(postgres.make_database(f"watch_{uuid4().hex}"))
    await migrate(config)
    async with (
        open_postgres(config, CLOCK) as one,
        open_postgres(config, CLOCK) as other,
        aclosing(one.watch()) as watch,
        asyncio.timeout(WAIT_SECONDS),
    ):
        assert await anext(watch) == REREAD
        assert await anext(watch) == REREAD  # its own connection
        for number in range(3):
            postgres.sql(
                config.database,
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                f" WHERE datname = '{config.database}' AND pid <> pg_backend_pid()",
            )
            assert await anext(watch) == REREAD
            await until(lambda n=number: _told(other, n))
            assert await anext(watch) == News("round", str(number), other.origin)


async def _told(store: ControlStore, number: int) -> bool:
    await store.tell("round", str(number))
    return True


@pytest.mark.parametrize("payload", ["", "junk", "[1]", '["a", "route-ended"]', "[" * 4000])
async def test_a_strangers_broadcast_disturbs_nobody(
    postgres: PrivatePostgres, payload: str
) -> None:
    config = read_database_config(postgres.make_database(f"stranger_{uuid4().hex}"))
    await migrate(config)
    async with open_postgres(config, CLOCK) as store, aclosing(store.watch()) as watch:
        async with asyncio.timeout(WAIT_SECONDS):
            assert await anext(watch) == REREAD
            assert await anext(watch) == REREAD
            connection = await asyncpg.connect(postgres.url(config.database))
            await connection.execute("SELECT pg_notify('hpcc_control', $1)", payload)
            await connection.close()
            await store.tell("after", "all")
            assert await anext(watch) == News("after", "all", store.origin)
