"""Each call of a server is measured once, with the code that its caller gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from hpcc.core import PolicyError
from hpcc.identity.keys import load_or_create_tls
from hpcc.ports import SystemClock
from hpcc.rpc.base.channel import ServerTls, open_channel, start_server
from hpcc.rpc.base.timed import timed


class _Handlers(grpc.GenericRpcHandler):
    """Methods that end in each way, as `service_handler` builds them."""

    def service(self, handler_call_details: Any) -> Any:
        one, many = grpc.stream_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        return {
            "/t.T/Good": one(self.good),
            "/t.T/Refused": one(self.refused),
            "/t.T/Broken": one(self.broken),
            "/t.T/Slow": one(self.slow),
            "/t.T/Stream": many(self.stream),
            "/t.T/Refusing": many(self.refusing),
            "/t.T/Duplex": many(self.duplex),
        }.get(handler_call_details.method)

    async def good(self, _: Any, context: Any) -> bytes:
        await context.read()
        return b"1"

    async def refused(self, _: Any, context: Any) -> bytes:
        await context.read()  # as every method does: grpc's client may lose an earlier status
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        return b""

    async def broken(self, _: Any, context: Any) -> bytes:
        await context.read()
        raise PolicyError("a fault of the method")

    async def slow(self, _: Any, context: Any) -> bytes:
        await context.read()
        await asyncio.sleep(60)
        return b""

    async def stream(self, _: Any, context: Any) -> AsyncIterator[bytes]:
        await context.read()
        yield b"1"
        yield b"2"

    async def refusing(self, _: Any, context: Any) -> AsyncIterator[bytes]:
        await context.read()
        yield b"1"
        await context.abort(grpc.StatusCode.NOT_FOUND, "no")

    async def duplex(self, _: Any, context: Any) -> None:
        await context.write(await context.read())


async def test_every_way_to_end_has_its_code(tmp_path: Path) -> None:
    calls: list[tuple[str, int]] = []
    tls = load_or_create_tls(tmp_path, "w.internal", clock=SystemClock())
    server, port = await start_server(
        timed([_Handlers()], lambda m, c, s: calls.append((m, c if s >= 0 else -1)), SystemClock()),
        host="127.0.0.1",
        port=0,
        tls=ServerTls(tls.key_pem, tls.certificate_pem),
    )
    async with open_channel(
        f"127.0.0.1:{port}", certificate_pem=tls.certificate_pem, name="w.internal"
    ) as channel:
        for name, code in (("Good", 0), ("Refused", 7), ("Broken", 2), ("Nothing", 12)):
            assert await _code(channel.stream_unary(f"/t.T/{name}")(iter([b"x"]))) == code, name
        assert await _code(channel.stream_unary("/t.T/Slow")(iter([b"x"]), timeout=0.3)) == 4
        for name, code in (("Stream", 0), ("Refusing", 5), ("Duplex", 0)):
            call = channel.stream_stream(f"/t.T/{name}")(iter([b"x"]))
            with suppress(grpc.aio.AioRpcError):
                async for _ in call:
                    continue
            assert await _code(call) == code
    await server.stop(0)
    assert sorted(calls) == sorted(
        [
            ("/t.T/Good", 0), ("/t.T/Refused", 7), ("/t.T/Broken", 2), ("/t.T/Slow", 1),
            ("/t.T/Stream", 0), ("/t.T/Refusing", 5), ("/t.T/Duplex", 0),
        ]
    ), "a method that does not exist is none"  # fmt: skip


async def _code(call: Any) -> int:
    code = await call.code()
    assert isinstance(code, grpc.StatusCode)
    number = code.value[0]
    assert isinstance(number, int)
    return number


@pytest.mark.parametrize("name", ["/t.T/Good", "/t.T/Stream"])
def test_a_method_is_wrapped_once(name: str) -> None:
    (handlers,) = timed([_Handlers()], lambda *_: None, SystemClock())
    details: Any = type("Details", (), {"method": name})()
    assert handlers.service(details) is handlers.service(details)
    details.method = "/t.T/Unknown"
    assert handlers.service(details) is None
