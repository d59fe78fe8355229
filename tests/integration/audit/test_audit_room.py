"""One tenant cannot fill the trail for the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc.audit.log import SpoolAuditLog
from hpcc.audit.verify import verify_trail
from hpcc.core import InfrastructureError
from hpcc_testkit.farm.audit_rows import opened, row

LIMITS = SpoolLimits(segment_bytes=30_000, max_bytes=400_000)


async def fill(log: SpoolAuditLog, tenant: str) -> int:
    """Write rows of a tenant for as long as it is accepted, with a bound; return how many."""
    for number in range(400):
        try:
            log.require_room(tenant)
        except InfrastructureError as error:
            assert error.reason == "audit-share"
            return number
        await log.append(row(number, tenant=tenant))
    raise AssertionError("nothing limited the tenant")


async def test_a_tenant_that_fills_the_trail_leaves_room_for_every_other(tmp_path: Path) -> None:
    async with opened(tmp_path, limits=LIMITS) as log:
        counts = [await fill(log, f"hog-{number}") for number in range(2)]
        assert counts[0] > 2 * counts[1] > 0
        log.require_room("honest")
        await log.append(row(0, tenant="honest"))
        with pytest.raises(InfrastructureError, match="tenant's records fill its part"):
            log.require_room("hog-0")
        # What belongs to no tenant is limited by the trail's room.
        log.require_room()
    assert verify_trail(tmp_path).count == sum(counts) + 1


async def test_what_retention_removes_counts_against_no_tenant(tmp_path: Path) -> None:
    acknowledged = 0
    async with opened(tmp_path, limits=LIMITS) as log:
        log.hold_for(lambda: acknowledged)
        # So often that all of it together is more than twice the whole room.
        for _ in range(12):
            assert await fill(log, "hog") > 0
            acknowledged = log.anchor[0]
            assert await log.retire() > 0
        log.require_room("hog")
