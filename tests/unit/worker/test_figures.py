"""A worker's metrics are what its parts hold."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hpcc.core import Blob, TenantId
from hpcc.obs.metrics.text import exposition
from hpcc.ports import SecurityEvent, SystemClock
from hpcc.worker.base.metrics import WorkerMetrics
from hpcc.worker.figures import show_link, show_stores, show_trail
from hpcc.worker.stores.storage import TenantStorage
from hpcc_testkit.farm.in_process import LaterClock
from hpcc_testkit.services.scraped import Scrape


def shown(metrics: WorkerMetrics) -> Scrape:
    registry = metrics.service.registry
    return Scrape(exposition(registry, registry.ask()))


async def test_a_tenants_disk_and_what_was_evicted_from_it(tmp_path: Path) -> None:
    metrics, storage = WorkerMetrics("1"), TenantStorage(tmp_path, 1000, SystemClock())
    shared: Any = SimpleNamespace(
        counters=lambda: {"acme": {"get.calls": 3, "get.failed.store-timeout": 1}},
        open_breakers=lambda: {"acme": True, "globex": False},
    )
    show_stores(metrics, storage, shared)
    for tenant, sizes in (("acme", (400, 500)), ("globex", (400, 500, 300))):
        blobs = await storage.blobs(TenantId(tenant))
        for size in sizes:
            await blobs.put(Blob.of(bytes([size % 251]) * size))
    storage.bound(TenantId("acme"), 950)
    found = shown(metrics)
    assert found.value("hpcc_store_bytes", tenant="acme") == 900
    assert found.value("hpcc_store_bytes", tenant="globex") == 800
    assert found.value("hpcc_store_evicted_bytes_total") == 400
    assert found.value("hpcc_store_limit_bytes", tenant="acme") == 950
    assert found.value("hpcc_store_limit_bytes", tenant="globex") == 1000
    assert found.value("hpcc_store_breaker_open", tenant="acme") == 1
    assert found.value("hpcc_store_breaker_open", tenant="globex") == 0
    assert found.value("hpcc_store_calls_total", operation="get") == 3
    assert found.value("hpcc_store_failures_total", operation="get") == 1
    shared.called("get", 0.2)
    assert shown(metrics).value("hpcc_store_call_seconds_count", operation="get") == 1


def test_a_link_and_the_age_of_the_anchor() -> None:
    metrics, clock = WorkerMetrics("1"), LaterClock()
    link: Any = None
    show_link(metrics, lambda: link, clock)
    assert shown(metrics).value("hpcc_worker_scheduler_up") == 0
    assert shown(metrics).families["hpcc_audit_anchor_age_seconds"].samples == {}
    link = SimpleNamespace(is_up=True, answered_at=None)
    assert shown(metrics).value("hpcc_worker_scheduler_up") == 1
    assert shown(metrics).families["hpcc_audit_anchor_age_seconds"].samples == {}, "not yet"
    link = SimpleNamespace(is_up=False, answered_at=clock.monotonic())
    clock.ahead = 700.0
    found = shown(metrics)
    assert found.value("hpcc_worker_scheduler_up") == 0
    assert found.value("hpcc_audit_anchor_age_seconds") >= 700


def test_a_sink_lacks_what_it_has_not_confirmed() -> None:
    metrics = WorkerMetrics("1")
    signer = SimpleNamespace(separation="own-uid", trouble="it ended", restarts=3)
    trail: Any = SimpleNamespace(
        anchor=(10, "head"), size=(5, 50), lost_events=2, listen=lambda _: None, signer=signer
    )
    sinks: list[Any] = []
    show_trail(metrics, trail, lambda: sinks)
    assert shown(metrics).families["hpcc_audit_sink_lag_records"].samples == {}
    sinks += [
        SimpleNamespace(name="scheduler", acknowledged=8),
        # It confirms a record that this process has not counted yet.
        SimpleNamespace(name="bucket", acknowledged=11),
    ]
    found = shown(metrics)
    assert found.value("hpcc_audit_sink_lag_records", sink="scheduler") == 2
    assert found.value("hpcc_audit_sink_lag_records", sink="bucket") == 0
    assert found.value("hpcc_audit_limit_bytes") == 50
    assert found.value("hpcc_audit_signer_up", separation="own-uid") == 0
    assert found.value("hpcc_audit_signer_restarts_total") == 3


def test_the_causes_are_those_of_the_page() -> None:
    page = (Path(__file__).parents[3] / "docs/spec/guest.md").read_text()
    section = page.partition("## What a host makes of it")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.M)
    named = {word for row in rows for word in re.findall(r"`([a-z-]+)`", row)}
    causes = shown(WorkerMetrics("1")).values("hpcc_guest_protocol_breaches_total")
    assert {dict(labels)["cause"] for labels in causes} == named


def test_a_breach_counts_by_the_cause_in_its_event() -> None:
    metrics = WorkerMetrics("1")
    for cause in ("protocol-violation", "protocol-violation", "warden-cpu", "x" * 500, ""):
        fields = (("guest", "g1"), ("cause", cause))
        metrics.event(SecurityEvent(name="guest-lost-in-compile", at=0.0, fields=fields))
    metrics.event(SecurityEvent(name="guest-lost", at=0.0, fields=(("cause", "guest-lost"),)))
    breaches = "hpcc_guest_protocol_breaches_total"
    found = shown(metrics)
    assert found.value(breaches, cause="protocol-violation") == 2
    assert found.value(breaches, cause="warden-cpu") == 1
    assert found.value(breaches, cause="_other") == 2
    assert found.total(breaches) == 5
    assert len(found.values(breaches)) == 9, "each begins at 0"
