"""Builds a gateway from its configuration and serves until cancelled; it writes nothing to disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from hpcc import __version__
from hpcc.audit.syslog import open_syslog
from hpcc.gateway.certificate import CertificateFiles
from hpcc.gateway.config import GatewayConfig
from hpcc.gateway.front import GatewayFront
from hpcc.gateway.health import watch_gateway
from hpcc.gateway.metrics import GatewayMetrics
from hpcc.gateway.refusals import RefusalLog
from hpcc.gateway.routes import Routes
from hpcc.gateway.visitors import Visitors
from hpcc.identity.tls import PinnedPeer
from hpcc.obs.health.health import Health
from hpcc.obs.metrics.admin import serve_admin
from hpcc.obs.otlp.export import open_event_export
from hpcc.ports import Clock
from hpcc.rpc.base.channel import start_server
from hpcc.rpc.base.health import health_handlers
from hpcc.rpc.base.timed import timed
from hpcc.rpc.relay.link import RelayHandlers
from hpcc.rpc.relay.methods import MAX_RELAY_REQUEST_BYTES
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc.rpc.scheduler.schedulers import open_schedulers

_GRACE_SECONDS: Final = 5.0
# Calls above the limit get an error; this many more are read at all.
_MORE_RPCS: Final = 256
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_RELAY_REQUEST_BYTES),
    ("grpc.max_concurrent_streams", 512),
    ("grpc.max_connection_idle_ms", 600_000),
    # A client that disappeared silently would otherwise keep its executions running to their end.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """The address of a running gateway."""

    host: str
    port: int
    # HOST:PORT of the admin port; "" if there is none.
    admin: str = ""


@asynccontextmanager
async def serve_gateway(
    config: GatewayConfig, clock: Clock, *, health: Health | None = None
) -> AsyncGenerator[RunningGateway]:
    """Serve while the block runs. `health` is for a process with a service manager.

    Raises:
        CallerError: certificate, key or the scheduler's certificate cannot be used.
        InfrastructureError: an address cannot be bound.
    """
    files = CertificateFiles(config.certificate, config.key)
    tls = await asyncio.to_thread(files.read)
    peer = PinnedPeer.from_pem(config.scheduler_certificate_pem.encode())
    metrics = GatewayMetrics(__version__, health)
    service = metrics.service
    service.name_tenants(config.admin_tenants)
    service.ends("gateway", lambda: files.ends_at)
    async with (
        open_syslog(
            config.syslog_target(), service, clock, service="gateway", source=""
        ) as on_event,
        open_event_export(
            config.otlp_target(), service, clock, service="gateway", source=""
        ) as on_otlp,
        open_schedulers(
            config.scheduler, certificate_pem=peer.certificate_pem, name=peer.name, clock=clock
        ) as schedulers,
    ):
        client = SchedulerClient(schedulers)
        visitors = Visitors(client, clock, f"gateway {__version__}")
        routes = Routes(client, clock)
        refusals = RefusalLog(clock, metrics.refused, (service.reported, on_event, on_otlp))
        front = GatewayFront(config, visitors, routes, refusals, metrics)
        upstream = watch_gateway(service.health, schedulers, lambda: files.ends_at, clock)
        service.health.summary = lambda: f"calls: {front.calls}"
        handlers = (RelayHandlers(front.serve, refusals.note), *health_handlers(service.health))
        server, port = await start_server(
            timed(handlers, service.called, clock),
            host=config.host,
            port=config.port,
            tls=tls,
            files=files,
            more_rpcs=config.max_calls + _MORE_RPCS,
            options=_OPTIONS,
            connections_per_address=config.connections_per_address,
        )
        watching = asyncio.Task(upstream.run(), name="schedulers")
        try:
            async with serve_admin(config.admin, service, clock) as admin:
                service.health.serving()
                yield RunningGateway(config.host, port, admin)
        finally:
            service.health.stopping()
            watching.cancel()
            await server.stop(_GRACE_SECONDS)
            await routes.close()
