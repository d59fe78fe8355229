"""Real workers and schedulers have a process that signs their trails, and go on if it is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from hpcc.audit.base.query import Query
from hpcc.audit.lookup.reader import TrailReader
from hpcc.audit.verify import verify_trail
from hpcc_testkit.farm.processes import ProcessFarm, process_farm

pytestmark = pytest.mark.timeout(300)


def signers(base: Path) -> list[int]:
    """Return the processes that sign with a key below a directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.endswith(b"audit/signer/__main__.py") for word in words) and any(
            word.startswith(os.fsencode(base)) for word in words
        ):
            found.append(int(path.parent.name))
    return found


def names(trail: Path) -> list[str]:
    found = TrailReader(trail).find(Query(kind="event"), oldest_first=True)
    return [str(record.body["name"]) for record in found]


def keys_of(farm: ProcessFarm, name: str) -> set[str]:
    return {str(p.relative_to(farm.directory)) for p in farm.directory.rglob(f"{name}.signer/key")}


async def test_worker_and_scheduler_have_a_signer_that_may_be_killed(tmp_path: Path) -> None:
    async with process_farm(tmp_path) as farm:
        await farm.compiled(["a"])
        assert len(keys_of(farm, "audit-signing")) == 1
        assert len(keys_of(farm, "events-signing")) == 1
        first = await asyncio.to_thread(signers, farm.directory)
        assert len(first) == 2
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        # Until it is started again there is no new work: a build compiles on its own machine then.
        await farm.back()
        await farm.compiled(["b"])
        trail = farm.directory / "worker/audit"
        async with asyncio.timeout(120):
            while "audit-signer-restarted" not in names(trail):  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.1)
        assert names(trail)[:2] == ["audit-signing", "audit-signer"]
    assert not await asyncio.to_thread(signers, farm.directory)
    verified = verify_trail(trail)
    assert verified.signed == verified.count
