"""What stops a worker: each condition, with parts that are as the test wants them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from hpcc.core import ImageDigest, NotFoundError
from hpcc.obs.health.health import Health
from hpcc.ports import SystemClock
from hpcc.worker.health import WorkerSources, watch_worker
from hpcc_testkit.farm.memory_audit import MemoryAuditLog

DIGESTS = tuple(f"sha256:{n:064x}" for n in range(2))


@dataclass
class Parts:
    """A worker's parts, all well at first. It is also its `ImageProvider`."""

    prepared: set[str] = field(default_factory=lambda: {DIGESTS[1]})
    link: Any = field(default_factory=lambda: SimpleNamespace(is_up=True, trouble=""))
    certificate_ends_at: float = float("inf")
    audit: MemoryAuditLog = field(default_factory=MemoryAuditLog)
    metrics: Any = field(default_factory=lambda: SimpleNamespace(trouble=""))
    pool: Any = field(
        default_factory=lambda: SimpleNamespace(
            running=14, queued=2, boot_trouble="",
            core=SimpleNamespace(is_draining=False, guests=range(12)),
        )
    )  # fmt: skip

    async def image(self, digest: ImageDigest) -> Path:
        if digest.value not in self.prepared:
            raise NotFoundError(f"image {digest} is not prepared here", reason="no-image")
        return Path("/image")


@asynccontextmanager
async def watched(directory: Path, parts: Parts) -> AsyncGenerator[Health]:
    health = Health()
    places = dict.fromkeys(("store", "audit", "state", "keys"), directory)
    config = SimpleNamespace(image_digests=DIGESTS, **places)
    sources = WorkerSources(
        link=lambda: parts.link,
        certificate_ends_at=lambda: parts.certificate_ends_at,
        pool=parts.pool,
        places=16,
        images=parts,
        audit=parts.audit,
        audit_metrics=parts.metrics,
    )
    jobs = watch_worker(health, cast("Any", config), sources, SystemClock())
    tasks = [asyncio.Task(job) for job in jobs.values()]
    health.serving()
    while "was not asked yet" in health.line():  # noqa: ASYNC110 - the first looks have no event
        await asyncio.sleep(0.01)
    try:
        yield health
    finally:
        for task in tasks:
            task.cancel()


def failed(health: Health) -> list[str]:
    return [f"{c.name}: {c.reason}" for c in health.conditions().failed()]


async def test_each_fault_of_a_worker_has_its_line(tmp_path: Path) -> None:
    parts = Parts()
    async with watched(tmp_path, parts) as health:
        assert health.line() == "places: 14 of 16 busy; waiting: 2; guests: 12"
        parts.link.is_up, parts.link.trouble = False, "nobody listens there"
        assert failed(health) == ["scheduler: no stream to a scheduler: nobody listens there"]
        parts.link = None
        assert failed(health) == ["scheduler: this worker is not registered"]
        parts.link = SimpleNamespace(is_up=True, trouble="")
        parts.certificate_ends_at = SystemClock().now() + 30
        assert failed(health)[0].startswith("certificate: the worker's certificate has ended or")
        parts.certificate_ends_at = float("inf")
        # Another tenant's rows do not count, and a row that was lost is one until the next.
        parts.audit.crowded = {""}
        assert failed(health) == []
        parts.metrics.trouble = "audit record is not durable: No space left on device"
        assert failed(health) == [f"audit: {parts.metrics.trouble}"]
        parts.audit.is_full = True
        assert failed(health) == ["audit: the audit trail has no room"]
        parts.audit.is_full, parts.metrics.trouble = False, ""
        parts.pool.core.is_draining = True
        assert failed(health) == ["draining: it takes no new compiles"]
        assert not health.conditions().is_serving
        parts.pool.core.is_draining = False
        parts.pool.boot_trouble = "guest did not answer in 120 s"
        assert failed(health) == ["guests: guest did not answer in 120 s"]
        assert health.conditions().is_serving, "another image may boot"


async def test_one_prepared_image_is_enough_and_none_is_a_fault(tmp_path: Path) -> None:
    async with watched(tmp_path, Parts()) as health:
        assert failed(health) == []
    async with watched(tmp_path, Parts(prepared=set())) as health:
        assert failed(health) == [f"images: image {DIGESTS[0]} is not prepared here"]
        assert not health.conditions().is_serving
