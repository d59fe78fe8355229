"""Packs and real builds on a farm: CI's build, and a colleague's first one after a pull."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hpcc.core import CallerError
from hpcc_testkit.cache.machines import TeamMachine
from hpcc_testkit.hostile.rooted_farm import SharingFarm, people, sharing_farm

from .conftest import UNITS, PackTeam

pytestmark = pytest.mark.timeout(180)


@asynccontextmanager
async def farm_of(directory: Path, **section: object) -> AsyncGenerator[SharingFarm]:
    policy = people(**{"publish_fresh": ("ci",), "packs": True, **section})
    async with sharing_farm(directory / "farm", policy) as farm:
        yield farm


def ci_of(team: PackTeam, farm: SharingFarm, name: str = "ci") -> TeamMachine:
    made = team.ci(name, trusted_keys=())
    made.farm_json = farm.farm.farm("ci").to_json()
    return made


def person_of(team: PackTeam, farm: SharingFarm, name: str) -> TeamMachine:
    made = team.machine(name)
    made.farm_json = farm.farm.farm(name).to_json()
    return made


def statuses(farm: SharingFarm, person: str) -> Counter[str]:
    return Counter(r.cache_status for r in farm.farm.audit.rows if r.principal == person)


async def built(team: PackTeam, machine: TeamMachine) -> None:
    assert set(await asyncio.to_thread(team.build, machine)) == {"done"}


async def test_after_a_pull_a_build_on_a_farm_looks_nothing_up_and_has_cis_bytes(
    pack_team: PackTeam, place: Path, tmp_path: Path
) -> None:
    async with farm_of(tmp_path) as farm:
        ci = ci_of(pack_team, farm)
        await built(pack_team, ci)
        assert ci.count("miss.remote.executed") == UNITS
        assert (await asyncio.to_thread(pack_team.push, ci))["entries"] == UNITS
        ann = person_of(pack_team, farm, "ann")
        assert (await asyncio.to_thread(pack_team.pull, ann)).entries == UNITS
        shutil.rmtree(place)
        await built(pack_team, ann)
        assert ann.counted("remote-cache.") == {"pack-found": UNITS}
        assert ann.counted("miss.") == {"remote.pack": UNITS}
        for number in range(UNITS):
            assert ann.read(f"unit{number}.o") == ci.read(f"unit{number}.o")
        # They are the private store's now: no further row, no further question.
        for number in range(UNITS):
            (ann.root / f"unit{number}.o").unlink()
        await built(pack_team, ann)
        assert ann.count("hit.remote") == UNITS
        await asyncio.to_thread(ann.restart)
        assert statuses(farm, "ann") == {"pack": UNITS}


async def test_ci_that_pulls_before_its_build_pushes_a_whole_pack(
    pack_team: PackTeam, tmp_path: Path
) -> None:
    """Two jobs push for the first commit; the third has one edited file, the rest of a pack."""
    async with farm_of(tmp_path) as farm:
        for name in ("one", "two"):
            job = ci_of(pack_team, farm, name)
            await built(pack_team, job)
            assert (await asyncio.to_thread(pack_team.push, job))["entries"] == UNITS
        third = ci_of(pack_team, farm, "third")
        third.remote["trusted_keys"] = (pack_team.key.key.line,)
        pack_team.commit(third, "more")
        await asyncio.to_thread(pack_team.pull, third)
        await built(pack_team, third)
        assert third.counted("remote-cache.pack-") == {"found": UNITS - 1, "other-inputs": 1}
        assert (await asyncio.to_thread(pack_team.push, third))["entries"] == UNITS
        ann = person_of(pack_team, farm, "ann")
        head = pack_team.commit(ann, "more")
        assert (await asyncio.to_thread(pack_team.pull, ann)).commit == head
        await built(pack_team, ann)
        assert ann.count("remote-cache.pack-found") == UNITS


async def test_a_persons_private_results_are_not_pushed(
    pack_team: PackTeam, tmp_path: Path
) -> None:
    async with farm_of(tmp_path, publish_fresh=()) as farm:
        ci = ci_of(pack_team, farm)
        await built(pack_team, ci)
        with pytest.raises(CallerError, match="compiled nothing"):
            await asyncio.to_thread(pack_team.push, ci)


async def test_a_damaged_chunk_costs_a_question_to_the_farm(
    pack_team: PackTeam, tmp_path: Path
) -> None:
    async with farm_of(tmp_path) as farm:
        ci = ci_of(pack_team, farm)
        await built(pack_team, ci)
        await asyncio.to_thread(pack_team.push, ci)
        ann = person_of(pack_team, farm, "ann")
        await asyncio.to_thread(pack_team.pull, ann)
        for chunk in (ann.paths.cache / "packs/chunks").iterdir():
            data = chunk.read_bytes()
            chunk.chmod(0o600)
            chunk.write_bytes(bytes(len(data)))
        await built(pack_team, ann)
        assert ann.counted("remote-cache.") == {"refused.farm": UNITS}
        for number in range(UNITS):
            assert ann.read(f"unit{number}.o") == ci.read(f"unit{number}.o")
        assert statuses(farm, "ann") == {"hit": UNITS}
