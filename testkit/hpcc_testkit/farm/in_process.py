"""A whole farm in one process for tests: scheduler and worker on loopback, fake guests.

Open `farm_under_test`, then start its worker with `serving`.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.config.farm import Farm
from hpcc.core import ImageDigest, ImageRef, Isolation, NotFoundError, TenantId
from hpcc.identity.key_ring import KeyRing, Sealer
from hpcc.identity.tls import PinnedPeer
from hpcc.ports import AuditLog, Clock, SystemClock
from hpcc.rpc.base.channel import open_channel
from hpcc.rpc.reapi.client import ReapiClient
from hpcc.rpc.reapi.service_calls import ReapiClientConfig
from hpcc.rpc.scheduler.api import Route, RouteAsk
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc.rpc.scheduler.schedulers import Schedulers, open_schedulers
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.serve import RunningScheduler, serve_scheduler
from hpcc.scheduler.tenants.authenticator import Authenticator
from hpcc.worker.base.config import WorkerConfig
from hpcc.worker.execute.toolchains import ToolchainBook
from hpcc.worker.serve import RunningWorker, serve_worker
from hpcc_testkit.farm.enrolled import token_file
from hpcc_testkit.farm.memory_audit import MemoryAuditLog
from hpcc_testkit.guests.fake_runtime import FakeRuntime
from hpcc_testkit.hostile.canaries import plant

TENANT: Final = TenantId("acme")
IMAGE: Final = ImageRef("test/gcc", ImageDigest("sha256:" + "ab" * 32))
OTHER_IMAGE: Final = ImageRef("test/gcc", ImageDigest("sha256:" + "cd" * 32))


class FakeImages:
    """`ImageProvider` with one image, which is an empty file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def image(self, digest: ImageDigest) -> Path:
        if digest != IMAGE.digest:
            raise NotFoundError("no such image", reason="no-image")
        return self._path


@dataclass(slots=True)
class FarmUnderTest:
    """The farm and its clients; all starts of the worker share `audit`."""

    directory: Path
    clock: Clock
    tenant_secret: str
    scheduler_config: SchedulerConfig
    runtime: FakeRuntime
    audit: MemoryAuditLog
    scheduler: RunningScheduler
    worker: RunningWorker | None = None
    worker_fields: dict[str, object] = field(default_factory=dict)
    # The toolchains of images; None means that no toolchain is looked up.
    book: ToolchainBook | None = None

    def farm(self, principal: str = "ann") -> Farm:
        """Return the farm.json that `hpcc up` would write."""
        return Farm(
            scheduler=f"{self.scheduler.host}:{self.scheduler.port}",
            scheduler_certificate_pem=self.scheduler.certificate_pem,
            tenant=TENANT.value,
            principal=principal,
            secret=self.tenant_secret,
            image=str(IMAGE),
            isolation=Isolation.LOCAL_NONE.value,
        )

    def signing_key(self) -> Ed25519PrivateKey:
        """Return the key that the scheduler signs route tokens with."""
        base = self.directory / "scheduler"
        with closing(sqlite3.connect(base / "state" / "scheduler.sqlite")) as db:
            (raw,) = db.execute("SELECT value FROM entry WHERE space = 'token-keys'").fetchone()
        ring = KeyRing.parse(raw)
        seal = Sealer((base / "keys" / "key-ring.seal").read_bytes())
        return seal.open(ring.issuer, ring.signing(self.clock.now()))

    def worker_config(self, name: str = "w1", **fields: object) -> WorkerConfig:
        base = self.directory / ("worker" if name == "w1" else name)
        values: dict[str, object] = {
            "worker_id": name,
            "keys": base / "keys",
            "store": base / "store",
            "audit": base / "audit",
            "images": base / "images",
            "guest_assets": base / "assets",
            "state": base / "state",
            "scheduler": f"{self.scheduler.host}:{self.scheduler.worker_port}",
            "scheduler_certificate_pem": self.scheduler.certificate_pem,
            "enrol_at": f"{self.scheduler.host}:{self.scheduler.port}",
            "enrol_token_file": str(base / "token"),
            "image_digests": (IMAGE.digest.value,),
            "drain_seconds": 5.0,
            **self.worker_fields,
            **fields,
        }
        return WorkerConfig(**values)  # type: ignore[arg-type]  # built by name just above

    async def enrolling(self, name: str = "w1", **fields: object) -> WorkerConfig:
        """Return a worker's config, after writing the enrolment token that it names."""
        config = self.worker_config(name, **fields)
        if config.enrol_token_file:
            token = Path(config.enrol_token_file)
            await token_file(self.scheduler_config, self.clock, token, config.worker_id)
        return config

    @asynccontextmanager
    async def serving(self, audit: AuditLog | None = None) -> AsyncGenerator[RunningWorker]:
        """Run the worker while the block runs."""
        (self.directory / "image").touch()
        config = await self.enrolling()
        async with serve_worker(
            config,
            runtime=self.runtime,
            images=FakeImages(self.directory / "image"),
            audit=audit or self.audit,
            clock=self.clock,
            progress=lambda _: None,
            toolchains=self.book,
        ) as worker:
            self.worker = worker
            yield worker

    async def route(
        self, principal: str = "ann", image: ImageRef = IMAGE, worker: str = ""
    ) -> Route:
        """Log in and ask for a route, as a daemon does; `worker` is the one that it prefers."""
        peer = PinnedPeer.from_pem(self.scheduler.certificate_pem.encode())
        async with open_channel(
            f"{self.scheduler.host}:{self.scheduler.port}",
            certificate_pem=peer.certificate_pem,
            name=peer.name,
        ) as channel:
            client = SchedulerClient(channel)
            grant = await client.authenticate(
                secret=self.tenant_secret, tenant=TENANT, principal=principal, client_version="t"
            )
            ask = RouteAsk(tenant=TENANT, image=image, preferred_worker=worker)
            return await client.route(grant.session, ask)

    @asynccontextmanager
    async def logged_in(self, who: str) -> AsyncGenerator[tuple[Schedulers, str]]:
        """Log in as `tenant/person`; yield the schedulers and the session."""
        tenant, person = who.split("/")
        peer = PinnedPeer.from_pem(self.scheduler.certificate_pem.encode())
        async with open_schedulers(
            f"{self.scheduler.host}:{self.scheduler.port}", name=peer.name,
            certificate_pem=peer.certificate_pem, clock=self.clock,
        ) as schedulers:  # fmt: skip
            grant = await SchedulerClient(schedulers).authenticate(
                secret=self.tenant_secret, tenant=TenantId(tenant), principal=person,
                client_version="t",
            )  # fmt: skip
            yield schedulers, grant.session

    @asynccontextmanager
    async def client(
        self, *, token: str = "", tenant: TenantId = TENANT, principal: str = "ann"
    ) -> AsyncGenerator[ReapiClient]:
        """Yield a REAPI client of the worker, with a good token unless another is given."""
        async with self.worker_channel(principal) as (channel, good):
            config = ReapiClientConfig(tenant=tenant, tool_version="test")
            yield ReapiClient(channel, token or good, config)

    @asynccontextmanager
    async def worker_channel(
        self, principal: str = "ann"
    ) -> AsyncGenerator[tuple[grpc.aio.Channel, str]]:
        """Yield a channel to the worker, and a good token."""
        route = await self.route(principal)
        peer = PinnedPeer.from_der(route.worker_certificate)
        async with open_channel(
            route.endpoint, certificate_pem=peer.certificate_pem, name=peer.name
        ) as channel:
            yield channel, route.token


class LaterClock(SystemClock):
    """The machine's clocks, of which `monotonic` is some seconds ahead."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


@asynccontextmanager
async def farm_under_test(
    directory: Path,
    *,
    clock: Clock | None = None,
    tenants: Path | None = None,
    authenticator: Authenticator | None = None,
    audit_database: str = "",
    admin: str = "",
    operators: tuple[str, ...] = (),
    **worker_fields: object,
) -> AsyncGenerator[FarmUnderTest]:
    """Run a scheduler while the block runs; start workers with `serving`.

    With `tenants`, the path of a table, there is no static tenant. `authenticator` replaces both.
    `audit_database` is where workers' records go, if they send any. `admin` is where scheduler and
    workers show their metrics; its port should be 0. `operators` see the farm of `tenants`.
    """
    clock = clock or SystemClock()
    tenant_secret = plant(secrets.token_urlsafe(32))
    config = SchedulerConfig(
        keys=directory / "scheduler" / "keys",
        state=directory / "scheduler" / "state",
        tenants=str(tenants or ""),
        tenant="" if tenants else TENANT.value,
        tenant_secret="" if tenants else tenant_secret,
        minimum_isolation="" if tenants else Isolation.LOCAL_NONE.value,
        audit_database=audit_database,
        admin=admin,
        operators=operators,
    )
    guests = directory / "guests"
    guests.mkdir(parents=True)
    async with serve_scheduler(config, clock, authenticator=authenticator) as scheduler:
        yield FarmUnderTest(
            directory=directory,
            clock=clock,
            tenant_secret=tenant_secret,
            scheduler_config=config,
            runtime=FakeRuntime(guests),
            audit=MemoryAuditLog(),
            scheduler=scheduler,
            worker_fields={"admin": admin, **worker_fields},
        )
