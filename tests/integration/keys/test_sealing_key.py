"""The sealing key is changed, and lost: no command of a database is needed, and results stay.

The commands are those of docs/operate.md, run beside real processes.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from hpcc.core import RemoteFailure
from hpcc_testkit.farm.processes import ProcessFarm, process_farm

NAMES = [f"name-{n}" for n in range(3)]


def seal_of(farm: ProcessFarm) -> Path:
    return farm.directory / "scheduler/keys/key-ring.seal"


@pytest.mark.nightly
@pytest.mark.timeout(180)
async def test_a_changed_sealing_key_loses_nothing(tmp_path: Path) -> None:
    async with process_farm(tmp_path) as farm:
        assert await farm.compiled(NAMES) == [False] * len(NAMES)
        await farm.kill("scheduler")
        old = seal_of(farm).rename(tmp_path / "old.seal")
        said = await farm.hpcc("scheduler", "reseal", "--old-key", str(old))
        assert "nothing else is necessary" in said
        assert seal_of(farm).read_bytes() != old.read_bytes()
        # The worker comes back with the certificate that it has.
        await farm.start_scheduler()
        await farm.back()
        assert await farm.compiled(NAMES) == [True] * len(NAMES)
        # A second time there is nothing to do, and the old key opens nothing.
        assert "this key opens them" in await farm.hpcc("scheduler", "reseal")
        old.replace(seal_of(farm))
        await farm.hpcc("scheduler", "reseal", code=1)


@pytest.mark.nightly
@pytest.mark.timeout(180)
async def test_a_lost_sealing_key_costs_logins_and_enrolments_and_no_result(
    tmp_path: Path,
) -> None:
    async with process_farm(tmp_path) as farm:
        assert await farm.compiled(NAMES) == [False] * len(NAMES)
        await farm.kill("scheduler")
        seal_of(farm).unlink()
        # A scheduler that starts makes a key, finds that it opens nothing, and says what to do.
        with pytest.raises(AssertionError, match="hpcc scheduler reseal"):
            await farm.start_scheduler()
        seal_of(farm).unlink()
        said = await farm.hpcc("scheduler", "reseal", code=1, output=True)
        assert "With --lost this is lost" in said
        assert "hpcc scheduler enrol-token --name w1" in said
        assert not seal_of(farm).exists(), "without an option nothing changes"
        said = await farm.hpcc("scheduler", "reseal", "--lost")
        assert "hpcc scheduler enrol-token --name w1" in said
        assert "this key opens them" in await farm.hpcc("scheduler", "reseal", "--lost")
        await farm.start_scheduler()
        # No worker is let in, so compiles are local; they do not fail.
        with farm.client() as client:
            outcome = await asyncio.to_thread(client.compile, farm.request("x"), lambda: False)
        assert isinstance(outcome, RemoteFailure)

        await farm.kill("worker")
        token = await farm.hpcc("scheduler", "enrol-token", "--name", "w1")
        file, pem = tmp_path / "token", tmp_path / "scheduler.crt"
        file.touch(mode=0o600)
        file.write_text(token.strip().splitlines()[-1])
        pem.write_text(farm.ready["certificate_pem"])
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hpcc.cli", "worker", "enrol",
            "--scheduler", f"{farm.ready['host']}:{farm.ready['port']}",
            "--ca", str(pem), "--token-file", str(file),
            "--name", "w1", "--keys", str(farm.worker_keys),
        )  # fmt: skip
        assert await process.wait() == 0
        await farm.start_worker()
        assert await farm.compiled([*NAMES, "y"]) == [True] * len(NAMES) + [False]
