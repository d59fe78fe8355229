"""Builds a worker from its configuration and serves; on return nothing of it is left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from hpcc import __version__
from hpcc.audit.limiter import EventLimiter
from hpcc.audit.log import SpoolAuditLog
from hpcc.audit.metered import MeteredAuditLog
from hpcc.core import GuestReuse, ImageDigest, ImageToolchains, InfrastructureError, TenantId
from hpcc.identity.keys import load_or_create_tls
from hpcc.identity.result_keys import ResultKeys
from hpcc.identity.tls import ends_at
from hpcc.obs.health.health import Health
from hpcc.obs.metrics.admin import serve_admin
from hpcc.ports import AuditLog, Clock, Runtime, SecurityEvent
from hpcc.rpc.base.channel import ServerTls, start_server
from hpcc.rpc.base.health import health_handlers
from hpcc.rpc.base.process import leaf_error
from hpcc.rpc.base.timed import timed
from hpcc.rpc.reapi.server import reapi_handlers
from hpcc.rpc.scheduler.api import Admission, Registration, ShareAsk, ShareGrants
from hpcc.rpc.scheduler.audit_api import AuditClient
from hpcc.rpc.scheduler.client import RegistryClient
from hpcc.worker.audit.sinks import TrailSink, audit_sinks
from hpcc.worker.base.config import WorkerConfig
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.base.identity import SchedulerChannels, known_certificates, ready_identity
from hpcc.worker.base.metrics import WorkerMetrics
from hpcc.worker.base.result_key import ResultKeyFiles
from hpcc.worker.base.stores_config import parse_stores
from hpcc.worker.drain import Drain
from hpcc.worker.execute.authorizer import WorkerAuthorizer
from hpcc.worker.execute.deduper import ExecutionDeduper
from hpcc.worker.execute.meeting import WorkerMeeting
from hpcc.worker.execute.runner import Runner, RunnerConfig
from hpcc.worker.execute.session import SessionDeps
from hpcc.worker.execute.sharing import ResultSharing
from hpcc.worker.execute.toolchains import Prober, ToolchainBook
from hpcc.worker.execute.verify import IdleVerifier
from hpcc.worker.facts import worker_facts
from hpcc.worker.figures import show_execution, show_link, show_stores, show_trail
from hpcc.worker.health import WorkerSources, watch_worker
from hpcc.worker.link import LinkState, SchedulerLink, registration_of
from hpcc.worker.pool.guests import limits_of, shape_of
from hpcc.worker.pool.pool import GuestPool, ImageProvider
from hpcc.worker.pool.report import GuestsReport
from hpcc.worker.stores.entries import outputs_of
from hpcc.worker.stores.kept_inputs import kept_inputs_or_none
from hpcc.worker.stores.quotas import Quotas
from hpcc.worker.stores.shared import SharedStoreDeps, SharedStores
from hpcc.worker.stores.storage import TenantStorage
from hpcc.worker.stores.store_stats import StoreStats
from hpcc.worker.waits import RecentWaits

_log: Final = logging.getLogger(__name__)
TLS_NAME: Final = "worker.hpcc.internal"
_GRACE_SECONDS: Final = 1.0
# Large outputs of the last compiles, on a slow network.
_FETCH_SECONDS: Final = 10.0
# A result that is not published by then is made again elsewhere.
_PUBLISH_SECONDS: Final = 3.0
_LEAVE_SECONDS: Final = 2.0
# What runs at a worker that no scheduler accepts any more may take so long.
_REFUSED_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class RunningWorker:
    """The address and isolation of a running worker; `shared` waits for what it publishes."""

    host: str
    port: int
    isolation: str
    shared: Callable[[], Awaitable[None]]
    # Ends what still runs while the worker stops.
    hurry: Callable[[], None]
    # HOST:PORT of the admin port; "" if there is none.
    admin: str = ""


class _Parts:
    """The object graph of one worker, and the callbacks between its parts."""

    def __init__(
        self,
        config: WorkerConfig,
        runtime: Runtime,
        images: ImageProvider,
        audit: AuditLog,
        clock: Clock,
        group: asyncio.TaskGroup,
        registry: RegistryClient,
        metrics: WorkerMetrics,
    ) -> None:
        self.registry, self.metrics = registry, metrics
        # What the anchors of heartbeats are of. All else writes through what counts.
        self.spool = audit if isinstance(audit, SpoolAuditLog) else None
        audit = MeteredAuditLog(audit, metrics.audit, clock, metrics.row)
        self.keys = ResultKeyFiles(config.keys, clock, config.result_key_announce_seconds)
        self.config, self.runtime, self.audit, self.clock = config, runtime, audit, clock
        self.reuse = GuestReuse(config.guest_reuse)
        self.link: SchedulerLink | None = None
        self.prober: Prober | None = None
        self.images, self.shape = images, shape_of(config)
        self.pool = GuestPool(
            limits_of(config), self.shape, runtime, images, group, self.on_lost, clock
        )
        runner_config = RunnerConfig(
            worker=config.worker_id,
            memory_mib=config.guest_memory_mib,
            max_wall_seconds=config.max_wall_seconds,
            audit_argv=config.audit_argv,
            by_image=self.shape.by_image,
        )
        deps = SharedStoreDeps(audit=audit, clock=clock, group=group, refers_to=outputs_of)
        self.shared = SharedStores(parse_stores(config.stores), deps)
        storage = TenantStorage(config.store, config.max_store_bytes, clock, self.shared)
        show_stores(metrics, storage, self.shared)
        waits = RecentWaits(clock)
        self.facts = worker_facts(storage, waits, clock)
        show_link(metrics, lambda: self.link, clock)
        show_trail(metrics, self.spool, lambda: self.sinks)
        retained = kept_inputs_or_none(config, clock)
        self.sinks: tuple[TrailSink, ...] = ()
        # These tasks never end by themselves: `serve_worker` cancels them.
        self.chores: list[asyncio.Task[None]] = []
        if retained is not None:
            self.chores.append(group.create_task(retained.sweep(), name="retained inputs"))
        self.runner = Runner(
            runner_config, storage, self.pool, audit, clock, self.keys.signer, retained=retained
        )
        show_execution(metrics, self.pool.core, limits_of(config), self.runner, waits)
        keys = ResultKeys(self.result_key, clock)
        events = EventLimiter(audit, clock)
        self.sharing = ResultSharing(storage, self.keys.signer, keys, clock, events)
        self.runner.sharing = self.sharing
        quotas, deduper = Quotas(storage, clock), ExecutionDeduper(group)
        self.leases = quotas.leases
        self.drain = Drain(self.pool, quotas, deduper, self.sharing, config.state, audit, clock)
        jobs = {"shared results": self.sharing.run(), "drain": self.drain.run()}
        jobs["stores report"] = StoreStats(config.state, self.shared.counters, clock).run()
        jobs["guests report"] = GuestsReport(config.state, self.numbers, clock).run()
        self.chores += [group.create_task(job, name=name) for name, job in jobs.items()]
        verifier = IdleVerifier(self.runner, self.pool, quotas, storage, self.sharing, clock)
        self.chores.append(group.create_task(verifier.run(), name="idle verification"))
        session_deps = SessionDeps(
            storage=storage,
            deduper=deduper,
            runner=self.runner,
            audit=audit,
            events=events,
            clock=clock,
            isolation=runtime.isolation,
            reuse=self.reuse,
            quotas=quotas,
            result_keys=keys,
            sharing=self.sharing,
            admitted=verifier.note,
        )
        self.meeting = WorkerMeeting(session_deps)
        self.authorizer = WorkerAuthorizer(session_deps, self.refresh_keys)

    async def result_key(self, tenant: TenantId, kid: str) -> bytes | None:
        """Fetch a result key from the scheduler.

        The worker's own key is answered locally if the scheduler is unreachable.
        """
        try:
            return await self.registry.result_key(tenant, kid)
        except InfrastructureError:
            if (own := self.keys.public_or_none(kid)) is not None:
                return own
            raise

    async def lease(self, asks: Sequence[ShareAsk]) -> ShareGrants:
        return await self.registry.lease_shares(self.config.worker_id, asks)

    async def on_lost(self, guest_id: str, reason: str) -> None:
        fields = (("guest", guest_id), ("reason", reason[:200]))
        self.metrics.guests_lost.add()
        try:
            now = self.clock.now()
            await self.audit.event(SecurityEvent(name="guest-lost", at=now, fields=fields))
        finally:
            # A full disk here must not let others dial a dead guest.
            if self.link is not None:
                await self.link.guest_lost(guest_id, reason)

    def numbers(self) -> dict[str, int]:
        """Return counts for `hpcc status`: of guests, and of what was shared."""
        return self.pool.numbers() | {f"sharing.{k}": v for k, v in self.sharing.counters.items()}

    async def refresh_keys(self) -> bool:
        return self.link is not None and await self.link.refresh_keys()

    def on_admission(self, admission: Admission) -> None:
        self.runner.scheduler_id = admission.scheduler_id
        self.authorizer.admit(
            dict(admission.token_keys),
            issuer=admission.scheduler_id,
            audience=admission.audience,
        )

    def state(self) -> LinkState:
        return LinkState(
            running=self.pool.running, queued=self.pool.queued, drain=self.drain.state,
            anchor=self.spool.signed_anchor() if self.spool is not None else None,
            prove=self.spool.signed_tree if self.spool is not None else None,
            drain_seconds=self.drain.seconds_left, facts=self.facts(),
        )  # fmt: skip

    async def compilers(
        self, book: ToolchainBook, progress: Callable[[str], None]
    ) -> tuple[ImageToolchains, ...]:
        """Return which compilers the offered images have."""
        self.prober = Prober(
            self.runtime, self.images, book, self.shape, vcpus=self.config.vcpus, clock=self.clock
        )
        return await self.prober.learn(map(ImageDigest, self.config.image_digests), progress)

    async def learn_rest(self, link: SchedulerLink) -> None:
        """Ask the images without an answer again, while compiles run."""
        if self.prober is None:
            return
        try:
            await self.prober.learn_rest(lambda: self.pool.has_room, link.learned)
        except Exception:  # noqa: BLE001 - the root of a task: without it the worker serves as well
            _log.exception("images cannot be asked again for their compilers")

    async def prewarm(self) -> None:
        """Boot a guest for the tenant and principal of this machine; wait until it answers."""
        domain = TrustDomain.of(
            tenant=TenantId(self.config.prewarm_tenant),
            image=ImageDigest(self.config.image_digests[0]),
            isolation=self.runtime.isolation,
            reuse=self.reuse,
            principal=self.config.prewarm_principal,
        )
        await self.pool.prewarm(domain)


@asynccontextmanager
async def serve_worker(
    config: WorkerConfig,
    *,
    runtime: Runtime,
    images: ImageProvider,
    audit: AuditLog,
    clock: Clock,
    progress: Callable[[str], None],
    toolchains: ToolchainBook | None = None,
    metrics: WorkerMetrics | None = None,
) -> AsyncGenerator[RunningWorker]:
    """Serve while the block runs; on return every guest is gone.

    `metrics` is for a caller that counts with them, too, or has a service's health.

    Raises:
        InfrastructureError: keys, address or the first guest fail.
        PolicyError: the scheduler refuses this worker.
    """
    try:
        async with _serving(
            config,
            runtime=runtime,
            images=images,
            audit=audit,
            clock=clock,
            progress=progress,
            toolchains=toolchains,
            metrics=metrics or WorkerMetrics(__version__),
        ) as running:
            yield running
    except BaseExceptionGroup as group:
        raise leaf_error(group) from None


@asynccontextmanager
async def _serving(
    config: WorkerConfig,
    *,
    runtime: Runtime,
    images: ImageProvider,
    audit: AuditLog,
    clock: Clock,
    progress: Callable[[str], None],
    toolchains: ToolchainBook | None,
    metrics: WorkerMetrics,
) -> AsyncGenerator[RunningWorker]:
    health = metrics.service.health
    health.end_seconds = config.end_seconds
    tls = load_or_create_tls(config.keys, TLS_NAME, clock=clock)
    identity = await ready_identity(config, clock, progress)
    known = known_certificates(config.scheduler_certificate_pem, config.keys)
    channels = SchedulerChannels(config.keys, identity, clock, config.scheduler, known)
    metrics.service.name_tenants(config.admin_tenants)
    async with (
        channels.open() as schedulers,
        serve_admin(config.admin, metrics.service, clock) as admin,
        asyncio.TaskGroup() as group,
    ):
        registry = RegistryClient(schedulers)
        parts = _Parts(config, runtime, images, audit, clock, group, registry, metrics)
        metrics.service.ends("server", partial(ends_at, tls.certificate_der))
        metrics.service.ends("worker", lambda: channels.identity.expires_at)
        receiver = AuditClient(lambda: registry.schedulers)
        parts.sinks = audit_sinks(config, audit, receiver, clock)
        sources = WorkerSources(
            link=lambda: parts.link,
            certificate_ends_at=lambda: channels.identity.expires_at,
            pool=parts.pool,
            places=limits_of(config).capacity * config.vcpus,
            images=images,
            audit=audit,
            audit_metrics=metrics.audit,
        )
        jobs = watch_worker(health, config, sources, clock)
        parts.chores += [group.create_task(job, name=name) for name, job in jobs.items()]
        handlers = (*reapi_handlers(parts.authorizer, parts.meeting), *health_handlers(health))
        server, port = await start_server(
            timed(handlers, metrics.service.called, clock),
            host=config.host,
            port=config.port,
            tls=ServerTls(tls.key_pem, tls.certificate_pem),
            connections_per_address=config.connections_per_address,
        )
        try:
            compilers = await parts.compilers(toolchains, progress) if toolchains else ()
            if config.prewarm_tenant and config.image_digests:
                progress(f"booting the first guest ({runtime.isolation})")
                await parts.prewarm()
            progress("registering with the scheduler")
            registration = registration_of(
                config, port, tls.certificate_der, runtime.isolation, compilers
            )
            async with (
                channels.kept(schedulers, registry.use),
                parts.leases.asked(parts.lease, lambda: parts.pool.drain(0.0)),
                _linked(parts, parts.keys.put_into(registration), channels, health),
            ):
                label = runtime.isolation.value
                calls = parts.sharing.wait_idle, parts.drain.hurry
                health.serving()
                yield RunningWorker(config.host, port, label, *calls, admin)
        finally:
            health.stopping()
            # Without effect after a drain. A start that failed, or a refusal, leaves guests.
            await parts.pool.drain(0.0)
            for chore in parts.chores:
                chore.cancel()
            await server.stop(_FETCH_SECONDS if parts.drain.has_last_callers else _GRACE_SECONDS)
            await parts.shared.close(_PUBLISH_SECONDS)


@asynccontextmanager
async def _linked(
    parts: _Parts, registration: Registration, channels: SchedulerChannels, health: Health
) -> AsyncGenerator[None]:
    """Stay registered while the block runs and what it began; then deregister, within seconds."""
    link = SchedulerLink(
        parts.registry,
        registration,
        parts.clock,
        state=parts.state,
        on_admission=parts.on_admission,
        keys=parts.keys,
        on_certificates=channels.learn,
        on_drain=parts.drain.heard,
    )
    link.progress, link.noted = health.starting, parts.metrics.noted
    admission = await link.register()
    parts.link = link
    parts.drain.changed = link.hurry
    async with asyncio.TaskGroup() as group:
        beats = group.create_task(link.run(admission.lease_seconds), name="heartbeats")
        tasks = [beats, group.create_task(parts.keys.run(link.key_signs), name="result key")]
        tasks += [group.create_task(parts.learn_rest(link), name="image probes")]
        tasks += [group.create_task(sink.run(), name="audit sink") for sink in parts.sinks]
        try:
            yield
        finally:
            # A worker that was refused has nobody who accepts what it makes.
            seconds = _REFUSED_SECONDS if beats.done() else parts.config.drain_seconds
            await parts.drain.finish(seconds)
            for task in tasks:
                task.cancel()
            parts.link = None
            with suppress(TimeoutError):
                async with asyncio.timeout(_LEAVE_SECONDS):
                    await link.leave()
