"""`python -m hpcc.gateway --config FILE`: prints one JSON line when ready, then serves."""

from __future__ import annotations

from hpcc.config.service_file import load_service_file
from hpcc.gateway.config import GatewayConfig
from hpcc.gateway.serve import serve_gateway
from hpcc.ports import SystemClock
from hpcc.rpc.base.process import ServiceProcess, run_service


async def main(process: ServiceProcess) -> None:
    """Serve until cancelled."""
    config = load_service_file(process.config_path, GatewayConfig)
    process.log.configured(config.log_format)
    async with serve_gateway(config, SystemClock(), health=process.health) as running:
        process.ready({"host": running.host, "port": running.port, "admin": running.admin})
        await process.wait_stop()


if __name__ == "__main__":
    raise SystemExit(run_service("gateway", main))
