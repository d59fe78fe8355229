"""Calls of which only the headers came: refused by these alone, or ended at a deadline."""

from __future__ import annotations

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


@pytest.mark.parametrize("path", AT_WORKER)
async def test_a_worker_refuses_a_bad_token_before_any_message(
    farm: FarmUnderTest, path: str
) -> None:
    async with farm.worker_channel() as (channel, _):
        assert await silent(channel, path, "no.token") is Codes.UNAUTHENTICATED


@pytest.mark.parametrize("path", AT_SCHEDULER)
async def test_a_scheduler_refuses_a_bad_session_before_any_message(
    farm: FarmUnderTest, path: str
) -> None:
    async with at_scheduler(farm) as channel:
        assert await silent(channel, path, "no.session") is Codes.UNAUTHENTICATED


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
