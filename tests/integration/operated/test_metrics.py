"""What a real scheduler and a real worker show equals what they did, number by number."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import grpc
import pytest

from hpcc.core import Digest, NotFoundError
from hpcc.identity.tls import PinnedPeer
from hpcc.rpc.base.channel import open_channel
from hpcc.rpc.base.errors import UnauthenticatedError
from hpcc.rpc.scheduler.api import RouteAsk
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc_testkit.farm.gateway import gateway_under_test
from hpcc_testkit.farm.in_process import (
    IMAGE,
    OTHER_IMAGE,
    TENANT,
    FarmUnderTest,
    farm_under_test,
)
from hpcc_testkit.farm.processes import process_farm
from hpcc_testkit.farm.several import EqualBuild, build_on, room
from hpcc_testkit.farm.stock_steps import run
from hpcc_testkit.services.scraped import Scrape, scrape

pytestmark = pytest.mark.timeout(180)
ADMIN = "127.0.0.1:0"
ROW_OF = {"executed": "executed", "cached": "hit", "joined": "joined", "lost": "abandoned"}


async def shown(address: str) -> Scrape:
    return await asyncio.to_thread(scrape, address)


async def until(address: str, name: str, value: float, **labels: str) -> Scrape:
    while (found := await shown(address)).value(name, **labels) != value:  # noqa: ASYNC110 - another process counts
        await asyncio.sleep(0.1)
    return found


async def refused(farm: FarmUnderTest) -> None:
    """Log in with a wrong secret, ask without a session, and for an image that nobody has."""
    peer = PinnedPeer.from_pem(farm.scheduler.certificate_pem.encode())
    async with open_channel(
        f"{farm.scheduler.host}:{farm.scheduler.port}",
        certificate_pem=peer.certificate_pem,
        name=peer.name,
    ) as channel:
        client = SchedulerClient(channel)
        with pytest.raises(UnauthenticatedError):
            await client.authenticate(
                secret="x" * 40, tenant=TENANT, principal="eve", client_version="t"
            )
        with pytest.raises(UnauthenticatedError):
            await client.route("no-session", RouteAsk(tenant=TENANT, image=IMAGE))
    with pytest.raises(NotFoundError):
        await farm.route("ann", OTHER_IMAGE)


async def test_the_figures_of_a_build_equal_its_audit_rows(tmp_path: Path) -> None:
    units = range(6)
    async with (
        farm_under_test(tmp_path, admin=ADMIN, **room(2)) as farm,
        farm.serving() as worker,
        build_on(farm, name="one", build_class=EqualBuild) as one,
        build_on(farm, name="two", build_class=EqualBuild) as two,
    ):
        during = await until(farm.scheduler.admin, "hpcc_scheduler_workers", 1, state="live")
        # So long that a busy machine sees both slots busy before the build is over.
        busy = asyncio.ensure_future(one.run(units, jobs=2, seconds=1.5))
        await until(worker.admin, "hpcc_worker_slots", 2, state="busy")
        await busy
        await two.run(units, jobs=2, seconds=1.5)
        await refused(farm)
        figures = await shown(worker.admin)
        rows = Counter(row.cache_status for row in farm.audit.rows)
        assert rows["executed"] == rows["hit"] == len(units)
        for outcome, status in ROW_OF.items():
            total = figures.total("hpcc_worker_compiles_total", tenant="acme", outcome=outcome)
            assert total == rows[status], outcome
        assert figures.value("hpcc_audit_records_total", kind="row") == len(farm.audit.rows)
        for name in ("compile", "queue_wait"):
            count = figures.value(f"hpcc_worker_{name}_seconds_count", tenant="acme")
            assert count == len(units), name
        assert figures.value("hpcc_worker_compile_seconds_sum", tenant="acme") >= 6 * 0.3
        execute = {"rpc_method": "build.bazel.remote.execution.v2.Execution/Execute"}
        assert figures.value(
            "hpcc_rpc_server_seconds_count", **execute, rpc_grpc_status_code="0"
        ) >= len(units)  # fmt: skip
        assert figures.value("hpcc_worker_scheduler_up") == 1
        assert figures.total("hpcc_worker_guest_starts_total") >= 1

        scheduler = await shown(farm.scheduler.admin)
        routes, logins = "hpcc_scheduler_routes_total", "hpcc_scheduler_logins_total"
        assert scheduler.value(routes, tenant="acme", result="ok") >= 2
        assert scheduler.value(routes, tenant="acme", result="no-worker") == 1
        assert scheduler.total(routes, result="session") == 0, "no tenant of a bad session"
        assert scheduler.value(logins, tenant="acme") == 3
        assert scheduler.value("hpcc_scheduler_logins_refused_total", reason="bad-secret") == 1
        assert scheduler.value("hpcc_security_events_total", name="login-refused") == 1
        assert during.total("hpcc_scheduler_slots") == 2
        assert scheduler.value("hpcc_scheduler_control_store_up") == 1
        assert scheduler.value("hpcc_scheduler_heartbeats_total") >= 1
        refusal = {"rpc_method": "hpcc.v1.SchedulerService/Authenticate"}
        assert scheduler.value(
            "hpcc_rpc_server_seconds_count", **refusal, rpc_grpc_status_code="16"
        ) == 1  # fmt: skip
        for scraped in (figures, scheduler):
            assert scraped.series < 500
            for secret in ('"ann"', str(tmp_path), farm.tenant_secret, IMAGE.digest.value):
                assert secret not in scraped.text, "no label is a person, a path or a digest"


async def test_processes_show_figures_and_a_worker_that_died_is_gone(tmp_path: Path) -> None:
    async with process_farm(tmp_path, scheduler={"admin": ADMIN}, admin=ADMIN) as farm:
        assert await farm.compiled(["a", "b", "c"]) == [False] * 3
        address = farm.worker_ready["admin"]
        found = await shown(address)
        compiles = "hpcc_worker_compiles_total"
        assert found.total(compiles) == found.total(compiles, outcome="executed") == 3
        assert found.value("hpcc_audit_records_total", kind="row") == 3
        trail = found.value("hpcc_audit_trail_bytes")
        assert 0 < trail < found.value("hpcc_audit_limit_bytes")
        # The records, and what their index will take.
        spool_bytes = (tmp_path / "worker/audit/spool.hpcc").stat().st_size
        assert spool_bytes < trail < spool_bytes + (1 << 16)
        ends = "hpcc_certificate_expires_timestamp_seconds"
        assert found.value(ends, what="worker") > found.value("process_start_time_seconds")
        assert found.value("hpcc_log_events_total", severity="ERROR") == 0
        scheduler = farm.ready["admin"]
        await until(scheduler, "hpcc_scheduler_workers", 1, state="live")
        await farm.kill("worker")
        gone = await until(scheduler, "hpcc_scheduler_workers", 0, state="live")
        assert gone.value("hpcc_scheduler_demand_slots") == 0
        assert gone.total("hpcc_scheduler_slots") == 0


async def test_a_gateway_shows_its_calls_its_refusals_and_what_it_holds(tmp_path: Path) -> None:
    calls = "hpcc_gateway_calls_total"
    execute = {"rpc_method": "build.bazel.remote.execution.v2.Execution/Execute"}
    async with (
        gateway_under_test(tmp_path, admin=ADMIN) as gateway,
        gateway.farm.serving(),
        gateway.client() as client,
    ):
        before = await shown(gateway.admin)
        assert before.value("hpcc_gateway_buffer_bytes") == 0
        assert before.value("hpcc_gateway_sessions") == 0
        wait = f"while ! [ -e {tmp_path}/go ]; do sleep 0.02; done"
        build = asyncio.ensure_future(run(client, f"{wait}; cp a.c a.o"))
        during = await until(gateway.admin, "hpcc_gateway_calls", 1, tenant="acme")
        assert 0 <= during.value("hpcc_gateway_buffer_bytes") < 512 << 20
        assert during.value("hpcc_gateway_buffer_limit_bytes") == 512 << 20
        (tmp_path / "go").touch()
        assert (await build).status.code == 0
        with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
            await client.cached(Digest.of(b"never run"))
        async with gateway.client("globex:eve") as foreign:
            with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
                await foreign.capabilities()
        with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
            await client.sending().capabilities()
        figures = await until(gateway.admin, "hpcc_gateway_calls", 0, tenant="acme")
        assert figures.value(calls, tenant="acme", result="ok") == 2, "an upload and an execution"
        assert figures.value(calls, tenant="acme", result="worker") == figures.total(calls) - 2 == 1
        assert figures.value("hpcc_gateway_refusals_total", reason="idp-token-issuer") == 1
        assert figures.value("hpcc_gateway_refusals_total", reason="no-token") == 1
        assert figures.value("hpcc_security_events_total", name="gateway-refused") == 2
        assert figures.value("hpcc_gateway_sessions") == 1
        assert figures.total("hpcc_gateway_strangers") == 0
        assert figures.value("hpcc_gateway_buffer_bytes") == 0
        ended = "hpcc_rpc_server_seconds_count"
        assert figures.value(ended, **execute, rpc_grpc_status_code="0") == 1
        ends = figures.value("hpcc_certificate_expires_timestamp_seconds", what="gateway")
        assert ends > figures.value("process_start_time_seconds")
        for secret in ('"eve"', '"ann"', '"globex"', str(tmp_path), IMAGE.digest.value):
            assert secret not in figures.text, "no label is a person, or a tenant that is claimed"
