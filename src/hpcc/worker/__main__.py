"""`python -m hpcc.worker --config FILE`: prints progress and a ready line as JSON, then serves."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcc import __version__
from hpcc.audit.log import open_audit_log
from hpcc.audit.syslog import open_syslog
from hpcc.config.private_file import make_directory, make_private_directory
from hpcc.config.service_file import load_service_file
from hpcc.core import ImageDigest, NotFoundError, Toolchain
from hpcc.identity.keys import trail_key
from hpcc.images.store import ImageStore
from hpcc.images.survey import Survey
from hpcc.images.toolchains import label_trouble
from hpcc.obs.otlp.export import open_event_export
from hpcc.ports import AuditLog, Clock, SecurityEvent, SystemClock
from hpcc.rpc.base.process import ServiceProcess, run_service
from hpcc.worker.audit.retention import retention_inbox
from hpcc.worker.base.config import AUDIT_KEY_NAME, WorkerConfig
from hpcc.worker.base.identity import ready_identity
from hpcc.worker.base.metrics import WorkerMetrics
from hpcc.worker.pool.guests import runtime_of
from hpcc.worker.serve import RunningWorker, serve_worker
from hpcc.worker.serve_bot import serve_bot

if TYPE_CHECKING:
    from hpcc.runtime.vm.warm import WarmStart

_log: Final = logging.getLogger(__name__)


class _Images:
    """`ImageProvider` and `ToolchainBook` over the images prepared on this machine."""

    def __init__(self, store: ImageStore, clock: Clock) -> None:
        self._store, self._clock = store, clock

    async def image(self, digest: ImageDigest) -> Path:
        if sys.platform == "win32":  # containerd has the image, by its digest
            return Path()
        found = await asyncio.to_thread(self._store.get, digest)
        if found is None:
            raise NotFoundError(
                f"image {digest} is not prepared here, or was damaged and is removed: "
                "`hpcc image pull` or `hpcc image build-debian` makes it again",
                reason="no-image",
            )
        return found.path

    async def known(self, image: ImageDigest) -> tuple[Toolchain, ...] | None:
        return await asyncio.to_thread(self._store.answers(image).toolchains)

    async def keep(self, image: ImageDigest, survey: Survey) -> None:
        try:
            await asyncio.to_thread(self._store.answers(image).keep, survey, self._clock.now())
        except OSError as error:
            _log.warning("compilers of image %s cannot be kept: %s", image, error)
        if not survey.is_complete:
            return  # a label can be compared only with a complete answer
        prepared = await asyncio.to_thread(self._store.get, image)
        if prepared is None:
            return
        if trouble := label_trouble(dict(prepared.labels), survey.compilers):
            _log.warning("image %s: %s", image, trouble)


@asynccontextmanager
async def _images(config: WorkerConfig, clock: Clock) -> AsyncGenerator[_Images]:
    store = ImageStore(config.images, clock)
    try:
        yield _Images(store, clock)
    finally:
        await asyncio.to_thread(store.close)


@asynccontextmanager
async def _warm_start(
    config: WorkerConfig, audit: AuditLog, clock: Clock
) -> AsyncGenerator[WarmStart | None]:
    if not config.warm_start or sys.platform == "win32":  # Windows guests always boot
        yield None
        return
    from hpcc.runtime.vm.warm import WarmStart
    from hpcc.runtime.vm.warm import open_store as open_snapshots

    async def on_event(name: str, fields: tuple[tuple[str, str], ...]) -> None:
        await audit.event(SecurityEvent(name=name, at=clock.now(), fields=fields))

    store = open_snapshots(config.state, config.max_snapshot_bytes)
    async with WarmStart(store, clock, on_event) as warm:
        yield warm


@asynccontextmanager
async def _served(
    config: WorkerConfig,
    process: ServiceProcess,
    images: _Images,
    audit: AuditLog,
    clock: Clock,
    warm: WarmStart | None,
    metrics: WorkerMetrics,
) -> AsyncGenerator[RunningWorker]:
    """Serve a farm, or an engine."""
    runtime, engine = await runtime_of(config, process, clock, warm), config.engine_or_none
    progress = process.progress
    if engine is not None:
        async with serve_bot(
            config,
            engine,
            runtime=runtime,
            images=images,
            audit=audit,
            clock=clock,
            progress=progress,
            metrics=metrics,
        ) as bot:
            yield bot
        return
    async with serve_worker(
        config,
        runtime=runtime,
        images=images,
        audit=audit,
        clock=clock,
        progress=progress,
        toolchains=images,
        metrics=metrics,
    ) as worker:
        yield worker


async def main(process: ServiceProcess) -> None:
    """Serve until cancelled. On return every guest is gone."""
    config = load_service_file(process.config_path, WorkerConfig)
    process.log.configured(config.log_format)
    clock = SystemClock()
    for private in (config.state, config.store):
        make_private_directory(private)
    # VMMs read there under separate uids; on Windows only the worker reads there.
    make_shared = make_private_directory if sys.platform == "win32" else make_directory
    for shared in (config.images, config.guest_assets):
        make_shared(shared)
    if config.engine_or_none is None:
        # Before the minutes of a first start, so that an invalid token is reported at once.
        await ready_identity(config, clock, process.progress)
    metrics = WorkerMetrics(__version__, process.health)
    async with (
        open_syslog(
            config.syslog_target(),
            metrics.service,
            clock,
            service="worker",
            source=config.worker_id,
        ) as on_event,
        open_event_export(
            config.otlp_target(),
            metrics.service,
            clock,
            service="worker",
            source=config.worker_id,
        ) as on_otlp,
        open_audit_log(
            config.audit,
            worker=config.worker_id,
            key=trail_key(config.keys / AUDIT_KEY_NAME),
            mark=config.keys / f"{AUDIT_KEY_NAME}.signs-records",
            clock=clock,
            limits=config.audit_limits,
            listeners=(metrics.event, on_event, on_otlp),
        ) as audit,
        retention_inbox(config.state, audit, clock),
        _images(config, clock) as images,
        _warm_start(config, audit, clock) as warm,
        _served(config, process, images, audit, clock, warm, metrics) as running,
    ):
        process.on_hurry = running.hurry
        process.ready(
            {
                "host": running.host,
                "port": running.port,
                "isolation": running.isolation,
                "worker_id": config.worker_id,
                "admin": running.admin,
            }
        )
        await process.wait_stop()


if __name__ == "__main__":
    raise SystemExit(run_service("worker", main))
