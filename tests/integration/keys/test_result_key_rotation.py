"""Workers sign with new keys while compiles run: nothing fails, and no result is lost.

The commands are those of docs/operate.md, run beside real processes.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hpcc.audit.base.segments import spool_path
from hpcc.audit.verify import verify_trail
from hpcc_testkit.farm.processes import Load, ProcessFarm, process_farm

BEFORE = [f"before-{n}" for n in range(12)]
AFTER = [f"after-{n}" for n in range(6)]


async def keys(farm: ProcessFarm) -> dict[str, str]:
    """Return the state of each result key by its id, as an operator sees it."""
    lines = (await farm.hpcc("scheduler", "result-keys")).splitlines()[1:]
    return {line.split()[0]: line.split()[1] for line in lines}


async def logged(farm: ProcessFarm, text: str) -> None:
    """Wait until the worker logs a text."""
    async with asyncio.timeout(90):
        while text not in (farm.directory / "worker.log").read_text():  # noqa: ASYNC110 - of a process
            await asyncio.sleep(0.1)


async def new_key(farm: ProcessFarm, known: str) -> str:
    """Wait until another key signs and the scheduler knows that; return its id."""
    await logged(farm, " signs")
    async with asyncio.timeout(60):
        while "good" not in (found := await keys(farm)).values():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.5)
    assert found.pop(known) == "old"
    (kid,) = found
    return kid


@pytest.mark.nightly
@pytest.mark.timeout(180)
async def test_a_rotation_during_a_build_fails_no_compile_and_loses_no_result(
    tmp_path: Path,
) -> None:
    async with process_farm(tmp_path, result_key_announce_seconds=0.5) as farm:
        assert await farm.compiled(BEFORE) == [False] * len(BEFORE)
        (first,) = await keys(farm)
        with farm.client() as client:
            load = Load(farm, client, "load")
            load.start()
            await load.until(5)
            assert first in await farm.hpcc("scheduler", "rotate-result-key", "--all")
            second = await new_key(farm, first)
            await load.until(5)
            await asyncio.to_thread(load.stop)
        assert (load.failures, load.wrong) == ([], [])
        assert await farm.compiled(AFTER) == [False] * len(AFTER)
        # Both keys count: all that was made before is there for everybody.
        assert await farm.compiled(BEFORE + AFTER) == [True] * len(BEFORE + AFTER)
        assert await farm.compiled(["load-0-0", "load-0-1"]) == [True] * 2

        # The key that signs cannot be retired, the other one can.
        said = await farm.hpcc("scheduler", "retire-result-key", second, code=2)
        assert "rotate-result-key" in said
        await farm.hpcc("scheduler", "retire-result-key", first)
        assert await keys(farm) == {first: "retired", second: "good"}
        # Workers and dispatchers that did not ask before see that at once.
        await farm.kill("worker")
        await farm.start_worker()
        assert await farm.compiled(BEFORE + AFTER) == [False] * len(BEFORE) + [True] * len(AFTER)
        assert await farm.compiled(BEFORE) == [True] * len(BEFORE)
        log = (tmp_path / "worker.log").read_text()
        assert f"result key {second} signs" in log
        assert "Traceback" not in log
        await farm.end()
    text = spool_path(tmp_path / "worker/audit").read_text(errors="replace")
    assert "result-refused" in text
    assert '"result-key"' in text


@pytest.mark.nightly
@pytest.mark.timeout(240)
async def test_a_rotation_that_is_killed_in_each_phase_goes_on_after_a_restart(
    tmp_path: Path,
) -> None:
    async with process_farm(tmp_path, result_key_announce_seconds=600.0) as farm:
        (first,) = await keys(farm)
        following = farm.worker_keys / "result-signing.next.key"
        with farm.client() as client:
            load = Load(farm, client, "load")
            load.start()
            await load.until(3)
            # The scheduler dies when it has the order, and perhaps has not passed it on.
            await farm.hpcc("scheduler", "rotate-result-key", first)
            await farm.kill("scheduler")
            await farm.start_scheduler()
            await logged(farm, " follows in 600 s")
            async with asyncio.timeout(60):
                while "announced" not in (await keys(farm)).values():  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.5)
            announced = following.read_bytes()
            # The worker dies when its new key is listed and does not sign.
            await farm.kill("worker")
            farm.worker_fields["result_key_announce_seconds"] = 0.3
            await farm.start_worker()
            second = await new_key(farm, first)
            await load.until(3)
            await asyncio.to_thread(load.stop)
            assert load.wrong == []
        assert not following.exists()
        assert (farm.worker_keys / "result-signing.key").read_bytes() == announced
        assert await farm.compiled(AFTER) == [False] * len(AFTER)
        await farm.kill("worker")
        await farm.start_worker()
        assert await farm.compiled([*AFTER, "load-0-0"]) == [True] * (len(AFTER) + 1)
        assert await keys(farm) == {first: "old", second: "good"}
        await farm.end()
    assert verify_trail(tmp_path / "worker/audit").count > 0
