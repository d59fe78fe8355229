"""Results of one action differ: who is named in the trail, and who never is."""

from __future__ import annotations

from pathlib import Path

from hpcc.core import SharingPolicy
from hpcc_testkit.hostile.rooted_farm import EVIL, GOOD, SharingFarm, sharing_farm

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
