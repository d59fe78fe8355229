"""A pool's metrics are what its core holds."""

from __future__ import annotations

from hpcc.core import GuestReuse, ImageDigest, Isolation, TenantId
from hpcc.obs.metrics.text import exposition
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.base.metrics import WorkerMetrics
from hpcc.worker.pool.core import PoolCore
from hpcc.worker.pool.decisions import PoolLimits
from hpcc.worker.pool.figures import show_pool
from hpcc_testkit.services.scraped import Scrape

LIMITS = PoolLimits(
    max_guests=2, vcpus=2, guest_mib=100, memory_mib=1000, max_queue=100,
    idle_seconds=60.0, session_seconds=600.0,
)  # fmt: skip


def domain(tenant: str) -> TrustDomain:
    return TrustDomain.of(
        tenant=TenantId(tenant), image=ImageDigest("sha256:" + "ab" * 32),
        isolation=Isolation.QEMU_TCG, reuse=GuestReuse.PRINCIPAL, principal="ann",
    )  # fmt: skip


def test_guests_slots_and_waiters_are_shown_as_they_are() -> None:
    core, metrics = PoolCore(LIMITS), WorkerMetrics("1")
    show_pool(metrics, core, LIMITS)

    def shown() -> Scrape:
        registry = metrics.service.registry
        return Scrape(exposition(registry, registry.ask()))

    def guests() -> list[int]:
        states = ("booting", "idle", "busy", "ending")
        found = shown()
        return [int(found.value("hpcc_worker_guests", state=s)) for s in states]

    for waiter in range(1, 6):
        core.ask(waiter, domain("acme" if waiter < 5 else "globex"), 0.0)
    assert guests() == [2, 0, 0, 0]
    assert shown().value("hpcc_worker_queue_length", tenant="acme") == 4
    assert shown().value("hpcc_worker_queue_length", tenant="globex") == 1
    assert shown().value("hpcc_worker_guest_memory_bytes") == 200 << 20
    assert shown().value("hpcc_worker_guest_memory_limit_bytes") == 1000 << 20
    core.booted(1, 1.0)
    assert shown().value("hpcc_worker_guest_start_seconds_count") == 1
    assert shown().value("hpcc_worker_guest_start_seconds_sum") == 1.0
    assert guests() == [1, 0, 1, 0]
    assert shown().value("hpcc_worker_slots", state="busy") == core.running == 2
    assert shown().value("hpcc_worker_slots", state="idle") == 2
    assert shown().total("hpcc_worker_queue_length") == core.queued
    core.lost(1, 2.0)
    assert guests()[3] == 1
    assert shown().value("hpcc_worker_draining") == 0
    core.drain(3.0, 1.0)
    assert shown().value("hpcc_worker_draining") == 1
    assert shown().families["hpcc_worker_queue_length"].samples == {}
    refused = shown().value("hpcc_worker_refusals_total", reason="draining")
    assert refused == 3, "those that waited"
    core.ask(6, domain("acme"), 3.0)
    assert shown().value("hpcc_worker_refusals_total", reason="draining") == refused + 1
    assert shown().value("hpcc_worker_guest_starts_total", kind="demand") == core.counts.started


def test_a_start_that_failed_and_those_who_waited_for_it_are_counted() -> None:
    core, metrics = PoolCore(LIMITS), WorkerMetrics("1")
    show_pool(metrics, core, LIMITS)
    core.ask(1, domain("acme"), 0.0)
    core.ask(2, domain("acme"), 0.0)
    core.boot_failed(1, 1.0)
    registry = metrics.service.registry
    found = Scrape(exposition(registry, registry.ask()))
    assert found.value("hpcc_worker_guest_start_failures_total") == core.counts.failed == 1
    assert found.value("hpcc_worker_refusals_total", reason="boot-failed") == 2
    assert found.value("hpcc_worker_refusals_total", reason="queue-full") == 0
    assert found.value("hpcc_worker_guest_start_seconds_count") == 0
