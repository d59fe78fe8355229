"""Two schedulers of one farm as real processes on a real PostgreSQL; a test can kill each.

Open `replica_farm` with a `PrivatePostgres`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcc.config.farm import Farm
from hpcc.config.private_file import write_private_file
from hpcc.control.database import read_database_config
from hpcc.control.schema import migrate
from hpcc.core import Isolation
from hpcc.identity.tls import PinnedPeer
from hpcc.ports import SystemClock
from hpcc.rpc.base.channel import open_channel
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.worker.base.config import WorkerConfig
from hpcc.worker.base.identity import enrol_worker, read_token
from hpcc.worker.serve import serve_worker
from hpcc_testkit.farm.enrolled import token_file
from hpcc_testkit.farm.in_process import IMAGE, TENANT, FakeImages
from hpcc_testkit.farm.memory_audit import MemoryAuditLog
from hpcc_testkit.guests.fake_runtime import FakeRuntime
from hpcc_testkit.services.postgres import PrivatePostgres
from hpcc_testkit.suite.pipes import gone

_START_SECONDS: Final = 60.0
ROLE: Final = "schedulers"


@dataclass(slots=True)
class Replica:
    """One scheduler. It keeps its port and its certificate over restarts."""

    name: str
    config: Path
    port: int = 0
    worker_port: int = 0
    certificate_pem: str = ""
    admin: str = ""
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hpcc.scheduler", "--config", str(self.config),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout is not None
        async with asyncio.timeout(_START_SECONDS):
            ready = json.loads(await self.process.stdout.readline())
        self.certificate_pem, self.admin = ready["certificate_pem"], ready["admin"]
        if not self.port:
            self.port, self.worker_port = ready["port"], ready["worker_port"]
            ports = {"port": self.port, "worker_port": self.worker_port}
            table = {**json.loads(self.config.read_bytes()), **ports}
            write_private_file(self.config, json.dumps(table).encode())

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        process, self.process = self.process, None
        if process is not None and process.returncode is None:
            process.send_signal(number)
            await gone(process)

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[SchedulerClient]:
        peer = PinnedPeer.from_pem(self.certificate_pem.encode())
        async with open_channel(
            f"127.0.0.1:{self.port}", certificate_pem=peer.certificate_pem, name=peer.name
        ) as channel:
            yield SchedulerClient(channel)


@dataclass(slots=True)
class ReplicaFarm:
    """Two schedulers, a database, and the settings that workers and daemons need for them."""

    directory: Path
    cluster: PrivatePostgres
    database: str
    replicas: tuple[Replica, Replica]
    lease_seconds: float
    tenant_secret: str = field(repr=False)

    @property
    def addresses(self) -> str:
        return ",".join(f"127.0.0.1:{r.port}" for r in self.replicas)

    @property
    def certificates(self) -> str:
        return "".join(r.certificate_pem for r in self.replicas)

    def config(self, replica: int = 0) -> SchedulerConfig:
        """Return the config of a replica, for calls of command-line functions."""
        table = json.loads(self.replicas[replica].config.read_bytes())
        return SchedulerConfig(**{**table, "keys": Path(table["keys"])})

    def farm(self, principal: str = "ann") -> Farm:
        return Farm(
            scheduler=self.addresses,
            scheduler_certificate_pem=self.certificates,
            tenant=TENANT.value,
            principal=principal,
            secret=self.tenant_secret,
            image=str(IMAGE),
            isolation=Isolation.LOCAL_NONE.value,
        )

    @asynccontextmanager
    async def worker(self, name: str = "w1") -> AsyncGenerator[FakeRuntime]:
        """Run a worker with fake guests that may talk to either replica."""
        base = self.directory / name
        (base / "guests").mkdir(parents=True)
        (base / "image").touch()
        config = WorkerConfig(
            worker_id=name, keys=base / "keys", store=base / "store", audit=base / "audit",
            images=base / "images", guest_assets=base / "assets", state=base / "state",
            scheduler=",".join(f"127.0.0.1:{r.worker_port}" for r in self.replicas),
            scheduler_certificate_pem=self.certificates, image_digests=(IMAGE.digest.value,),
            drain_seconds=5.0,
        )  # fmt: skip
        token = await token_file(self.config(), SystemClock(), base / "token", name)
        await enrol_worker(
            config.keys, scheduler=f"127.0.0.1:{self.replicas[0].port}",
            certificate_pem=self.replicas[0].certificate_pem.encode(), token=read_token(token),
            worker_id=name,
        )  # fmt: skip
        runtime = FakeRuntime(base / "guests")
        async with serve_worker(
            config, runtime=runtime, images=FakeImages(base / "image"), audit=MemoryAuditLog(),
            clock=SystemClock(), progress=lambda _: None,
        ):  # fmt: skip
            yield runtime


@asynccontextmanager
async def replica_farm(
    directory: Path, cluster: PrivatePostgres, database: str, *, lease_seconds: float = 10.0
) -> AsyncGenerator[ReplicaFarm]:
    """Run two replicas while the block runs, with a separate database and a separate role."""
    owner = cluster.make_database(database)
    if ROLE not in cluster.sql("postgres", "SELECT rolname FROM pg_roles").split():
        cluster.sql("postgres", f"CREATE ROLE {ROLE} LOGIN")
    await migrate(read_database_config(owner), role=ROLE)
    seal = directory / "sealing.key"
    write_private_file(seal, secrets.token_urlsafe(32).encode())
    tenant_secret = secrets.token_urlsafe(32)
    replicas = (
        Replica("a", directory / "a.json"),
        Replica("b", directory / "b.json"),
    )
    for replica in replicas:
        table = {
            "keys": str(directory / replica.name / "keys"),
            "database": cluster.url(database, ROLE),
            "sealing_key": str(seal),
            "tenant": TENANT.value,
            "tenant_secret": tenant_secret,
            "minimum_isolation": Isolation.LOCAL_NONE.value,
            "lease_seconds": lease_seconds,
            "admin": "127.0.0.1:0",
        }
        write_private_file(replica.config, json.dumps(table).encode())
    farm = ReplicaFarm(directory, cluster, database, replicas, lease_seconds, tenant_secret)
    try:
        async with asyncio.TaskGroup() as group:
            for replica in replicas:
                group.create_task(replica.start())
        yield farm
    finally:
        for replica in replicas:
            await replica.end()
