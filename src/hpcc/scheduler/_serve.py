"""Builds a scheduler and serves until told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from hpcc.control import EmbeddedControlStore
from hpcc.identity import (
    TlsIdentity,
    key_id,
    load_or_create_signing_key,
    load_or_create_tls,
)
from hpcc.ports import Clock
from hpcc.rpc import ServerTls, scheduler_handlers, start_server
from hpcc.scheduler._anchors import AnchorStore
from hpcc.scheduler._config import SchedulerConfig
from hpcc.scheduler._result_keys import result_key_table
from hpcc.scheduler._service import SchedulerService
from hpcc.scheduler._tenants_door import Door, open_door
from hpcc.scheduler._watchers import MAX_WATCHERS

TLS_NAME = "scheduler.hpcc.internal"
STATE_NAME = "scheduler.sqlite"
_GRACE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class RunningScheduler:
    """Where a scheduler serves, and the certificate to pin."""

    host: str
    port: int
    certificate_pem: str
    scheduler_id: str


@asynccontextmanager
async def serve_scheduler(
    config: SchedulerConfig, clock: Clock, *, door: Door | None = None
) -> AsyncGenerator[RunningScheduler]:
    """Serve while the block runs; `door` is what `config` asks for, unless another is given.

    Raises:
        CallerError: the tenants table is not good.
        InfrastructureError: keys, state or address cannot be used.
    """
    key = load_or_create_signing_key(config.keys / "token-signing.key")
    tls = load_or_create_tls(config.keys, TLS_NAME, clock=clock)
    scheduler_id = f"scheduler-{key_id(key.public_key())[:12]}"
    door = door or open_door(config, clock)
    anchors = AnchorStore(config.state / STATE_NAME)
    try:
        with EmbeddedControlStore(config.state / STATE_NAME, clock) as store:
            service = SchedulerService(
                config,
                key,
                anchors,
                clock,
                scheduler_id=scheduler_id,
                door=door,
                result_keys=result_key_table(config, store, clock),
            )
            async with _served(config, service, door, tls) as port:
                certificate = tls.certificate_pem.decode()
                yield RunningScheduler(config.host, port, certificate, scheduler_id)
    finally:
        anchors.close()


@asynccontextmanager
async def _served(
    config: SchedulerConfig, service: SchedulerService, door: Door, tls: TlsIdentity
) -> AsyncGenerator[int]:
    server, port = await start_server(
        scheduler_handlers(service),
        host=config.host,
        port=config.port,
        tls=ServerTls(tls.key_pem, tls.certificate_pem),
        # Watches never end by themselves: they must not use up what logins need.
        more_rpcs=MAX_WATCHERS,
    )
    tasks = [
        asyncio.Task(service.expire_leases(), name="scheduler leases"),
        asyncio.Task(door.watch(), name="tenants"),
    ]
    try:
        yield port
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await server.stop(_GRACE_SECONDS)
