"""One tenant cannot fill the trail for the others."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from hpcc.audit import disk
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


async def test_a_full_disk_takes_no_new_work_and_rows_of_what_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = disk.least_free(LIMITS) - 1
    monkeypatch.setattr(disk, "free_bytes", lambda _: free)
    monkeypatch.setattr(disk, "_LOOK_SECONDS", 0.01)

    async def wait_for_room(*, wanted: bool) -> None:
        for _ in range(6000):
            if has_room(log) is wanted:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("nobody looked at the disk")

    async with opened(tmp_path, limits=LIMITS) as log:
        await wait_for_room(wanted=False)
        await log.append(row(0))
        free += 1
        await wait_for_room(wanted=True)
    assert verify_trail(tmp_path).count == 1


async def test_a_write_that_finds_the_disk_full_takes_no_new_work_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_full = False

    def unknown(_: Path) -> int:
        raise OSError(errno.EIO, "the disk says nothing")

    monkeypatch.setattr(disk, "free_bytes", unknown)

    def fault(step: str) -> None:
        if is_full and step == "write":
            raise OSError(errno.ENOSPC, "no space")

    async with opened(tmp_path, limits=LIMITS, fault=fault) as log:
        assert has_room(log)
        is_full = True
        with pytest.raises(InfrastructureError):
            await log.append(row(0))
        assert not has_room(log)


def has_room(log: SpoolAuditLog) -> bool:
    try:
        log.require_room("acme")
    except InfrastructureError as error:
        assert error.reason == "audit-full"
        assert "the disk is full" in str(error)
        return False
    return True
