from __future__ import annotations

import pytest

from hpcc.core import TenantId
from hpcc.rpc.base.errors import BusyError
from hpcc.worker.explain.limit import BURST, PER_SECOND, QuestionLimit

ACME, OTHER = TenantId("acme"), TenantId("other")


def test_each_principal_of_each_tenant_has_a_burst_and_then_a_rate() -> None:
    limit = QuestionLimit()
    for _ in range(int(BURST)):
        limit.count(ACME, "ann", 100.0)
    with pytest.raises(BusyError, match="fewer files") as refused:
        limit.count(ACME, "ann", 100.0)
    assert refused.value.retry_after_seconds == 1 / PER_SECOND
    limit.count(ACME, "bob", 100.0)
    limit.count(OTHER, "ann", 100.0)
    limit.count(ACME, "ann", 100.0 + 1 / PER_SECOND)
    with pytest.raises(BusyError):
        limit.count(ACME, "ann", 100.0 + 1 / PER_SECOND)


def test_the_allowance_does_not_grow_beyond_the_burst() -> None:
    limit = QuestionLimit()
    limit.count(ACME, "ann", 0.0)
    for _ in range(int(BURST)):
        limit.count(ACME, "ann", 1e6)
    with pytest.raises(BusyError):
        limit.count(ACME, "ann", 1e6)
