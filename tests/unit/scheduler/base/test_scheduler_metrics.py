"""Requests for routes by tenant: bounded, and of tenants that are counted by name only."""

from __future__ import annotations

import pytest

from hpcc.core import NotFoundError
from hpcc.obs.metrics.registry import MAX_TENANTS, OTHER
from hpcc.ports import SystemClock
from hpcc.scheduler.base.metrics import SchedulerMetrics


def refused(metrics: SchedulerMetrics, tenant: str, reason: str) -> None:
    with pytest.raises(NotFoundError), metrics.routing(tenant):
        raise NotFoundError("no worker", reason=reason)


def test_requests_for_routes_are_counted_by_tenant_and_result() -> None:
    metrics = SchedulerMetrics("1", SystemClock())
    for _ in range(3):
        with metrics.routing("acme"):
            pass
    refused(metrics, "acme", "no-worker")
    refused(metrics, "globex", "image")
    assert metrics.routes_by_tenant() == {"acme": {"ok": 3, "no-worker": 1}, "globex": {"image": 1}}


def test_tenants_that_share_one_count_have_none() -> None:
    """Otherwise a member would read what others did."""
    metrics = SchedulerMetrics("1", SystemClock())
    for number in range(2 * MAX_TENANTS):
        refused(metrics, f"tenant-{number}", f"reason-{number}")
    found = metrics.routes_by_tenant()
    assert len(found) == MAX_TENANTS
    assert OTHER not in found
