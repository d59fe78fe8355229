"""Builds a scheduler from its configuration and serves until cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc import __version__
from hpcc.audit.limiter import EventLimiter
from hpcc.audit.log import open_audit_log
from hpcc.audit.syslog import open_syslog
from hpcc.control.database import read_database_config
from hpcc.control.metered import MeteredControlStore
from hpcc.core import CallerError
from hpcc.files.disk import size_of_disk
from hpcc.identity.keys import (
    load_or_create_signing_key,
    read_secret_file,
)
from hpcc.identity.tls import TlsIdentity
from hpcc.obs.health.health import Health
from hpcc.obs.metrics.admin import AdminPage, serve_admin
from hpcc.obs.otlp.export import open_event_export
from hpcc.ports import Clock, ControlStore, SystemClock
from hpcc.rpc.base.channel import SMALL_MESSAGES, ServerTls, start_server
from hpcc.rpc.base.health import health_handlers
from hpcc.rpc.base.method import OnRefusal
from hpcc.rpc.base.timed import timed
from hpcc.rpc.scheduler.audit_api import audit_handlers
from hpcc.rpc.scheduler.enrolment import enrol_handlers, renew_handlers
from hpcc.rpc.scheduler.observe import observe_handlers
from hpcc.rpc.scheduler.server import registry_handlers, scheduler_handlers
from hpcc.scheduler.audit.book import AuditBook, kept_anchors
from hpcc.scheduler.audit.database import open_audit_sink
from hpcc.scheduler.audit.events import RefusalEvents
from hpcc.scheduler.audit.histories import Histories
from hpcc.scheduler.audit.intake import AuditIntake, AuditSink
from hpcc.scheduler.audit.recent import RecentEvents
from hpcc.scheduler.base.certificate import SchedulerCertificate
from hpcc.scheduler.base.collector import Collector
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.base.control_store import open_control
from hpcc.scheduler.base.metrics import SchedulerMetrics
from hpcc.scheduler.base.scale import PATH, ScaleBook
from hpcc.scheduler.base.signing import SigningKeys
from hpcc.scheduler.certificates import CertificateBook
from hpcc.scheduler.drains import Drains
from hpcc.scheduler.enrolment import Enrolment
from hpcc.scheduler.health import SchedulerSources, watch_scheduler
from hpcc.scheduler.registry import MAX_LEASE_SECONDS, MAX_WORKERS
from hpcc.scheduler.service import SchedulerService
from hpcc.scheduler.tenants.authenticator import (
    Authenticator,
    TableAuthenticator,
    open_authenticator,
)
from hpcc.scheduler.watchers import MAX_WATCHERS

_log: Final = logging.getLogger(__name__)
type KeyOf = Callable[[Path], Ed25519PrivateKey | Path]
EVENTS_KEY_NAME: Final = "events-signing.key"
_GRACE_SECONDS = 1.0
_MIN_TOKEN_CHARS: Final = 32


@dataclass(frozen=True, slots=True)
class RunningScheduler:
    """The addresses for daemons and workers, and the certificate to pin.

    `scheduler_id` is the same for all schedulers of a farm.
    """

    host: str
    port: int
    worker_port: int
    certificate_pem: str
    scheduler_id: str
    # HOST:PORT of the admin port; "" if there is none.
    admin: str = ""


@asynccontextmanager
async def serve_scheduler(
    config: SchedulerConfig,
    clock: Clock,
    *,
    authenticator: Authenticator | None = None,
    collector: Collector | None = None,
    health: Health | None = None,
    key_of: KeyOf = load_or_create_signing_key,
) -> AsyncGenerator[RunningScheduler]:
    """Serve while the block runs. `authenticator` defaults to the one that `config` describes.

    `collector` is for a process that runs nothing else, `health` for one with a service manager.
    `key_of` gives the key of the scheduler's trail for its file: by default one in this process.

    Raises:
        CallerError: the tenants table is invalid, or the database lacks its tables.
        InfrastructureError: keys, state or address cannot be used, or the control store stopped
            answering during the start.
    """
    files = SchedulerCertificate(config.keys, clock)
    tls = files.load()
    metrics = SchedulerMetrics(__version__, clock, health)
    health = metrics.service.health
    metrics.service.name_tenants(config.admin_tenants)
    metrics.service.ends("server", lambda: files.ends_at)
    authenticator = authenticator or open_authenticator(config, clock)
    recent = RecentEvents(clock)
    async with (
        open_control(config, clock, on_wait=health.starting) as (plain_store, keys),
        _events(config, keys.issuer, clock, metrics, recent, key_of) as events,
        _audit_sink_or_none(config, clock) as sink,
    ):
        store = MeteredControlStore(plain_store, clock, metrics.store_call)
        enrolment = enrolment_of(config, store, keys, clock)
        await enrolment.load()
        book = AuditBook(store, events, clock)
        certificates = CertificateBook(store, keys.sealer, clock)
        await certificates.keep(*files.own())
        drains = Drains(store, events, clock)
        # Before the first worker speaks: a mark holds over a restart.
        await drains.load()
        histories = Histories(store, events, clock, drains)
        service = SchedulerService(
            config,
            keys,
            store,
            clock,
            authenticator=authenticator,
            enrolment=enrolment,
            book=book,
            certificates=certificates,
            drains=drains,
            histories=histories,
            metrics=metrics,
            recent=recent,
        )
        scale = ScaleBook(
            config.worker_pools,
            members=service.members,
            is_store_up=lambda: service.sharing.is_up,
            lease_seconds=config.lease_seconds,
            clock=clock,
        )
        service.show(scale.loads)
        table = authenticator if isinstance(authenticator, TableAuthenticator) else None
        if table is not None:
            await table.load(store, keys.sealer, events)
        sources = SchedulerSources(
            store_trouble=lambda: service.sharing.trouble,
            tenants_trouble=lambda: table.trouble if table is not None else "",
            certificate_ends_at=lambda: files.ends_at,
            load=service.load,
        )
        disk = watch_scheduler(health, config, sources, clock)
        intake = AuditIntake(service.admit, sink, partial(kept_anchors, store))
        parts = _Parts(service, enrolment, intake, RefusalEvents(events), metrics)
        if collector is not None:
            collector.start()
        work = (
            partial(service.work, collector),
            keys.run,
            enrolment.run,
            partial(certificates.run, files.own),
            authenticator.watch,
            book.run,
            disk.run,
            drains.run,
            histories.run,
        )
        async with (
            _served(config, parts, tls, files) as (port, worker_port),
            _working(*work),
            serve_admin(config.admin, metrics.service, clock, _pages(config, scale)) as admin,
        ):
            certificate = tls.certificate_pem.decode()
            health.serving()
            try:
                yield RunningScheduler(
                    config.host, port, worker_port, certificate, keys.issuer, admin
                )
            finally:
                health.stopping()


def _pages(config: SchedulerConfig, scale: ScaleBook) -> dict[str, AdminPage]:
    file, token = config.scale_token_file, ""
    if file:
        token = read_secret_file(Path(file)).decode("ascii", "replace").strip()
        if len(token) < _MIN_TOKEN_CHARS:
            raise CallerError(
                f"{file}: a token has at least {_MIN_TOKEN_CHARS} characters: openssl rand -hex 32",
                reason="config",
            )
    return {PATH: AdminPage(scale.page, token)}


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the two ports serve."""

    service: SchedulerService
    enrolment: Enrolment
    intake: AuditIntake
    refusals: OnRefusal
    metrics: SchedulerMetrics

    def timed(self, *handlers: grpc.GenericRpcHandler) -> tuple[grpc.GenericRpcHandler, ...]:
        """Return handlers whose calls are measured."""
        return timed(handlers, self.metrics.service.called, SystemClock())


@asynccontextmanager
async def _served(
    config: SchedulerConfig, parts: _Parts, tls: TlsIdentity, files: SchedulerCertificate
) -> AsyncGenerator[tuple[int, int]]:
    """Serve daemons and workers on separate ports, because only workers show certificates."""
    service, enrolment, told = parts.service, parts.enrolment, parts.refusals
    workers, worker_port = await start_server(
        parts.timed(
            *registry_handlers(
                service, told, idle_seconds=2 * max(config.lease_seconds, MAX_LEASE_SECONDS)
            ),
            *renew_handlers(enrolment, told),
            *audit_handlers(parts.intake, service, told),
        ),
        host=config.host,
        port=config.worker_port,
        tls=ServerTls(tls.key_pem, tls.certificate_pem, enrolment.ca.certificate_pem),
        files=files,
        # One stream of heartbeats per worker, which must not use up what registering needs.
        more_rpcs=MAX_WORKERS,
        connections_per_address=config.connections_per_address,
    )
    try:
        daemons, port = await start_server(
            parts.timed(
                *scheduler_handlers(service, told),
                *observe_handlers(service.observing, told),
                *health_handlers(parts.metrics.service.health),
                *enrol_handlers(enrolment, worker_port, told),
            ),
            host=config.host,
            port=config.port,
            tls=ServerTls(tls.key_pem, tls.certificate_pem),
            files=files,
            # Watches never end by themselves and must not use up what logins need.
            more_rpcs=MAX_WATCHERS,
            # Strangers log in here, and no message of a daemon is larger.
            options=SMALL_MESSAGES,
            connections_per_address=config.connections_per_address,
        )
        try:
            yield port, worker_port
        finally:
            await daemons.stop(_GRACE_SECONDS)
    finally:
        await workers.stop(_GRACE_SECONDS)


@asynccontextmanager
async def open_enrolment(config: SchedulerConfig, clock: Clock) -> AsyncGenerator[Enrolment]:
    """Yield the enrolment of a configuration, for an operator's command.

    Raises:
        HpccError: as `open_control`.
    """
    async with open_control(config, clock, is_waiting=False) as (store, keys):
        enrolment = enrolment_of(config, store, keys, clock)
        await enrolment.load()
        yield enrolment


def enrolment_of(
    config: SchedulerConfig, store: ControlStore, keys: SigningKeys, clock: Clock
) -> Enrolment:
    """Return the enrolment of a scheduler with this configuration."""
    seconds = config.worker_certificate_seconds
    return Enrolment(
        store, keys.sealer, clock, certificate_seconds=seconds, pools=config.worker_pools
    )


@asynccontextmanager
async def _working(*work: Callable[[], Coroutine[None, None, None]]) -> AsyncGenerator[None]:
    """Run tasks beside the block; if one fails, the block ends with its error."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(w()) for w in work]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
    except BaseExceptionGroup as failed:
        if len(failed.exceptions) == 1:
            raise failed.exceptions[0] from None
        raise


@asynccontextmanager
async def _events(
    config: SchedulerConfig,
    name: str,
    clock: Clock,
    metrics: SchedulerMetrics,
    recent: RecentEvents,
    key_of: KeyOf,
) -> AsyncGenerator[EventLimiter]:
    """Yield the scheduler's own trail: its refusals, and faults that it found."""
    _, disk_bytes = await asyncio.to_thread(size_of_disk, config.events.parent)
    async with (
        open_syslog(
            config.syslog_target(), metrics.service, clock, service="scheduler", source=name
        ) as on_event,
        open_event_export(
            config.otlp_target(), metrics.service, clock, service="scheduler", source=name
        ) as on_otlp,
        open_audit_log(
            config.events,
            worker=name,
            key=key_of(config.keys / EVENTS_KEY_NAME),
            mark=config.keys / f"{EVENTS_KEY_NAME}.signs-records",
            clock=clock,
            limits=config.event_limits(disk_bytes),
            listeners=(metrics.audit.event, recent.put, on_event, on_otlp),
        ) as log,
    ):
        metrics.audit.show(log)
        yield EventLimiter(log, clock)


@asynccontextmanager
async def _audit_sink_or_none(
    config: SchedulerConfig, clock: Clock
) -> AsyncGenerator[AuditSink | None]:
    if not config.audit_database:
        yield None
        return
    password = config.audit_database_password_file
    database = read_database_config(config.audit_database, password)
    async with open_audit_sink(database, clock) as sink:
        yield sink
