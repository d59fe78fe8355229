"""What real services say of themselves, and that it turns with each fault."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from hpcc.gateway.config import GatewayConfig
from hpcc.gateway.serve import serve_gateway
from hpcc.identity.tls import PinnedPeer
from hpcc.obs.health.health import Health, ServicePhase
from hpcc.ports import SystemClock
from hpcc.rpc.base.channel import open_channel
from hpcc.rpc.base.health import NOT_SERVING, SERVING
from hpcc_testkit.farm.gateway import gateway_under_test
from hpcc_testkit.farm.in_process import farm_under_test
from hpcc_testkit.farm.processes import ProcessFarm
from hpcc_testkit.farm.several import EqualBuild, build_on, room
from hpcc_testkit.farm.stock_steps import run
from hpcc_testkit.services.authority import issue
from hpcc_testkit.services.scraped import fetch, scrape

pytestmark = pytest.mark.timeout(180)
ADMIN: Final = "127.0.0.1:0"
CHECK: Final = "/grpc.health.v1.Health/Check"
CONDITIONS: Final = (
    "service", "scheduler", "certificate", "audit", "disk", "images", "draining", "guests",
)  # fmt: skip
BUSY: Final = "hpcc_worker_slots"


async def ready(address: str, query: str = "") -> tuple[int, str]:
    status, body = await asyncio.to_thread(fetch, address, f"/readyz{query}")
    return status, body.decode()


async def until(address: str, is_it: Callable[[int, str], bool]) -> str:
    """Ask until the answer is such; the guard is the test's own limit of time."""
    while True:
        status, text = await ready(address)
        if is_it(status, text):
            return text
        await asyncio.sleep(0.05)


def shown(port: int) -> str:
    """Return the certificate that a port shows to a stranger."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        context.wrap_socket(plain) as connection,
    ):
        return ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"")


async def check(port: int, ca: bytes = b"") -> bytes:
    """Ask a port for its health as a load balancer does, which has no login and no pin."""
    pem = ca or (await asyncio.to_thread(shown, port)).encode()
    name = "localhost" if ca else PinnedPeer.from_pem(pem).name
    async with open_channel(f"127.0.0.1:{port}", certificate_pem=pem, name=name) as channel:
        answer: bytes = await channel.unary_unary(CHECK)(b"", timeout=30)
        return answer


async def test_a_workers_readiness_turns_with_each_fault(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        farm = await stack.enter_async_context(farm_under_test(tmp_path, admin=ADMIN, **room(2)))
        assert await until(farm.scheduler.admin, lambda status, _: status == 200) == "ready\n"
        one = await stack.enter_async_context(build_on(farm, name="one", build_class=EqualBuild))
        serving = AsyncExitStack()
        worker = await serving.enter_async_context(farm.serving())
        await until(worker.admin, lambda status, _: status == 200)
        assert (await asyncio.to_thread(fetch, worker.admin, "/livez")) == (200, b"live\n")
        said = (await ready(worker.admin, "?verbose"))[1].splitlines()
        assert [line.partition(": ")[::2] for line in said] == [(name, "ok") for name in CONDITIONS]
        assert await check(worker.port) == SERVING
        farm.audit.is_full = True
        assert await ready(worker.admin) == (503, "audit: the audit trail has no room\n")
        assert await check(worker.port) == NOT_SERVING
        farm.audit.is_full = False
        farm.audit.is_broken = True
        await one.run([0], jobs=1, seconds=0.0)
        assert await ready(worker.admin) == (503, "audit: the audit disk is full\n")
        farm.audit.is_broken = False
        await one.run([1], jobs=1, seconds=0.0)
        assert await ready(worker.admin) == (200, "ready\n")
        # While a compile finishes the worker is there, and takes no new one.
        busy = asyncio.ensure_future(one.run([2], jobs=1, seconds=1.5))
        while (await asyncio.to_thread(scrape, worker.admin)).value(BUSY, state="busy") != 1:  # noqa: ASYNC110 - a thread answers
            await asyncio.sleep(0.02)
        closing = asyncio.ensure_future(serving.aclose())
        text = await until(worker.admin, lambda status, text: "draining" in text)
        assert "draining: it takes no new compiles\n" in text
        await asyncio.gather(busy, closing)


class _Manager:
    """Hears what a service tells its manager."""

    def __init__(self, place: Path) -> None:
        self.place = str(place)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.place)
        self._socket.settimeout(60)
        self.heard: list[str] = []

    async def until(self, line: str) -> None:
        """Wait until a line begins so."""
        while not any(x.startswith(line) for x in self.heard):
            data = await asyncio.to_thread(self._socket.recv, 65536)
            self.heard += data.decode().split("\n")

    def close(self) -> None:
        self._socket.close()


@asynccontextmanager
async def managed(directory: Path) -> AsyncGenerator[tuple[ProcessFarm, _Manager, _Manager]]:
    """Run a scheduler and a worker, each under a manager."""
    farm = ProcessFarm(directory, {"admin": ADMIN}, {"admin": ADMIN})
    first, second = _Manager(directory / "s.notify"), _Manager(directory / "w.notify")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WATCHDOG_USEC", "1000000")
        try:
            patch.setenv("NOTIFY_SOCKET", first.place)
            await farm.start_scheduler()
            patch.setenv("NOTIFY_SOCKET", second.place)
            await farm.start_worker()
            yield farm, first, second
        finally:
            await farm.end()
            first.close()
            second.close()


async def test_a_service_manager_hears_ready_troubles_and_the_end(tmp_path: Path) -> None:
    async with managed(tmp_path) as (farm, first, second):
        await first.until("READY=1")
        await first.until("STATUS=workers: 1 live; places: 0 of ")
        await second.until("READY=1")
        await second.until("STATUS=places: 0 of ")
        assert second.heard.index("STATUS=starts: registering with the scheduler") < (
            second.heard.index("READY=1")
        )
        address = farm.worker_ready["admin"]
        await until(address, lambda status, _: status == 200)
        assert await check(farm.ready["port"]) == SERVING
        await farm.kill("scheduler")
        text = await until(address, lambda status, _: status == 503)
        assert text.startswith("scheduler: no stream to a scheduler")
        await second.until("STATUS=not ready; scheduler: no stream")
        before = second.heard.count("WATCHDOG=1")
        second.heard.clear()
        await second.until("WATCHDOG=1")
        assert before >= 1, "it is not ready, and lives"
        await farm.start_scheduler()
        await until(address, lambda status, _: status == 200)
        assert farm.worker is not None
        farm.worker.terminate()
        await second.until("STOPPING=1")
        more = second.heard[second.heard.index("STOPPING=1") + 1]
        assert more.startswith("EXTEND_TIMEOUT_USEC="), "compiles may finish"
        assert await farm.worker.wait() == 0


async def test_a_gateway_serves_while_one_of_its_schedulers_does(tmp_path: Path) -> None:
    async with gateway_under_test(tmp_path) as gateway, gateway.farm.serving():
        files = issue(tmp_path / "tls2")
        scheduler = gateway.farm.scheduler
        values: dict[str, object] = {
            "scheduler_certificate_pem": scheduler.certificate_pem,
            "certificate": files.certificate, "key": files.key, "admin": ADMIN,
        }  # fmt: skip
        away = GatewayConfig(scheduler="127.0.0.1:1", **values)  # type: ignore[arg-type]  # built above
        health = Health()
        async with serve_gateway(away, SystemClock(), health=health) as alone:
            text = await until(alone.admin, lambda _, text: "onnection refused" in text)
            assert text.startswith("scheduler: ")
            assert (await asyncio.to_thread(fetch, alone.admin, "/livez"))[0] == 200
            assert await check(alone.port, files.ca.read_bytes()) == NOT_SERVING
        assert health.phase is ServicePhase.STOPPING
        both = GatewayConfig(
            scheduler=f"127.0.0.1:1,{scheduler.host}:{scheduler.port}",
            **values,  # type: ignore[arg-type]  # built above
        )
        async with serve_gateway(both, SystemClock()) as running:
            await until(running.admin, lambda status, _: status == 200)
            assert await check(running.port, files.ca.read_bytes()) == SERVING
            gateway.port, gateway.ca_pem = running.port, files.ca.read_bytes()
            async with gateway.client() as client:
                assert (await run(client, "cat a.c > a.o")).result.exit_code == 0
