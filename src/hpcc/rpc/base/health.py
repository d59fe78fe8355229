"""`grpc.health.v1.Health/Check`, at both ends: one bit that a load balancer may know without login.

The call costs a server what a refused call costs. Its message is never read: whichever service it
names, the answer is about all of them, and there are only two answers. `Watch` is not served,
because a stranger would hold a stream. A client takes that for a server that does not tell.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md is the source.
"""

from __future__ import annotations

from typing import Any, Final

import grpc

from hpcc.obs.health.health import Health
from hpcc.rpc.base.errors import error_of_call

_SERVICE: Final = "grpc.health.v1.Health"
_CHECK: Final = "Check"
# `HealthCheckResponse` has one field, `status = 1`: SERVING is 1, NOT_SERVING is 2.
SERVING: Final = b"\x08\x01"
NOT_SERVING: Final = b"\x08\x02"


def health_handlers(health: Health) -> tuple[grpc.GenericRpcHandler, ...]:
    """Return the handler of the service."""

    async def check(_messages: Any, _context: Any) -> bytes:  # noqa: ANN401 - grpc's types are generic over messages
        return SERVING if health.conditions().is_serving else NOT_SERVING

    # As a stream, which is the same on the wire, so that gRPC reads no message.
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_unary_rpc_method_handler(check)
    return (grpc.method_handlers_generic_handler(_SERVICE, {_CHECK: handler}),)


async def trouble_of(channel: grpc.aio.Channel, seconds: float) -> str:
    """Ask a server whether it serves; return why not, "" if it does."""
    path = f"/{_SERVICE}/{_CHECK}"
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
    try:
        # The empty message names no service: it asks about the server.
        answer = await call(b"", timeout=seconds)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return ""  # an older one, which answers
        return str(error_of_call(error))
    return "" if answer == SERVING else "it is not ready: its journal and `/readyz` say why"
