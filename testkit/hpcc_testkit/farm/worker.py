"""`python -m hpcc_testkit.farm.worker --config FILE`: a worker process with fake guests.

With HPCC_TEST_LABEL in the environment they carry that label of isolation.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Final

from hpcc.audit.log import open_audit_log
from hpcc.config.service_file import load_service_file
from hpcc.core import ImageDigest, Isolation
from hpcc.identity.keys import trail_key
from hpcc.ports import SystemClock
from hpcc.rpc.base.process import ServiceProcess, run_service
from hpcc.worker.base.config import AUDIT_KEY_NAME, WorkerConfig
from hpcc.worker.base.metrics import WorkerMetrics
from hpcc.worker.serve import serve_worker
from hpcc_testkit.guests.fake_runtime import FakeFaults, FakeGuest, FakeRuntime

LABEL_VARIABLE: Final = "HPCC_TEST_LABEL"


class _AnyImage:
    async def image(self, digest: ImageDigest) -> Path:
        del digest
        return Path("/dev/null")


class _LabelledGuest(FakeGuest):
    """A guest with another label, and an id that no guest of an earlier process had."""

    def __init__(self, guest_id: str, directory: Path, faults: FakeFaults) -> None:
        super().__init__(f"{guest_id}-{uuid.uuid4().hex}", directory, faults)
        label = Isolation(os.environ[LABEL_VARIABLE])
        self.identity = replace(self.identity, isolation=label)


def _runtime(state: Path, guest_class: type[FakeGuest]) -> FakeRuntime:
    label = os.environ.get(LABEL_VARIABLE)
    if label is None:
        return FakeRuntime(state, guest_class=guest_class)
    return FakeRuntime(state, isolation=Isolation(label), guest_class=_LabelledGuest)


async def main(process: ServiceProcess, guest_class: type[FakeGuest] = FakeGuest) -> None:
    """Serve until cancelled, like `hpcc.worker` but without isolation."""
    config = load_service_file(process.config_path, WorkerConfig)
    config.state.mkdir(parents=True, exist_ok=True)
    clock = SystemClock()
    async with (
        open_audit_log(
            config.audit,
            worker=config.worker_id,
            key=trail_key(config.keys / AUDIT_KEY_NAME),
            mark=config.keys / f"{AUDIT_KEY_NAME}.signs-records",
            clock=clock,
            limits=config.audit_limits,
        ) as audit,
        serve_worker(
            config,
            runtime=_runtime(config.state, guest_class),
            images=_AnyImage(),
            audit=audit,
            clock=clock,
            progress=process.progress,
            metrics=WorkerMetrics("test", process.health),
        ) as running,
    ):
        process.on_hurry = running.hurry
        process.ready({"port": running.port, "admin": running.admin})
        await process.wait_stop()


if __name__ == "__main__":
    raise SystemExit(run_service("worker", main))
