"""Packs and real builds on a farm: CI's build, and a colleague's first one after a pull."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from hpcc.core import CallerError, NotFoundError
from hpcc_testkit.cache.machines import TeamMachine
from hpcc_testkit.hostile.rooted_farm import SharingFarm, people, sharing_farm
from hpcc_testkit.services.object_server import ObjectServer

from .conftest import UNITS, PackTeam, commands, held, nothing, push_at_once

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


# CI's daemon without its socket: it compiles, and pushes until it is killed.
_PUSHER: Final = """
import json, sys, threading
from pathlib import Path
from hpcc_testkit.cache.machines import TeamMachine

directory, remote, checkout, farm_json, commands, commit = json.load(sys.stdin)
ci = TeamMachine(Path(directory), remote, checkout, farm_json)
assert {ci.compile(*command).answer for command in commands} == {"done"}
ci.cache.command(["push", str(ci.root), commit, "missing"])
threading.Event().wait()
"""


def pusher(team: PackTeam, ci: TeamMachine) -> subprocess.Popen[bytes]:
    """Start a process that compiles and pushes as a machine of CI."""
    process = subprocess.Popen([sys.executable, "-c", _PUSHER], stdin=subprocess.PIPE)
    assert process.stdin is not None
    fields = (
        str(ci.directory), ci.remote, ci.checkout, ci.farm_json, commands(), team.head(ci),
    )  # fmt: skip
    process.stdin.write(json.dumps(fields).encode())
    process.stdin.close()
    return process


def puller(server: ObjectServer, team: PackTeam, ann: TeamMachine) -> subprocess.Popen[bytes]:
    """Start `hpcc pack pull` as a person."""
    paths = ann.paths
    paths.config_file.parent.mkdir(parents=True, exist_ok=True)
    paths.config_file.write_text(
        f'[cache.remote]\nurl = "{server.url}"\ntrusted_keys = ["{team.key.key.line}"]\n'
    )
    env = {**os.environ, "HPCC_DIR": str(ann.directory / "hpcc")}
    command = [sys.executable, "-m", "hpcc.cli", "pack", "pull"]
    return subprocess.Popen(command, cwd=ann.root, env=env)


def kill_at(
    server: ObjectServer, method: str, part: str, start: Callable[[], subprocess.Popen[bytes]]
) -> None:
    """Start a process, and kill it while such a request of it waits for its answer."""
    made: list[subprocess.Popen[bytes]] = []
    try:
        with held(server, method, part):
            made.append(start())
    finally:
        for process in made:
            process.kill()
            assert process.wait() == -signal.SIGKILL
        server.holds = nothing


async def test_a_push_that_is_killed_before_its_index_leaves_no_pack_and_is_repeated(
    http_team: PackTeam, server: ObjectServer, tmp_path: Path
) -> None:
    async with farm_of(tmp_path) as farm:
        ci = ci_of(http_team, farm)
        start = partial(pusher, http_team, ci)
        await asyncio.to_thread(kill_at, server, "PUT", "/packs/", start)
        assert any("/chunks/" in name for name in server.objects)
        ann = person_of(http_team, farm, "ann")
        with pytest.raises(NotFoundError):
            await asyncio.to_thread(http_team.pull, ann)
        again = ci_of(http_team, farm, "again")
        await built(http_team, again)
        assert (await asyncio.to_thread(http_team.push, again))["entries"] == UNITS
        assert (await asyncio.to_thread(http_team.pull, ann)).entries == UNITS
        await built(http_team, ann)
        assert ann.counted("miss.") == {"remote.pack": UNITS}


async def test_a_pull_that_is_killed_leaves_nothing_that_counts_and_is_repeated(
    http_team: PackTeam, server: ObjectServer, tmp_path: Path
) -> None:
    async with farm_of(tmp_path) as farm:
        ci = ci_of(http_team, farm)
        await built(http_team, ci)
        await asyncio.to_thread(http_team.push, ci)
        ann = person_of(http_team, farm, "ann")
        start = partial(puller, server, http_team, ann)
        await asyncio.to_thread(kill_at, server, "GET", "/chunks/", start)
        first, *others = commands()
        assert (await asyncio.to_thread(ann.compile, *first)).answer == "done"
        assert ann.counted("remote-cache.pack") == {}
        assert (await asyncio.to_thread(http_team.pull, ann)).entries == UNITS
        await built(http_team, ann)
        assert ann.count("remote-cache.pack-found") == len(others)
        for number in range(UNITS):
            assert ann.read(f"unit{number}.o") == ci.read(f"unit{number}.o")


async def test_jobs_that_push_at_once_on_a_farm_keep_both_builds(
    http_team: PackTeam, server: ObjectServer, tmp_path: Path
) -> None:
    builds = ("-O0",), ("-O2",)
    async with farm_of(tmp_path) as farm:
        jobs = [ci_of(http_team, farm, name) for name in ("debug", "release")]
        for job, flags in zip(jobs, builds, strict=True):
            assert set(await asyncio.to_thread(http_team.build, job, flags)) == {"done"}
        await asyncio.to_thread(push_at_once, http_team, server, jobs)
        ann = person_of(http_team, farm, "ann")
        assert (await asyncio.to_thread(http_team.pull, ann)).entries == 2 * UNITS
        for flags in builds:
            assert set(await asyncio.to_thread(http_team.build, ann, flags)) == {"done"}
        assert ann.counted("remote-cache.") == {"pack-found": 2 * UNITS}
