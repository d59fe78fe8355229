"""One-time enrolment tokens, so that workers in tests get certificates as real workers do."""

from __future__ import annotations

from pathlib import Path

from hpcc.config.private_file import write_private_file
from hpcc.ports import Clock
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.serve import open_enrolment
from hpcc_testkit.hostile.canaries import plant


async def token_file(
    config: SchedulerConfig, clock: Clock, path: Path, worker_id: str, valid_seconds: float = 600.0
) -> Path:
    """Write a token for a worker to a file, as `hpcc scheduler enrol-token --name` prints it."""
    async with open_enrolment(config, clock) as enrolment:
        token = await enrolment.new_token(worker_id, valid_seconds)
    write_private_file(path, plant(token).encode())
    return path
