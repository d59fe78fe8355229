"""One place where every call passes: bearer, errors to status, bounded metadata."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from hpcc.core import HpccError
from hpcc.rpc._errors import code_of, trailer_of

_BEARER: Final = "Bearer "
# An identity provider that lists groups in its tokens makes them this long.
_MAX_CREDENTIAL_CHARS: Final = 6 << 10
TOOL_METADATA: Final = "build.bazel.remote.execution.v2.requestmetadata-bin"
# Flags that hpcc added to argv, zero-separated: for the audit row, never for a decision.
INJECTED_METADATA: Final = "hpcc-injected-bin"
# Shows that the caller holds the key of its token.
PROOF_METADATA: Final = "hpcc-proof"
_MAX_PROOF_CHARS: Final = 128

# Any: the messages of generated code, bounded to this package.
UnaryFn = Callable[[Any, "Call"], Awaitable[Any]]
StreamFn = Callable[[Any, "Call"], AsyncGenerator[Any]]


@dataclass(frozen=True, slots=True)
class Call:
    """What is known of a caller before anything is checked."""

    credential: str
    tool_metadata: bytes
    injected: bytes = b""
    proof: str = ""
    # `/package.Service/Method`, which a proof is for.
    method: str = ""

    @classmethod
    def of(cls, context: Any, method: str = "") -> Call:  # noqa: ANN401 - grpc's context is generic over messages we name only here
        credential, tool, injected, proof = "", b"", b"", ""
        for key, value in context.invocation_metadata() or ():
            if key == "authorization" and isinstance(value, str):
                credential = value.removeprefix(_BEARER) if value.startswith(_BEARER) else ""
            elif key == TOOL_METADATA and isinstance(value, bytes):
                tool = value
            elif key == INJECTED_METADATA and isinstance(value, bytes):
                injected = value
            elif key == PROOF_METADATA and isinstance(value, str):
                proof = value[:_MAX_PROOF_CHARS]
        return cls(credential[: _MAX_CREDENTIAL_CHARS + 1], tool, injected, proof, method)


@dataclass(frozen=True, slots=True)
class Method:
    """A server method: name, request and response types, and exactly one implementation."""

    name: str
    request: type[Message]
    response: type[Message]
    unary: UnaryFn | None = None
    stream: StreamFn | None = None
    is_client_streaming: bool = False


def service_handler(service: str, methods: tuple[Method, ...]) -> grpc.GenericRpcHandler:
    """Build the handler of a service, with our errors turned into statuses."""
    return grpc.method_handlers_generic_handler(
        service, {m.name: _handler(m, f"/{service}/{m.name}") for m in methods}
    )


def _handler(method: Method, path: str) -> grpc.RpcMethodHandler[Any, Any]:
    codec = {
        "request_deserializer": method.request.FromString,
        "response_serializer": lambda m: m.SerializeToString(),
    }
    if method.stream is not None:
        stream = method.stream

        async def serve_stream(request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - see UnaryFn
            try:
                # Closed here and now when the caller leaves: what it holds must not wait for gc.
                async with aclosing(stream(request, Call.of(context, path))) as messages:
                    async for message in messages:
                        yield message
            except HpccError as error:
                await _abort(context, error)

        return grpc.unary_stream_rpc_method_handler(serve_stream, **codec)
    assert method.unary is not None
    unary = method.unary

    async def serve(request: Any, context: Any) -> Any:  # noqa: ANN401 - see UnaryFn
        try:
            return await unary(request, Call.of(context, path))
        except HpccError as error:
            await _abort(context, error)

    if method.is_client_streaming:
        return grpc.stream_unary_rpc_method_handler(serve, **codec)
    return grpc.unary_unary_rpc_method_handler(serve, **codec)


async def _abort(context: Any, error: HpccError) -> None:  # noqa: ANN401 - see UnaryFn
    await context.abort(code_of(error), str(error)[:500], trailing_metadata=trailer_of(error))


def bearer(credential: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata that carries a credential."""
    return (("authorization", f"{_BEARER}{credential}"),)
