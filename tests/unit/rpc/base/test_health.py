"""grpc.health.v1: what a caller learns without login, and what it costs the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from hpcc.identity.keys import load_or_create_tls
from hpcc.obs.health.health import Health
from hpcc.ports import SystemClock
from hpcc.rpc.base.channel import ServerTls, open_channel, start_server
from hpcc.rpc.base.health import health_handlers, trouble_of
from hpcc.rpc.base.timed import timed

CHECK = "/grpc.health.v1.Health/Check"


def response_class() -> type[Message]:
    """Build `HealthCheckResponse` as grpc/health/v1/health.proto declares it."""
    file = descriptor_pb2.FileDescriptorProto(name="h.proto", package="g", syntax="proto3")
    response = file.message_type.add(name="HealthCheckResponse")
    kinds = response.enum_type.add(name="ServingStatus")
    for name in ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"):
        kinds.value.add(name=name, number=len(kinds.value))
    status = descriptor_pb2.FieldDescriptorProto
    response.field.add(
        name="status", number=1, type=status.TYPE_ENUM, label=status.LABEL_OPTIONAL,
        type_name=".g.HealthCheckResponse.ServingStatus",
    )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName("g.HealthCheckResponse")
    return message_factory.GetMessageClass(found)


def name_of(answer: bytes) -> str:
    message = response_class().FromString(answer)
    assert message.SerializeToString() == answer
    return str(message).strip()


@asynccontextmanager
async def server(directory: Path, health: Health) -> AsyncGenerator[grpc.aio.Channel]:
    tls = load_or_create_tls(directory, "w.internal", clock=SystemClock())
    running, port = await start_server(
        timed(health_handlers(health), lambda *_: None, SystemClock()),
        host="127.0.0.1",
        port=0,
        tls=ServerTls(tls.key_pem, tls.certificate_pem),
    )
    try:
        async with open_channel(
            f"127.0.0.1:{port}", certificate_pem=tls.certificate_pem, name="w.internal"
        ) as channel:
            yield channel
    finally:
        await running.stop(0)


async def test_a_stranger_learns_one_bit(tmp_path: Path) -> None:
    health, trouble = Health(), ""
    health.add("disk", lambda: trouble)
    health.add("control-store", lambda: "gone: 10.0.0.7", is_fault=False)
    async with server(tmp_path, health) as channel:
        call = channel.unary_unary(CHECK)
        assert name_of(await call(b"")) == "status: NOT_SERVING"
        health.serving()
        assert name_of(await call(b"")) == "status: SERVING", "a degradation serves"
        assert await trouble_of(channel, 20) == ""
        assert name_of(await call(b"\x0a\x03any")) == "status: SERVING"
        assert name_of(await call(b"\xff" * 4096)) == "status: SERVING", "nothing is read"
        trouble = "/var/lib/hpcc-worker is full"
        assert name_of(await call(b"")) == "status: NOT_SERVING"
        assert await trouble_of(channel, 20) != ""


async def test_a_message_without_end_is_not_waited_for(tmp_path: Path) -> None:
    health = Health()
    health.serving()
    async with server(tmp_path, health) as channel:
        call = channel.stream_unary(CHECK)()  # sends nothing, and does not end
        assert name_of(await call) == "status: SERVING"


async def test_nobody_holds_a_stream(tmp_path: Path) -> None:
    async with server(tmp_path, Health()) as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        assert await watch.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_many_probes_each_get_the_answer(tmp_path: Path) -> None:
    """The answer is sent before the message was read: it must not be lost by that."""
    health = Health()
    health.serving()
    async with server(tmp_path, health) as channel:
        call = channel.unary_unary(CHECK)
        answers = await asyncio.gather(*(call(b"") for _ in range(300)))
    assert set(answers) == {b"\x08\x01"}


async def test_a_server_that_is_away_says_why(tmp_path: Path) -> None:
    async with server(tmp_path, Health()) as channel:
        pass
    del channel
    tls = load_or_create_tls(tmp_path, "w.internal", clock=SystemClock())
    async with open_channel(
        "127.0.0.1:1", certificate_pem=tls.certificate_pem, name="w.internal"
    ) as nobody:
        assert "onnection refused" in await trouble_of(nobody, 20)
