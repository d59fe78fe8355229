"""Scheduler, worker and gateway as three processes, so that a test can read the memory of each.

Open `separate_farm`; it yields a `SeparateFarm`. The worker has fake guests.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.config.private_file import write_private_file
from hpcc.core import Isolation
from hpcc.identity.tls import PinnedPeer
from hpcc.ports import SystemClock
from hpcc.rpc.base.channel import open_channel
from hpcc.rpc.reapi.client import ReapiClient
from hpcc.rpc.reapi.service_calls import ReapiClientConfig
from hpcc.rpc.scheduler.api import Route, RouteAsk
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc_testkit.farm.enrolled import token_file
from hpcc_testkit.farm.in_process import IMAGE, TENANT
from hpcc_testkit.farm.stock_client import StockClient, stock_client
from hpcc_testkit.services.authority import issue
from hpcc_testkit.suite.pipes import gone

_ESTABLISHED: Final = "01"
_SECRET: Final = "s" * 43
_START_SECONDS: Final = 60.0
_END_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Part:
    """A process that serves."""

    port: int
    pid: int
    facts: Mapping[str, object]
    log: Path

    def connections_of(self, address: str) -> int:
        """Return how many connections of an IPv4 address it has accepted and not closed."""
        host = socket.inet_aton(address)[::-1].hex().upper()
        rows = Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]
        rows += Path(f"/proc/{self.pid}/net/tcp6").read_text().splitlines()[1:]
        ends = [row.split()[1:4] for row in rows]
        return sum(
            state == _ESTABLISHED and there.rpartition(":")[0].endswith(host)
            for here, there, state in ends
            if int(here.rpartition(":")[2], 16) == self.port
        )

    def resident_mib(self) -> float:
        """Return how much memory it has in RAM."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        (line,) = (text for text in status.splitlines() if text.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024


@dataclass(frozen=True, slots=True)
class SeparateFarm:
    """The three processes, and an honest caller's calls."""

    scheduler: Part
    worker: Part
    gateway: Part
    ca_pem: bytes

    async def route(self) -> Route:
        """Log in and ask for a route over a new connection, as a daemon does."""
        peer = PinnedPeer.from_pem(str(self.scheduler.facts["certificate_pem"]).encode())
        async with open_channel(
            f"127.0.0.1:{self.scheduler.port}", certificate_pem=peer.certificate_pem, name=peer.name
        ) as channel:
            client = SchedulerClient(channel)
            grant = await client.authenticate(
                secret=_SECRET, tenant=TENANT, principal="ann", client_version="t"
            )
            return await client.route(grant.session, RouteAsk(tenant=TENANT, image=IMAGE))

    @asynccontextmanager
    async def client(self, route: Route) -> AsyncGenerator[ReapiClient]:
        """Yield a client of the worker over a new connection."""
        peer = PinnedPeer.from_der(route.worker_certificate)
        async with open_channel(
            route.endpoint, certificate_pem=peer.certificate_pem, name=peer.name
        ) as channel:
            config = ReapiClientConfig(tenant=TENANT, tool_version="test")
            yield ReapiClient(channel, route.token, config)

    @asynccontextmanager
    async def stock(self) -> AsyncGenerator[StockClient]:
        """Yield a stock client of the gateway over a new connection."""
        headers = (("authorization", f"Bearer {_SECRET}"), ("hpcc-image", str(IMAGE)))
        async with stock_client(self.gateway.port, self.ca_pem, TENANT.value, *headers) as client:
            yield client


@asynccontextmanager
async def separate_farm(directory: Path) -> AsyncGenerator[SeparateFarm]:
    """Run the three while the block runs."""
    base = directory / "scheduler"
    table = {
        "keys": str(base / "keys"), "state": str(base / "state"), "tenant": TENANT.value,
        "tenant_secret": _SECRET, "minimum_isolation": Isolation.LOCAL_NONE.value,
    }  # fmt: skip
    async with _part("hpcc.scheduler", base / "scheduler.json", table) as scheduler:
        certificate = scheduler.facts["certificate_pem"]
        home, token = directory / "worker", directory / "worker" / "token"
        config = SchedulerConfig(
            keys=base / "keys", state=base / "state", tenant=TENANT.value, tenant_secret=_SECRET,
            minimum_isolation=Isolation.LOCAL_NONE.value,
        )  # fmt: skip
        await token_file(config, SystemClock(), token, "w1")
        names = ("keys", "store", "audit", "images", "state")
        worker_table = {
            **{name: str(home / name) for name in names}, "guest_assets": str(home / "assets"),
            "worker_id": "w1", "scheduler": f"127.0.0.1:{scheduler.facts['worker_port']}",
            "scheduler_certificate_pem": certificate, "enrol_token_file": str(token),
            "enrol_at": f"127.0.0.1:{scheduler.port}", "image_digests": [IMAGE.digest.value],
            "drain_seconds": 5.0,
        }  # fmt: skip
        files = issue(directory / "tls")
        gateway_table = {
            "scheduler": f"127.0.0.1:{scheduler.port}", "scheduler_certificate_pem": certificate,
            "certificate": str(files.certificate), "key": str(files.key),
        }  # fmt: skip
        async with (
            _part("hpcc_testkit.farm.worker", home / "worker.json", worker_table) as worker,
            _part("hpcc.gateway", directory / "gateway" / "g.json", gateway_table) as gateway,
        ):
            yield SeparateFarm(scheduler, worker, gateway, files.ca.read_bytes())


@asynccontextmanager
async def _part(module: str, file: Path, table: Mapping[str, object]) -> AsyncGenerator[Part]:
    write_private_file(file, json.dumps(table).encode())
    log = file.with_suffix(".log")
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, "--config", str(file),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors,
        )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        facts: dict[str, object] = {}
        async with asyncio.timeout(_START_SECONDS):
            while "port" not in facts:
                facts = json.loads(await process.stdout.readline())
        port = facts["port"]
        assert isinstance(port, int)
        yield Part(port, process.pid, facts, log)
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(gone(process), _END_SECONDS)
        except TimeoutError:
            process.kill()
            await gone(process)
