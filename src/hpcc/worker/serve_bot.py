"""Builds a bot from a worker's configuration and runs it; on return nothing of it is left."""

from __future__ import annotations

import asyncio
import platform
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc import __version__
from hpcc.audit.limiter import EventLimiter
from hpcc.audit.log import SpoolAuditLog
from hpcc.audit.metered import MeteredAuditLog
from hpcc.config.service_file import load_service_file
from hpcc.core import GuestReuse, InfrastructureError, TenantId
from hpcc.identity.keys import load_or_create_signing_key
from hpcc.identity.results import ResultSigner
from hpcc.obs.metrics.admin import serve_admin
from hpcc.ports import AuditLog, Clock, Runtime, SecurityEvent
from hpcc.reapi.platforms import isa_names
from hpcc.rpc.base.channel import ClientTls
from hpcc.rpc.base.process import leaf_error
from hpcc.rpc.engine.link import EngineAddress, EngineLink, open_link
from hpcc.rpc.engine.messages import properties_of
from hpcc.worker.audit.sinks import TrailSink, audit_sinks
from hpcc.worker.base.config import WorkerConfig
from hpcc.worker.base.engine_config import EngineConfig
from hpcc.worker.base.metrics import WorkerMetrics
from hpcc.worker.base.result_key import KEY_NAME
from hpcc.worker.drain import Drain
from hpcc.worker.engine.bot import BotIdentity, EngineBot
from hpcc.worker.engine.door import BotDoor, BotPlaces, NothingShared
from hpcc.worker.engine.lease import LeaseDeps, LeaseRunner
from hpcc.worker.engine.transfer import EngineTransfer, TransferLimits
from hpcc.worker.execute.runner import Runner, RunnerConfig
from hpcc.worker.figures import show_execution, show_trail
from hpcc.worker.health import WorkerSources, watch_worker
from hpcc.worker.pool.guests import limits_of, shape_of
from hpcc.worker.pool.pool import GuestPool, ImageProvider
from hpcc.worker.pool.report import GuestsReport
from hpcc.worker.serve import RunningWorker
from hpcc.worker.stores.kept_inputs import kept_inputs_or_none
from hpcc.worker.stores.storage import TenantStorage
from hpcc.worker.waits import RecentWaits

# What one session may hold. The engine sends metadata for each of them with every answer.
MAX_CAPACITY: Final = 64
_LEAVE_SECONDS: Final = 3.0
_MAX_PEM_BYTES: Final = 1 << 20
# Conditions that do not keep a bot from taking leases. Another guest may boot well, and another row
# be written: a bot that fails its leases rests (`LeaseRunner.is_resting`).
_NOT_ITS_OWN: Final = ("engine", "draining", "service", "guests", "audit")


@dataclass(frozen=True, slots=True)
class EngineCredential:
    """Content of the credential file of a bot."""

    token: str


@asynccontextmanager
async def serve_bot(
    config: WorkerConfig,
    engine: EngineConfig,
    *,
    runtime: Runtime,
    images: ImageProvider,
    audit: AuditLog,
    clock: Clock,
    progress: Callable[[str], None],
    metrics: WorkerMetrics | None = None,
) -> AsyncGenerator[RunningWorker]:
    """Run the bot while the block runs; on return every guest is gone.

    Raises:
        CallerError: a file of the engine's section cannot be used.
        InfrastructureError: keys, or a directory, fail.
    """
    try:
        async with _serving(
            config,
            engine,
            runtime=runtime,
            images=images,
            audit=audit,
            clock=clock,
            progress=progress,
            metrics=metrics or WorkerMetrics(__version__),
        ) as running:
            yield running
    except BaseExceptionGroup as group:
        raise leaf_error(group) from None


class _Parts:
    """The object graph of one bot."""

    def __init__(
        self,
        config: WorkerConfig,
        engine: EngineConfig,
        runtime: Runtime,
        images: ImageProvider,
        audit: AuditLog,
        clock: Clock,
        group: asyncio.TaskGroup,
        metrics: WorkerMetrics,
    ) -> None:
        self.config, self.engine, self.clock, self.metrics = config, engine, clock, metrics
        self.spool = audit if isinstance(audit, SpoolAuditLog) else None
        self.audit = audit = MeteredAuditLog(audit, metrics.audit, clock, metrics.row)
        self.limits = limits_of(config)
        self.pool = GuestPool(
            self.limits, shape_of(config), runtime, images, group, self._on_lost, clock
        )
        self.storage = TenantStorage(config.store, config.max_store_bytes, clock)
        retained = kept_inputs_or_none(config, clock)
        runner_config = RunnerConfig(
            worker=config.worker_id,
            memory_mib=config.guest_memory_mib,
            max_wall_seconds=config.max_wall_seconds,
            audit_argv=config.audit_argv,
            by_image=shape_of(config).by_image,
        )
        # No caller checks these signatures, and no result leaves with one.
        signer = ResultSigner(load_or_create_signing_key(config.keys / KEY_NAME), clock)
        self.runner = Runner(
            runner_config, self.storage, self.pool, audit, clock, signer, retained=retained
        )
        # An engine's clients are one principal, so they share guests only if the config says so.
        is_shared = config.guest_reuse == GuestReuse.TENANT.value
        self.reuse = GuestReuse.TENANT if is_shared else GuestReuse.EXEC
        self.deps = LeaseDeps(
            engine=engine,
            isolation=runtime.isolation,
            reuse=self.reuse,
            offered=_offered(engine),
            runner=self.runner,
            audit=audit,
            events=EventLimiter(audit, clock),
            clock=clock,
        )
        self.sinks: tuple[TrailSink, ...] = audit_sinks(config, audit, None, clock)
        show_trail(metrics, self.spool, lambda: self.sinks)
        show_execution(metrics, self.pool.core, self.limits, self.runner, RecentWaits(clock))
        report = GuestsReport(config.state, self.pool.numbers, clock).run()
        jobs = {"guests report": report}
        if retained is not None:
            jobs["retained inputs"] = retained.sweep()
        jobs |= {sink.name: sink.run() for sink in self.sinks}
        self.chores = [group.create_task(job, name=name) for name, job in jobs.items()]

    @property
    def capacity(self) -> int:
        """How many leases the guests can run at a time."""
        places = 1 if self.reuse is GuestReuse.EXEC else self.config.vcpus
        return min(self.limits.capacity * places, MAX_CAPACITY)

    def _is_well(self, leases: LeaseRunner) -> bool:
        """Whether a lease would probably end with a result and its row."""
        health = self.metrics.service.health
        if leases.is_resting or health.conditions().failed(_NOT_ITS_OWN):
            return False
        try:
            self.audit.require_room(self.engine.tenant)
        except InfrastructureError:
            return False
        return True

    async def bot(self, link: EngineLink) -> EngineBot:
        """Build the bot over an open link."""
        engine = self.engine
        store = await self.storage.blobs(TenantId(engine.tenant))
        limits = TransferLimits(
            input_bytes=engine.max_input_bytes, file_bytes=engine.max_file_bytes
        )
        leases = LeaseRunner(self.deps, store, EngineTransfer(link, store, limits))
        identity = BotIdentity(
            bot_id=self.config.worker_id,
            capacity=self.capacity,
            properties=offered_properties(engine),
        )
        bot = EngineBot(
            link,
            leases,
            engine,
            identity,
            self.clock,
            is_well=lambda: self._is_well(leases),
            token=lambda: _token(engine),
        )
        self.metrics.engine_up.read = lambda: [((), bot.is_up)]
        self.metrics.engine_leases.read = lambda: [
            ((name,), float(count)) for name, count in leases.counts.items()
        ]
        return bot

    async def _on_lost(self, guest_id: str, reason: str) -> None:
        fields = (("guest", guest_id), ("reason", reason[:200]))
        event = SecurityEvent(name="guest-lost", at=self.clock.now(), fields=fields)
        self.metrics.guests_lost.add()
        await self.audit.event(event)


@asynccontextmanager
async def _serving(
    config: WorkerConfig,
    engine: EngineConfig,
    *,
    runtime: Runtime,
    images: ImageProvider,
    audit: AuditLog,
    clock: Clock,
    progress: Callable[[str], None],
    metrics: WorkerMetrics,
) -> AsyncGenerator[RunningWorker]:
    health = metrics.service.health
    health.end_seconds = config.end_seconds
    metrics.service.name_tenants(config.admin_tenants)
    address = await asyncio.to_thread(engine_address, engine)
    async with (
        open_link(address) as link,
        serve_admin(config.admin, metrics.service, clock) as admin,
        asyncio.TaskGroup() as group,
    ):
        parts = _Parts(config, engine, runtime, images, audit, clock, group, metrics)
        bot = await parts.bot(link)
        places = BotPlaces(bot)
        drain = Drain(
            places,
            BotDoor(bot),
            (),
            NothingShared(),
            config.state,
            parts.audit,
            clock,
            has_callers=False,
        )
        sources = WorkerSources(
            link=lambda: bot,
            certificate_ends_at=None,
            pool=parts.pool,
            places=parts.capacity,
            images=images,
            audit=parts.audit,
            audit_metrics=metrics.audit,
            peer="engine",
            is_draining=lambda: not bot.book.is_open,
        )
        jobs = {**watch_worker(health, config, sources, clock), "drain": drain.run()}
        parts.chores += [group.create_task(job, name=name) for name, job in jobs.items()]
        session = group.create_task(bot.run(), name="engine")
        try:
            progress(f"beginning a session with {engine.name}")
            health.serving()
            label = runtime.isolation.value
            yield RunningWorker("", 0, label, _nothing, drain.hurry, admin)
            health.stopping()
            bot.end()
            await drain.finish(config.drain_seconds)
            if bot.is_up:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LEAVE_SECONDS):
                        await bot.left.wait()
        finally:
            health.stopping()
            session.cancel()
            places.over()
            await parts.pool.drain(0.0)
            for chore in parts.chores:
                chore.cancel()


async def _nothing() -> None:
    """A bot publishes nothing for colleagues."""


def offered_properties(engine: EngineConfig) -> tuple[tuple[str, str], ...]:
    """Return the platform properties that the engine's bot offers on this machine."""
    isa = isa_names(platform.machine())[0]
    return properties_of(engine.images, _system(), isa, engine.pool)


def _offered(engine: EngineConfig) -> Mapping[str, frozenset[str]]:
    """Return the values of the properties that an action may ask for, without the image."""
    isa = frozenset(isa_names(platform.machine()))
    offered = {"OSFamily": frozenset({_system()}), "ISA": isa, "Arch": isa}
    return {**offered, "Pool": frozenset({engine.pool})} if engine.pool else offered


def _system() -> str:
    return "windows" if sys.platform == "win32" else "linux"


def engine_address(engine: EngineConfig) -> EngineAddress:
    """Return where the engine is, with the content of the files that the section names.

    Raises:
        CallerError: one of them cannot be used.
    """
    client = None
    if engine.certificate_file:
        client = ClientTls(_pem(engine.key_file), _pem(engine.certificate_file))
    return EngineAddress(
        endpoints=engine.endpoints,
        cas_endpoints=engine.cas_endpoints,
        instance=engine.instance,
        token=_token(engine),
        ca_pem=_pem(engine.ca_file) if engine.ca_file else b"",
        client=client,
        call_seconds=engine.call_seconds,
        transfer_seconds=engine.transfer_seconds,
    )


def _token(engine: EngineConfig) -> str:
    if not engine.credentials:
        return ""
    return load_service_file(Path(engine.credentials), EngineCredential).token


def _pem(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_MAX_PEM_BYTES)
    except OSError as error:
        raise InfrastructureError(f"cannot read {path}: {error.strerror}") from error
