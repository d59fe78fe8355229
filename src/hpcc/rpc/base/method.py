"""One place where every call passes: bearer, errors to status, bounded metadata."""

from __future__ import annotations

import secrets
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import grpc
from google.protobuf.message import Message

from hpcc.core import HpccError
from hpcc.rpc.base.errors import code_of, trailer_of

AUTHORIZATION_METADATA: Final = "authorization"
_BEARER: Final = "Bearer "
# An identity provider that lists groups in its tokens makes them this long.
_MAX_CREDENTIAL_CHARS: Final = 6 << 10
TOOL_METADATA: Final = "build.bazel.remote.execution.v2.requestmetadata-bin"
# Flags that hpcc added to argv, zero-separated: for the audit row, never for a decision.
INJECTED_METADATA: Final = "hpcc-injected-bin"
# Shows that the caller holds the key of its token.
PROOF_METADATA: Final = "hpcc-proof"
_MAX_PROOF_CHARS: Final = 128
_REQUEST_ID_BYTES: Final = 8
_MAX_PEER_CHARS: Final = 256

# Any: the messages of generated code, bounded to this package.
UnaryFn = Callable[[Any, "Call"], Awaitable[Any]]
StreamFn = Callable[[Any, "Call"], AsyncGenerator[Any]]
DuplexFn = Callable[["Duplex", "Call"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Call:
    """What is known of a caller before anything is checked."""

    credential: str
    tool_metadata: bytes
    injected: bytes = b""
    proof: str = ""
    # `/package.Service/Method`, which a proof is for.
    method: str = ""
    # The address that called, and this call's own name: for security events, and for the caller.
    peer: str = ""
    request_id: str = ""
    # PEM, of the connection; only a server that asks for certificates gets one, from a root of its.
    certificate: bytes = b""

    @classmethod
    def of(cls, context: Any, method: str = "") -> Call:  # noqa: ANN401 - grpc's context is generic over messages we name only here
        credential, tool, injected, proof = "", b"", b"", ""
        for key, value in context.invocation_metadata() or ():
            if key == AUTHORIZATION_METADATA and isinstance(value, str):
                credential = value.removeprefix(_BEARER) if value.startswith(_BEARER) else ""
            elif key == TOOL_METADATA and isinstance(value, bytes):
                tool = value
            elif key == INJECTED_METADATA and isinstance(value, bytes):
                injected = value
            elif key == PROOF_METADATA and isinstance(value, str):
                proof = value[:_MAX_PROOF_CHARS]
        return cls(
            credential=credential[: _MAX_CREDENTIAL_CHARS + 1],
            tool_metadata=tool,
            injected=injected,
            proof=proof,
            method=method,
            peer=_peer(context.peer() or ""),
            request_id=secrets.token_hex(_REQUEST_ID_BYTES),
            certificate=_certificate(context.auth_context()),
        )


class Duplex:
    """Both directions of a stream."""

    def __init__(self, context: Any) -> None:  # noqa: ANN401 - see Call.of
        self._context = context

    async def read(self) -> Any:  # noqa: ANN401 - see UnaryFn
        """Wait for a message; None when the caller has said its last."""
        message = await self._context.read()
        return None if message is grpc.aio.EOF else message

    async def write(self, message: Message) -> None:
        """Send a message, when the caller takes it."""
        await self._context.write(message)


# Whose call the running task serves. Tasks that it starts inherit it, as a trace would.
_current: ContextVar[Call | None] = ContextVar("hpcc_call", default=None)


def current_caller() -> tuple[str, str]:
    """Return peer and request id of the call that is served here; empty texts outside of one."""
    call = _current.get()
    return (call.peer, call.request_id) if call is not None else ("", "")


def _certificate(auth: Mapping[str, Iterable[bytes]]) -> bytes:
    return next(iter(auth.get("x509_pem_cert", ())), b"")


def _peer(text: str) -> str:
    """Turn grpc's name of a peer (`ipv4:127.0.0.1:4711`, percent-encoded) into a printable one."""
    plain = unquote(text[:_MAX_PEER_CHARS])
    return "".join(c for c in plain if c.isprintable())


# Told of each call that is refused; the error has its reason.
OnRefusal = Callable[["Call", Message, HpccError], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Method:
    """A server method: name, request and response types, and exactly one implementation."""

    name: str
    request: type[Message]
    response: type[Message]
    unary: UnaryFn | None = None
    stream: StreamFn | None = None
    duplex: DuplexFn | None = None
    is_client_streaming: bool = False


def service_handler(
    service: str, methods: tuple[Method, ...], on_refusal: OnRefusal | None = None
) -> grpc.GenericRpcHandler:
    """Build the handler of a service, with our errors turned into statuses.

    `on_refusal` is told of every error of ours before the caller is; what it raises is not ours.
    """
    return grpc.method_handlers_generic_handler(
        service, {m.name: _handler(m, f"/{service}/{m.name}", on_refusal) for m in methods}
    )


def _handler(
    method: Method, path: str, on_refusal: OnRefusal | None
) -> grpc.RpcMethodHandler[Any, Any]:
    codec = {
        "request_deserializer": method.request.FromString,
        "response_serializer": lambda m: m.SerializeToString(),
    }
    if method.duplex is not None:
        return grpc.stream_stream_rpc_method_handler(
            _duplex_handler(method.duplex, path, on_refusal, method.request), **codec
        )
    if method.stream is not None:
        stream = method.stream

        async def serve_stream(request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - see UnaryFn
            call = Call.of(context, path)
            _current.set(call)
            try:
                # Closed here and now when the caller leaves: what it holds must not wait for gc.
                async with aclosing(stream(request, call)) as messages:
                    async for message in messages:
                        yield message
            except HpccError as error:
                if on_refusal is not None:
                    await on_refusal(call, request, error)
                await _abort(context, error, call)

        return grpc.unary_stream_rpc_method_handler(serve_stream, **codec)
    assert method.unary is not None
    serve = _unary_handler(method.unary, path, on_refusal)
    if method.is_client_streaming:
        return grpc.stream_unary_rpc_method_handler(serve, **codec)
    return grpc.unary_unary_rpc_method_handler(serve, **codec)


def _unary_handler(
    unary: UnaryFn, path: str, on_refusal: OnRefusal | None
) -> Callable[[Any, Any], Awaitable[Any]]:
    async def serve(request: Any, context: Any) -> Any:  # noqa: ANN401 - see UnaryFn
        call = Call.of(context, path)
        _current.set(call)
        try:
            return await unary(request, call)
        except HpccError as error:
            if on_refusal is not None:
                await on_refusal(call, request, error)
            await _abort(context, error, call)

    return serve


def _duplex_handler(
    duplex: DuplexFn, path: str, on_refusal: OnRefusal | None, request: type[Message]
) -> Callable[[Any, Any], Awaitable[None]]:
    async def serve(_: Any, context: Any) -> None:  # noqa: ANN401 - see UnaryFn
        call = Call.of(context, path)
        _current.set(call)
        try:
            await duplex(Duplex(context), call)
        except HpccError as error:
            if on_refusal is not None:
                await on_refusal(call, request(), error)
            await _abort(context, error, call)

    return serve


async def _abort(context: Any, error: HpccError, call: Call) -> None:  # noqa: ANN401 - see UnaryFn
    trailer = trailer_of(error, request_id=call.request_id)
    await context.abort(code_of(error), str(error)[:500], trailing_metadata=trailer)


def bearer(credential: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata that carries a credential."""
    return ((AUTHORIZATION_METADATA, f"{_BEARER}{credential}"),)
