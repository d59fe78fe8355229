"""Results of one action differ: who is named in the trail, and who never is."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hpcc.core import SharingPolicy
from hpcc_testkit.hostile.rooted_farm import EVIL, GOOD, SharingFarm, people, sharing_farm, until

# Who accepts no fresh result executes, and a guest's first execution is fresh.
NO_FRESH = SharingPolicy(agree=2)
RANDOM = "cat /proc/sys/kernel/random/uuid > a.o"


def suspected(farm: SharingFarm) -> list[str]:
    """Return the rows that the events name."""
    events = [e for e in farm.farm.audit.events if e.name == "result-disagreement"]
    return [dict(e.fields)["row"] for e in events]


async def test_who_differs_from_two_fresh_guests_is_named_and_one_is_not_enough(
    tmp_path: Path,
) -> None:
    async with sharing_farm(tmp_path) as farm:
        await farm.root("ann")
        assert await farm.build("ann") == (EVIL, False)
        (row,) = [r.row_id for r in farm.farm.audit.rows if r.guest_execs_before]
        await farm.settled()
        assert await farm.build("bob", sharing=NO_FRESH) == (GOOD, False)
        await farm.settled()
        assert suspected(farm) == []
        assert await farm.build("carol", sharing=NO_FRESH) == (GOOD, False)
        await farm.settled()
        assert suspected(farm) == [row]
        (event,) = (e for e in farm.farm.audit.events if e.name == "result-disagreement")
        fresh = [r.row_id for r in farm.farm.audit.rows if r.principal in {"bob", "carol"}]
        assert dict(event.fields)["fresh_rows"].split() == fresh


async def test_an_action_that_is_not_deterministic_names_nobody(tmp_path: Path) -> None:
    async with sharing_farm(tmp_path) as farm:
        await farm.warm("ann")
        for name in ("ann", "bob", "carol"):
            assert not (await farm.build(name, RANDOM, sharing=NO_FRESH))[1]
            await farm.settled()
        assert suspected(farm) == []
        assert farm.labels("executed") == ["fresh", "", "fresh", "fresh"]


def verifications(farm: SharingFarm) -> list[str]:
    """Return why the results that idle workers made serve the tenant."""
    return [r.sharing for r in farm.farm.audit.rows if r.cache_status == "verify"]


async def test_an_idle_worker_makes_a_private_result_again_and_then_it_serves(
    tmp_path: Path,
) -> None:
    async with sharing_farm(tmp_path, people(verify_idle=600)) as farm:
        await farm.root("ann")
        assert await farm.build("ann") == (EVIL, False)
        await until(lambda: verifications(farm) != [])
        await farm.settled()
        # What is published is the new result. The rooted guest's stays with its owner.
        assert await farm.build("bob") == (GOOD, True)
        assert await farm.build("ann") == (EVIL, True)
        row = next(r for r in farm.farm.audit.rows if r.cache_status == "verify")
        assert (row.principal, row.guest_execs_before, row.reuse) == ("ann", 0, "exec")


async def test_an_idle_worker_finds_out_who_differs(tmp_path: Path) -> None:
    async with sharing_farm(tmp_path, people(verify_idle=600)) as farm:
        await farm.root("ann")
        assert await farm.build("ann") == (EVIL, False)
        row = farm.farm.audit.rows[-1].row_id
        await until(lambda: suspected(farm) == [row])
        assert verifications(farm) == ["fresh"] * 2


async def test_an_idle_execution_ends_at_once_when_somebody_waits(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    script = f"if [ -e {seen} ]; then sleep 600; fi; touch {seen}; cp a.c a.o"
    async with sharing_farm(tmp_path, people(verify_idle=600)) as farm:
        await farm.warm("ann")
        assert await farm.build("ann", script) == (GOOD, False)
        await until(lambda: len(farm.farm.runtime.running) == 2)
        await until(lambda: any(g._processes for g in farm.farm.runtime.running))
        async with asyncio.timeout(60):
            assert await farm.build("bob") == (GOOD, False)
        rows = farm.farm.audit.rows
        (gave_way,) = [r for r in rows if r.reason == "preempted"]
        assert (gave_way.cache_status, gave_way.principal) == ("abandoned", "ann")
