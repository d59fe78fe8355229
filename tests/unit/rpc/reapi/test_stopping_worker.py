"""A worker that stops ends its calls: another one may take the compile."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from hpcc.core import Blob, TenantId
from hpcc.rpc.base.errors import DeadlineError, UnavailableError
from hpcc.rpc.reapi.client import ReapiClient
from hpcc.rpc.reapi.service_calls import ReapiClientConfig

BLOB = Blob.of(b"x" * (9 << 20))
CALLS: dict[str, Callable[[ReapiClient], Awaitable[object]]] = {
    "look-up": lambda c: c.cached_result(BLOB.digest, ()),
    "execute": lambda c: c.execute(BLOB.digest, ()),
    "execute-at-once": lambda c: c.execute(BLOB.digest, (), at_once=True),
    "upload": lambda c: c.upload([BLOB]),
    "download": lambda c: c.download([BLOB.digest]),
}


class Stopping(grpc.GenericRpcHandler):
    """Ends each call the way that a server does that stops."""

    def service(self, details: Any) -> Any:
        del details

        async def end(_: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")

        return grpc.stream_stream_rpc_method_handler(end)


@asynccontextmanager
async def client(seconds: float) -> AsyncGenerator[ReapiClient]:
    server = grpc.aio.server(handlers=(Stopping(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    config = ReapiClientConfig(
        tenant=TenantId("acme"), tool_version="t", call_seconds=seconds,
        transfer_seconds=seconds, execute_seconds=seconds,
    )  # fmt: skip
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield ReapiClient(channel, "t", config)
    finally:
        await server.stop(0)


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_that_a_stopping_worker_ends_may_be_made_elsewhere(name: str) -> None:
    async with client(60.0) as calls:
        with pytest.raises(UnavailableError):
            await CALLS[name](calls)


async def test_a_call_that_ends_with_its_time_was_too_slow() -> None:
    async with client(0.9) as calls:
        with pytest.raises(DeadlineError):
            await calls.cached_result(BLOB.digest, ())
