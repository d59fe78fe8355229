"""Calls of which only the headers came: refused by these alone, or ended at a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from hpcc._proto import scheduler_pb2 as pb
from hpcc.identity.tls import PinnedPeer
from hpcc.rpc.base import method
from hpcc.rpc.base.channel import MAX_SMALL_BYTES, open_channel
from hpcc.rpc.base.method import bearer
from hpcc_testkit.farm.in_process import FarmUnderTest, farm_under_test

REAPI = "/build.bazel.remote.execution.v2"
AT_WORKER = [
    f"{REAPI}.Capabilities/GetCapabilities",
    f"{REAPI}.ContentAddressableStorage/BatchUpdateBlobs",
    f"{REAPI}.ContentAddressableStorage/FindMissingBlobs",
    f"{REAPI}.ActionCache/GetActionResult",
    f"{REAPI}.Execution/Execute",
    f"{REAPI}.Execution/WaitExecution",
    "/google.longrunning.Operations/CancelOperation",
    "/google.bytestream.ByteStream/Read",
    "/google.bytestream.ByteStream/Write",
]
AT_SCHEDULER = [f"/hpcc.v1.SchedulerService/{m}" for m in ("Route", "WatchRoutes", "ResultKeys")]
AUTHENTICATE = "/hpcc.v1.SchedulerService/Authenticate"
# What strangers may call: two logins, which need a message, and one bit.
FOR_STRANGERS = {
    AUTHENTICATE,
    "/hpcc.v1.WorkerEnrolmentService/Enrol",
    "/grpc.health.v1.Health/Check",
}
Codes = grpc.StatusCode


@pytest.fixture
async def farm(tmp_path: Path) -> AsyncGenerator[FarmUnderTest]:
    async with farm_under_test(tmp_path) as farm, farm.serving():
        yield farm


@asynccontextmanager
async def at_scheduler(farm: FarmUnderTest) -> AsyncGenerator[grpc.aio.Channel]:
    peer = PinnedPeer.from_pem(farm.scheduler.certificate_pem.encode())
    async with open_channel(
        f"127.0.0.1:{farm.scheduler.port}", certificate_pem=peer.certificate_pem, name=peer.name
    ) as channel:
        yield channel


async def silent(channel: grpc.aio.Channel, path: str, credential: str) -> grpc.StatusCode:
    """Send the headers of a call and nothing else; return how the server ends it."""
    call: Any = channel.stream_stream(path)(metadata=bearer(credential), timeout=20)
    code: grpc.StatusCode = await call.code()
    return code


async def all_silent(
    channel: grpc.aio.Channel, paths: list[str], credential: str
) -> dict[str, grpc.StatusCode]:
    async with asyncio.TaskGroup() as group:
        calls = {path: group.create_task(silent(channel, path, credential)) for path in paths}
    return {path: call.result() for path, call in calls.items()}


async def test_no_token_is_refused_by_every_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a scheduler or a worker serves is asked, so that nobody forgets a new method."""
    served: set[str] = set()
    make = grpc.method_handlers_generic_handler

    def note(service: str, methods: dict[str, Any]) -> Any:
        served.update(f"/{service}/{name}" for name in methods)
        return make(service, methods)

    monkeypatch.setattr(grpc, "method_handlers_generic_handler", note)
    async with (
        farm_under_test(tmp_path) as farm,
        farm.serving(),
        farm.worker_channel() as (worker, _),
        at_scheduler(farm) as scheduler,
    ):
        asked = sorted(served - FOR_STRANGERS)
        by_worker = await all_silent(worker, asked, "no.token")
        by_scheduler = await all_silent(scheduler, asked, "no.session")
    assert served >= {*AT_WORKER, *AT_SCHEDULER, *FOR_STRANGERS}
    assert {*by_worker.values(), *by_scheduler.values()} == {
        Codes.UNAUTHENTICATED,
        Codes.UNIMPLEMENTED,
    }
    by_nobody = {
        path for path in asked if Codes.UNAUTHENTICATED not in {by_worker[path], by_scheduler[path]}
    }
    # The port of workers takes no connection without a certificate.
    services = {path.split("/")[1] for path in by_nobody}
    assert services == {
        "hpcc.v1.AuditService",
        "hpcc.v1.WorkerEnrolmentService",
        "hpcc.v1.WorkerRegistryService",
    }


async def test_a_good_token_without_a_message_has_a_deadline(
    farm: FarmUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with farm.worker_channel() as (channel, token):
        monkeypatch.setattr(method, "MESSAGE_SECONDS", 0.1)
        for path in AT_WORKER:
            call: Any = channel.stream_stream(path)(metadata=bearer(token), timeout=20)
            assert await call.details() == "no whole message came in time", path


async def test_a_login_larger_than_any_report_is_refused(farm: FarmUnderTest) -> None:
    async with at_scheduler(farm) as channel:
        call: Any = channel.unary_unary(
            AUTHENTICATE, request_serializer=pb.AuthenticateRequest.SerializeToString
        )
        request = pb.AuthenticateRequest(tenant="acme", principal="p" * MAX_SMALL_BYTES)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request, metadata=bearer(farm.tenant_secret), timeout=20)
    assert caught.value.code() is Codes.RESOURCE_EXHAUSTED


async def test_bytes_that_are_no_message_are_refused_in_words(farm: FarmUnderTest) -> None:
    async with farm.worker_channel() as (channel, token):
        for path in AT_WORKER:
            call: Any = channel.stream_stream(path)(metadata=bearer(token), timeout=20)
            await call.write(b"\xff" * 64)
            assert await call.code() is Codes.INVALID_ARGUMENT, path
