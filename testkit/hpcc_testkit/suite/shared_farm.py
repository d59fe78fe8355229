"""Two schedulers with one control store, workers of either, and builds of several tenants.

Each unit writes into one journal when it starts and when it ends, and ends when the test lets it.
So a test counts what runs at the same time without a clock.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from uuid import uuid4

from hpcc.config.farm import Farm
from hpcc.config.private_file import write_private_file
from hpcc.control.database import read_database_config
from hpcc.control.schema import migrate
from hpcc.core import Isolation, RemoteRequest, TenantId
from hpcc.dispatch.compile import Dispatcher
from hpcc.dispatch.farm import connect_farm
from hpcc.ports import SystemClock
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.serve import serve_scheduler
from hpcc.scheduler.tenants.table import TenantPolicy, TenantQuotas
from hpcc.worker.serve import serve_worker
from hpcc_testkit.farm.in_process import TENANT, FakeImages, FarmUnderTest
from hpcc_testkit.farm.memory_audit import MemoryAuditLog
from hpcc_testkit.farm.policies import TenantsAuthenticator
from hpcc_testkit.farm.several import Build, worker_process
from hpcc_testkit.guests.fake_runtime import FakeRuntime
from hpcc_testkit.services.postgres import PrivatePostgres

_MIB: Final = 1 << 20


def policy(tenant: str = TENANT.value, **quotas: int) -> TenantPolicy:
    """Return the policy of a tenant with these quotas."""
    return TenantPolicy(
        tenant=TenantId(tenant), identity=None, images=(),
        minimum_isolation=Isolation.LOCAL_NONE, quotas=TenantQuotas(**quotas),
    )  # fmt: skip


@dataclass(slots=True)
class Journal:
    """What started (`+`) and ended (`-`), by who runs it, in order."""

    path: Path

    @property
    def lines(self) -> list[str]:
        return self.path.read_text().split() if self.path.exists() else []

    @property
    def most(self) -> int:
        """The most that ran at the same time."""
        running = most = 0
        for line in self.lines:
            running += 1 if line[0] == "+" else -1
            most = max(most, running)
        return most

    def starts(self, name: str) -> int:
        return self.lines.count(f"+{name}")

    def running(self, name: str) -> int:
        """Return how many of a person's units run now."""
        lines = self.lines
        return lines.count(f"+{name}") - lines.count(f"-{name}")


@dataclass
class GatedBuild(Build):
    """A build whose units write into the journal, and end when the test lets them."""

    journal: Journal = field(default_factory=lambda: Journal(Path()))
    name: str = ""

    @property
    def _gate(self) -> Path:
        return self.journal.path.with_name(f"gate-{self.name}")

    def let(self, number: int) -> None:
        """Let so many units end, those that started first."""
        new = self._gate.with_suffix(".new")
        new.write_text(f"{number}\n")
        new.rename(self._gate)

    def request(self, number: int, seconds: float) -> RemoteRequest:
        request = super().request(number, seconds)
        # A unit's file tells how many started before it: units may start in another order.
        script = (
            f"set -C; i=0; until true > {self._gate}-$i; do i=$((i + 1)); done 2>/dev/null; set +C;"
            f" echo +{self.name} >> {self.journal.path};"
            f" while read n < {self._gate} && [ $n -le $i ]; do sleep 0.2; done;"
            f" {request.argv[2]}; echo -{self.name} >> {self.journal.path}"
        )
        return replace(request, argv=("sh", "-c", script))

    async def wait(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so."""
        while True:
            if is_so():
                return
            await asyncio.sleep(0.1)


@dataclass(slots=True)
class SharedFarm:
    """The schedulers; `farms[i]` has the settings for workers and daemons of the one or other."""

    farms: Sequence[FarmUnderTest]
    authenticator: TenantsAuthenticator
    journal: Journal
    cluster: PrivatePostgres | None

    def granted(self, principal: str) -> int:
        """Return how many places the store grants a person on all workers."""
        return self._sum("granted", f"principal = '{principal}'")

    def held(self, worker: str = "") -> int:
        """Return how many places workers hold, or one of them."""
        return self._sum("held", f"worker = '{worker}'" if worker else "true")

    def renewed(self, worker: str) -> str:
        """Return the end of a worker's share, which is later after each of its requests."""
        return self._sql(f"SELECT max(expires_at) FROM hpcc.share WHERE worker = '{worker}'")  # noqa: S608 - a test's own names

    def result_keys(self) -> list[str]:
        """Return the ids of the result keys in the database."""
        return self._sql("SELECT key FROM hpcc.entry WHERE space = 'result-key'").split()

    def _sql(self, text: str) -> str:
        assert self.cluster is not None
        database = read_database_config(self.farms[0].scheduler_config.database).database
        return self.cluster.sql(database, text).strip()

    def _sum(self, column: str, where: str) -> int:
        config = self.farms[0].scheduler_config
        text = f"SELECT coalesce(sum({column}), 0) FROM {{}} WHERE {where}"  # noqa: S608 - a test's own names
        if self.cluster is not None:
            return int(self._sql(text.format("hpcc.share") + " AND expires_at > now()"))
        with closing(sqlite3.connect(config.state / "scheduler.sqlite")) as db:
            (number,) = db.execute(text.format("share")).fetchone()
        return int(number)

    @asynccontextmanager
    async def worker(
        self, name: str, places: int, scheduler: int = 0
    ) -> AsyncGenerator[FakeRuntime]:
        """Run a worker of so many guests with one place each."""
        farm = self.farms[scheduler]
        base = farm.directory / name
        (base / "guests").mkdir(parents=True, exist_ok=True)
        (base / "image").touch()
        runtime = FakeRuntime(base / "guests")
        config = await farm.enrolling(name, **guests(places))
        async with serve_worker(
            config, runtime=runtime, images=FakeImages(base / "image"), audit=farm.audit,
            clock=farm.clock, progress=lambda _: None,
        ):  # fmt: skip
            yield runtime

    @asynccontextmanager
    async def workers(self, *names: str, places: int) -> AsyncGenerator[None]:
        """Run workers, each at another scheduler than the one before."""
        async with AsyncExitStack() as stack:
            for number, name in enumerate(names):
                scheduler = number % len(self.farms)
                await stack.enter_async_context(self.worker(name, places, scheduler))
            yield

    @asynccontextmanager
    async def process(
        self, name: str, places: int, scheduler: int = 0
    ) -> AsyncGenerator[asyncio.subprocess.Process]:
        """Run a worker that a test may kill."""
        async with worker_process(self.farms[scheduler], name, places) as process:
            yield process

    @asynccontextmanager
    async def build(
        self, principal: str = "ann", tenant: str = TENANT.value, scheduler: int = 0
    ) -> AsyncGenerator[GatedBuild]:
        """Connect a machine of a person. No unit ends before the test lets it."""
        farm = self.farms[scheduler]
        directory = farm.directory / f"{tenant}-{principal}"
        await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
        clock = SystemClock()
        dispatcher = Dispatcher(clock, timeout_seconds=90.0, version="t", build_id="b")
        settings: Farm = replace(farm.farm(principal), tenant=tenant)
        try:
            async with connect_farm(settings, clock, "t") as connection:
                build = GatedBuild(
                    connection, dispatcher, directory, journal=self.journal, name=principal
                )
                build.let(0)
                yield build
        finally:
            dispatcher.close()


def guests(places: int) -> dict[str, object]:
    """Return the settings of a worker with so many guests of one place."""
    return {"max_guests": places, "vcpus": 1, "memory_mib": _MIB, "drain_seconds": 1.0}


@asynccontextmanager
async def shared_farm(
    directory: Path,
    policies: Iterable[TenantPolicy],
    *,
    cluster: PrivatePostgres | None = None,
    lease_seconds: float = 10.0,
) -> AsyncGenerator[SharedFarm]:
    """Run two schedulers on a database of PostgreSQL; without one, a single one on SQLite."""
    database = cluster.make_database(f"shares_{uuid4().hex}") if cluster is not None else ""
    authenticator = TenantsAuthenticator(*policies)
    seal = directory / "sealing.key"
    write_private_file(seal, b"s" * 43)
    if database:
        await migrate(read_database_config(database))
    async with AsyncExitStack() as stack:
        farms = []
        for number in range(2 if database else 1):
            base = directory / f"s{number}"
            config = SchedulerConfig(
                keys=base / "scheduler" / "keys",
                state=Path() if database else base / "scheduler" / "state",
                database=database,
                sealing_key=str(seal) if database else "",
                tenant=TENANT.value,
                tenant_secret="x" * 43,
                minimum_isolation=Isolation.LOCAL_NONE.value,
                lease_seconds=lease_seconds,
            )
            scheduler = await stack.enter_async_context(
                serve_scheduler(config, SystemClock(), authenticator=authenticator)
            )
            (base / "guests").mkdir()
            farms.append(
                FarmUnderTest(
                    directory=base,
                    clock=SystemClock(),
                    tenant_secret="x" * 43,
                    scheduler_config=config,
                    runtime=FakeRuntime(base / "guests"),
                    audit=MemoryAuditLog(),
                    scheduler=scheduler,
                )
            )
        yield SharedFarm(farms, authenticator, Journal(directory / "journal"), cluster)
