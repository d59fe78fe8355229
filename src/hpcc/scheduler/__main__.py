"""`python -m hpcc.scheduler --config FILE`: prints one JSON line when ready, then serves."""

from __future__ import annotations

import sys

from hpcc.config.service_file import load_service_file
from hpcc.identity.keys import trail_key
from hpcc.ports import SystemClock
from hpcc.rpc.base.process import ServiceProcess, run_service
from hpcc.scheduler.base.collector import Collector
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.serve import serve_scheduler


async def main(process: ServiceProcess) -> None:
    """Serve until cancelled."""
    if sys.platform != "win32":  # Windows has no such limit
        from hpcc.scheduler.limits import raise_descriptor_limit

        raise_descriptor_limit()
    config = load_service_file(process.config_path, SchedulerConfig)
    process.log.configured(config.log_format)
    async with serve_scheduler(
        config, SystemClock(), collector=Collector(), health=process.health, key_of=trail_key
    ) as running:
        process.ready(
            {
                "host": running.host,
                "port": running.port,
                "worker_port": running.worker_port,
                "certificate_pem": running.certificate_pem,
                "scheduler_id": running.scheduler_id,
                "admin": running.admin,
            }
        )
        await process.wait_stop()


if __name__ == "__main__":
    raise SystemExit(run_service("scheduler", main))
