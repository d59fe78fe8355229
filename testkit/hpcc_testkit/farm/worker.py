"""`python -m hpcc_testkit.farm.worker --config FILE`: a worker process with fake guests."""

from __future__ import annotations

from pathlib import Path

from hpcc.audit.log import open_audit_log
from hpcc.config.service_file import load_service_file
from hpcc.core import ImageDigest
from hpcc.identity.keys import load_or_create_signing_key
from hpcc.ports import SystemClock
from hpcc.rpc.base.process import ServiceProcess, run_service
from hpcc.worker.base.config import AUDIT_KEY_NAME, WorkerConfig
from hpcc.worker.serve import serve_worker
from hpcc_testkit.guests.fake_runtime import FakeGuest, FakeRuntime


class _AnyImage:
    async def image(self, digest: ImageDigest) -> Path:
        del digest
        return Path("/dev/null")


async def main(process: ServiceProcess, guest_class: type[FakeGuest] = FakeGuest) -> None:
    """Serve until cancelled, like `hpcc.worker` but without isolation."""
    config = load_service_file(process.config_path, WorkerConfig)
    config.state.mkdir(parents=True, exist_ok=True)
    clock = SystemClock()
    async with (
        open_audit_log(
            config.audit,
            worker=config.worker_id,
            key=load_or_create_signing_key(config.keys / AUDIT_KEY_NAME),
            clock=clock,
            limits=config.audit_limits,
        ) as audit,
        serve_worker(
            config,
            runtime=FakeRuntime(config.state, guest_class=guest_class),
            images=_AnyImage(),
            audit=audit,
            clock=clock,
            progress=process.progress,
        ) as running,
    ):
        process.ready({"port": running.port})
        await process.wait_stop()


if __name__ == "__main__":
    raise SystemExit(run_service("worker", main))
