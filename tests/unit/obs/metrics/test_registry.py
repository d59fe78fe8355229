"""Metrics are bounded when they are declared, and their text is what Prometheus reads."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import grpc
import pytest

from hpcc.audit.metered import WATCHED, AuditMetrics
from hpcc.core import CallerError, ImageDigest, InfrastructureError, TenantId
from hpcc.gateway.metrics import GatewayMetrics
from hpcc.obs.metrics.admin import UP
from hpcc.obs.metrics.process import FAMILIES, process_values
from hpcc.obs.metrics.registry import MAX_SERIES, OTHER, Registry
from hpcc.obs.metrics.service import ServiceMetrics
from hpcc.obs.metrics.text import exposition
from hpcc.ports import SecurityEvent, SystemClock
from hpcc.routing.fleet import Member
from hpcc.routing.load import Load
from hpcc.rpc.relay.link import RelayedError
from hpcc.scheduler.base.metrics import SchedulerMetrics
from hpcc.worker.base.metrics import WorkerMetrics
from hpcc_testkit.farm.audit_rows import row
from hpcc_testkit.services.scraped import Scrape

ROW = row()


def shown(registry: Registry) -> Scrape:
    return Scrape(exposition(registry, registry.ask(), process_values()))


def test_a_worker_with_ten_thousand_tenants_and_reasons_has_few_series() -> None:
    metrics = WorkerMetrics("1.0")
    metrics.queue.read = lambda: metrics.by_tenant({f"tenant-{n}": 1 for n in range(10_000)})
    for number in range(10_000):
        tenant, reason = f"tenant-{number}", f"reason-{number}"
        metrics.waited(tenant, 0.01)
        for status in ("executed", "hit", "joined", "abandoned", "verify"):
            metrics.row(replace(ROW, tenant=tenant, cache_status=status, reason=reason))
        metrics.service.called(f"/hpcc.v1.Service/Method{number}", number % 17, 0.01)
        metrics.service.security_event(f"event-{number}")
    found = shown(metrics.service.registry)
    assert 1_000 < found.series <= MAX_SERIES
    assert found.total("hpcc_worker_compiles_total") == 50_000, (
        "each is counted; only its name is lost"
    )
    assert found.total("hpcc_worker_queue_length") == 10_000
    assert found.value("hpcc_worker_queue_wait_seconds_count", tenant=OTHER) == 10_000 - 64
    assert found.value("hpcc_worker_queue_wait_seconds_count", tenant="tenant-63") == 1


def test_a_scheduler_with_ten_thousand_tenants_and_reasons_has_few_series() -> None:
    metrics = SchedulerMetrics("1.0", SystemClock())
    watches = {f"tenant-{n}": 1 for n in range(10_000)}
    metrics.read(load=Load, watches=lambda: watches, is_store_up=lambda: True, pools=dict)
    for number in range(10_000):
        with metrics.routing(f"tenant-{number}"):
            pass
        error = InfrastructureError("away", reason=f"reason-{number}")
        with pytest.raises(InfrastructureError), metrics.routing(f"tenant-{number}"):
            raise error
        with pytest.raises(InfrastructureError), metrics.login("a caller's claim"):
            raise error
        with metrics.login(f"tenant-{number}"):
            pass
    found = shown(metrics.service.registry)
    assert found.series <= MAX_SERIES
    assert found.total("hpcc_scheduler_routes_total") == 20_000
    assert found.total("hpcc_scheduler_routes_total", result="ok") == 64 + 10_000 - 64
    assert found.value("hpcc_scheduler_logins_total", tenant=OTHER) == 10_000 - 64
    assert "claim" not in found.text, "what a stranger says is no label"


def test_a_gateway_with_ten_thousand_tenants_and_reasons_has_few_series() -> None:
    metrics = GatewayMetrics("1.0")
    running = {f"tenant-{n}": 1 for n in range(10_000)}
    metrics.read(
        running=lambda: running,
        strangers=lambda: (2, 3),
        buffer=lambda: (1, 10),
        sessions=lambda: 7,
    )
    for number in range(10_000):
        with metrics.relaying(f"tenant-{number}"):
            pass
        error = InfrastructureError("away", reason=f"reason-{number}")
        with pytest.raises(InfrastructureError), metrics.relaying(f"tenant-{number}"):
            raise error
        metrics.refused(f"reason-{number}")
    found = shown(metrics.service.registry)
    assert found.series <= MAX_SERIES
    assert found.total("hpcc_gateway_calls_total") == 20_000
    assert found.total("hpcc_gateway_calls") == found.total("hpcc_gateway_refusals_total") == 10_000
    assert found.value("hpcc_gateway_strangers", state="waiting") == 3
    assert found.value("hpcc_gateway_buffer_limit_bytes") == 10


def test_a_call_of_a_gateway_counts_by_how_it_ended() -> None:
    metrics = GatewayMetrics("1.0")
    refusal = RelayedError(grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, None, None))
    for error in (refusal, asyncio.CancelledError(), ValueError(), CallerError("", reason="why")):
        with pytest.raises(type(error)), metrics.relaying("acme"):
            raise error
    counted = shown(metrics.service.registry).values("hpcc_gateway_calls_total")
    assert {dict(labels)["result"] for labels in counted} == {
        "worker", "cancelled", "internal", "why"
    }  # fmt: skip


@pytest.mark.parametrize("registry", [
    WorkerMetrics("1").service.registry, SchedulerMetrics("1", SystemClock()).service.registry,
    GatewayMetrics("1").service.registry,
])  # fmt: skip
def test_no_process_can_have_more_series_than_prometheus_should_keep(registry: Registry) -> None:
    assert registry.most_series + len(FAMILIES) + 1 <= MAX_SERIES


def test_a_metric_that_could_have_too_many_series_is_refused_when_it_is_declared() -> None:
    registry = Registry()
    registry.gauge("hpcc_large", "Large.", "name", most=MAX_SERIES - 2)
    with pytest.raises(AssertionError, match="too many series"):
        registry.gauge("hpcc_more", "More.", "name", most=2)
    with pytest.raises(AssertionError):
        registry.counter("hpcc_things", "A counter without its suffix.")
    with pytest.raises(AssertionError):
        registry.counter("hpcc_large", "The same name.")


def test_text_is_escaped_so_that_a_value_is_one_value() -> None:
    registry = Registry()
    metric = registry.counter("hpcc_odd_total", 'Odd "text" \\ with\nlines.', "what")
    for value in ('"', "\\", "\n", '\\"}\nhpcc_forged 1\n', "\x1b[31m", "\u2028", "x" * 1000, "é"):
        metric.of(value).add()
    found = shown(registry)
    assert sorted(dict(labels)["what"] for labels in found.values("hpcc_odd_total")) == sorted(
        ('"', "\\", "\\n", '\\"}\\nhpcc_forged 1\\n', "\\x1b[31m", "\\u2028", OTHER, "é")
    )
    assert "\nhpcc_forged" not in found.text


def test_a_histogram_counts_each_value_once() -> None:
    registry = Registry()
    metric = registry.histogram("hpcc_a_seconds", "A.").of()
    for seconds in (-1.0, 0.0, 0.001, 0.0011, 3.0, 300.0, 301.0, math.inf):
        metric.observe(seconds)
    found = shown(registry)
    assert found.value("hpcc_a_seconds_bucket", le="0.001") == 3, "a bound belongs to its bucket"
    assert found.value("hpcc_a_seconds_bucket", le="0.0025") == 4
    assert found.value("hpcc_a_seconds_bucket", le="300") == 6
    assert found.value("hpcc_a_seconds_count") == 8
    assert found.value("hpcc_a_seconds_sum") == math.inf


def test_an_event_counts_for_those_that_its_limiter_held_back() -> None:
    service = ServiceMetrics("1")
    metrics = AuditMetrics(service)
    for held in ("", "41", "-1", "x", "9" * 40):
        fields = (("suppressed_before", held),) if held else ()
        metrics.event(SecurityEvent(name="route-refused", at=0.0, fields=fields))
    found = shown(service.registry)
    assert found.value("hpcc_security_events_total", name="route-refused") == 5 + 41


def test_the_load_of_a_farm_leaves_out_what_may_be_gone() -> None:
    def member(name: str, *, running: int, queued: int, is_stale: bool = False) -> Member:
        return Member(
            worker_id=name, generation=1, rank=1, capacity=4, lease_until=1.0, running=running,
            images=frozenset({ImageDigest("sha256:" + "ab" * 32)}), queued=queued,
            is_stale=is_stale,
        )  # fmt: skip

    load = Load.of(
        [
            member("w1", running=1, queued=0),
            member("w2", running=1 << 31, queued=5),
            member("w3", running=4, queued=9, is_stale=True),
        ]
    )
    assert load == Load(live=2, stale=1, capacity=8, running=5, queued=5)
    assert (load.idle, load.demand) == (3, 10)


def test_what_the_system_tells_of_a_process_is_plausible() -> None:
    found = {family.name: value for family, value in process_values()}
    assert set(found) == {family.name for family in FAMILIES}
    assert 1 << 20 < found["process_resident_memory_bytes"] < found["process_virtual_memory_bytes"]
    assert 0 < found["process_start_time_seconds"] < SystemClock().now() + 1
    assert 3 <= found["process_open_fds"] <= found["process_max_fds"]
    assert UP.name not in found


def test_every_row_but_a_question_is_counted_once() -> None:
    metrics = WorkerMetrics("1")
    for status in ("executed", "hit", "joined", "abandoned", "verify", "pack", "new", "explain"):
        metrics.row(replace(ROW, tenant="acme", cache_status=status, reason="guest-lost"))
    found = shown(metrics.service.registry).values("hpcc_worker_compiles_total")
    assert set(found.values()) == {1.0}
    assert {(dict(x)["outcome"], dict(x)["reason"]) for x in found} == {
        ("executed", ""), ("cached", ""), ("joined", ""), ("lost", "guest-lost"),
        ("verified", ""), ("packed", ""), (OTHER, ""),
    }  # fmt: skip


def test_a_tenant_that_is_configured_has_its_name_however_many_come_before_it() -> None:
    metrics = WorkerMetrics("1")
    metrics.service.name_tenants(["acme"])
    for number in range(100):
        metrics.waited(f"t{number}", 1.0)
    metrics.waited("acme", 1.0)
    found = shown(metrics.service.registry)
    assert found.value("hpcc_worker_queue_wait_seconds_count", tenant="acme") == 1
    assert found.value("hpcc_worker_queue_wait_seconds_count", tenant=OTHER) == 100 - 63


def test_what_an_alert_watches_begins_at_zero() -> None:
    for service in (WorkerMetrics("1").service, SchedulerMetrics("1", SystemClock()).service):
        found = shown(service.registry)
        events = found.values("hpcc_security_events_total")
        assert {dict(labels)["name"]: value for labels, value in events.items()} == dict.fromkeys(
            WATCHED, 0.0
        )
        logged = found.values("hpcc_log_events_total")
        assert {dict(labels)["severity"] for labels in logged} == {"ERROR", "WARN", "INFO", "DEBUG"}


def test_tenants_have_the_same_names_in_each_metric() -> None:
    metrics = WorkerMetrics("1")
    for number in range(100):
        metrics.waited(f"t{number}", 1.0)
        metrics.row(row(tenant=f"t{99 - number}", cache_status="executed"))
    found = shown(metrics.service.registry)
    compiles = {dict(x)["tenant"] for x in found.values("hpcc_worker_compiles_total")}
    waits = found.families["hpcc_worker_queue_wait_seconds"].samples
    named = {dict(labels)["tenant"] for _, labels in waits}
    # A metric can show only one more than those that a closed set has: the rest.
    assert OTHER in compiles & named
    assert len(compiles | named) == 65
    assert "_" not in TenantId("other").value, "no tenant is taken for the rest"
