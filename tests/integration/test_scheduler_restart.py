"""A scheduler restarts: workers reconnect, daemons log in again, and no state is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hpcc.config.farm import Farm
from hpcc.control.embedded import EmbeddedControlStore as ControlStore
from hpcc.core import Isolation, RemoteFailure, RemoteInput, RemoteRequest, RemoteResult
from hpcc.dispatch.compile import Dispatcher
from hpcc.dispatch.farm import connect_farm
from hpcc.obs.health.health import Health, ServicePhase
from hpcc.ports import ControlStoreError, Entry, SystemClock
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.drains import MARK_SPACE
from hpcc.scheduler.serve import serve_scheduler
from hpcc.worker.base.config import WorkerConfig
from hpcc.worker.base.metrics import WorkerMetrics
from hpcc.worker.serve import serve_worker
from hpcc_testkit.farm.enrolled import token_file
from hpcc_testkit.farm.in_process import IMAGE, TENANT, FakeImages
from hpcc_testkit.farm.memory_audit import MemoryAuditLog
from hpcc_testkit.guests.fake_runtime import FakeRuntime


def scheduler_config(directory: Path, port: int, worker_port: int = 0) -> SchedulerConfig:
    return SchedulerConfig(
        keys=directory / "sk", state=directory / "ss", tenant=TENANT.value,
        tenant_secret="a" * 43,
        minimum_isolation=Isolation.LOCAL_NONE.value, port=port,
        worker_port=worker_port, lease_seconds=0.8,
    )  # fmt: skip


async def test_a_scheduler_that_cannot_read_the_drained_workers_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would give heartbeats no order, and the drained workers would take compiles again."""
    clock, config, entries = SystemClock(), scheduler_config(tmp_path, 0), ControlStore.entries
    async with serve_scheduler(config, clock):
        pass

    async def away(store: ControlStore, space: str) -> tuple[Entry, ...]:
        if space == MARK_SPACE:
            raise ControlStoreError("away")
        return await entries(store, space)

    with monkeypatch.context() as patch:
        patch.setattr(ControlStore, "entries", away)
        with pytest.raises(ControlStoreError, match="away"):
            async with serve_scheduler(config, clock):
                pass
    async with serve_scheduler(config, clock):
        pass


async def test_a_compile_works_again_soon_after_the_scheduler_came_back(tmp_path: Path) -> None:
    clock = SystemClock()
    source = tmp_path / "a.c"
    source.write_text("int x;\n")
    (tmp_path / "image").touch()
    (tmp_path / "guests").mkdir()

    def request(number: int) -> RemoteRequest:
        return RemoteRequest(
            argv=("sh", "-c", f"cp a.c a.o; echo {number}"), env=(("PATH", "/usr/bin:/bin"),),
            cwd="", inputs=(RemoteInput("a.c", str(source), False),), outputs=("a.o",),
        )  # fmt: skip

    health, metrics = Health(), WorkerMetrics("t")
    first = serve_scheduler(scheduler_config(tmp_path, 0), clock, health=health)
    running = await first.__aenter__()
    token = await token_file(scheduler_config(tmp_path, 0), clock, tmp_path / "token", "w1")
    worker_config = WorkerConfig(
        worker_id="w1", keys=tmp_path / "wk", store=tmp_path / "store", audit=tmp_path / "au",
        images=tmp_path / "im", guest_assets=tmp_path / "as", state=tmp_path / "st",
        scheduler=f"127.0.0.1:{running.worker_port}",
        scheduler_certificate_pem=running.certificate_pem,
        enrol_at=f"127.0.0.1:{running.port}", enrol_token_file=str(token),
        image_digests=(IMAGE.digest.value,), drain_seconds=5.0,
    )  # fmt: skip
    farm = Farm(
        scheduler=f"127.0.0.1:{running.port}", scheduler_certificate_pem=running.certificate_pem,
        tenant=TENANT.value, principal="ann", secret="a" * 43, image=str(IMAGE),
        isolation=Isolation.LOCAL_NONE.value,
    )  # fmt: skip
    dispatcher = Dispatcher(clock, timeout_seconds=20.0, version="t", build_id="b")
    async with (
        serve_worker(
            worker_config,
            runtime=FakeRuntime(tmp_path / "guests"),
            images=FakeImages(tmp_path / "image"),
            audit=MemoryAuditLog(),
            clock=clock,
            progress=lambda _: None,
            metrics=metrics,
        ),
        connect_farm(farm, clock, "t") as connection,
    ):
        assert isinstance(await dispatcher.compile(connection, request(1)), RemoteResult)
        await first.__aexit__(None, None, None)
        assert health.phase is ServicePhase.STOPPING, "so that systemd ends one that hangs now"
        # Whatever is asked while it is away ends quickly, and never with an exception.
        away = await dispatcher.compile(connection, request(2))
        assert isinstance(away, RemoteFailure | RemoteResult)
        async with serve_scheduler(
            scheduler_config(tmp_path, running.port, running.worker_port), clock
        ):
            async with asyncio.timeout(15):
                number = 3
                while isinstance(
                    await dispatcher.compile(connection, request(number)), RemoteFailure
                ):
                    await asyncio.sleep(0.2)
                    number += 1
    dispatcher.close()
    assert metrics.service.health.phase is ServicePhase.STOPPING
