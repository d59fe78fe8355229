"""Wraps every server method: reads bounded metadata and turns errors into statuses."""

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

from hpcc.core import CallerError, HpccError
from hpcc.rpc.base.errors import code_of, trailer_of

AUTHORIZATION_METADATA: Final = "authorization"
_BEARER: Final = "Bearer "
# Tokens of an identity provider that lists groups in them can be this long.
_MAX_CREDENTIAL_CHARS: Final = 6 << 10
TOOL_METADATA: Final = "build.bazel.remote.execution.v2.requestmetadata-bin"
# The flags that hpcc added to argv, zero-separated. They go to the audit row only.
INJECTED_METADATA: Final = "hpcc-injected-bin"
# Proof of possession: shows that the caller has the key that its token names.
PROOF_METADATA: Final = "hpcc-proof"
_MAX_PROOF_CHARS: Final = 128
# How many compiles of the caller the worker may get at once now: a hint, for warm guests.
EXPECTED_METADATA: Final = "hpcc-expected"
_MAX_EXPECTED: Final = 4096
_REQUEST_ID_BYTES: Final = 8
_MAX_PEER_CHARS: Final = 256

# `Any` stands for messages of generated code. It stays inside this package.
UnaryFn = Callable[[Any, "Call"], Awaitable[Any]]
StreamFn = Callable[[Any, "Call"], AsyncGenerator[Any]]
DuplexFn = Callable[["Duplex", "Call"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Call:
    """What a caller sent with a call, before any check."""

    credential: str
    tool_metadata: bytes
    injected: bytes = b""
    proof: str = ""
    expected: int = 0
    # `/package.Service/Method`, which the proof covers.
    method: str = ""
    # The caller's address, and a random id of this call. Security events name both, and the
    # caller gets the id with a refusal.
    peer: str = ""
    request_id: str = ""
    # The connection's client certificate in PEM. It is empty unless the server asks for
    # certificates, and TLS has checked it against the server's client roots.
    certificate: bytes = b""

    @classmethod
    def of(cls, context: Any, method: str = "") -> Call:  # noqa: ANN401 - grpc's context is generic over the messages
        """Read metadata, peer and certificate from gRPC's context; long values are cut."""
        credential, tool, injected, proof, expected = "", b"", b"", "", 0
        for key, value in context.invocation_metadata() or ():
            if key == AUTHORIZATION_METADATA and isinstance(value, str):
                credential = value.removeprefix(_BEARER) if value.startswith(_BEARER) else ""
            elif key == TOOL_METADATA and isinstance(value, bytes):
                tool = value
            elif key == INJECTED_METADATA and isinstance(value, bytes):
                injected = value
            elif key == PROOF_METADATA and isinstance(value, str):
                proof = value[:_MAX_PROOF_CHARS]
            elif key == EXPECTED_METADATA and isinstance(value, str):
                expected = _expected(value)
        return cls(
            credential=credential[: _MAX_CREDENTIAL_CHARS + 1],
            tool_metadata=tool,
            injected=injected,
            proof=proof,
            expected=expected,
            method=method,
            peer=_peer(context.peer() or ""),
            request_id=secrets.token_hex(_REQUEST_ID_BYTES),
            certificate=_certificate(context.auth_context()),
        )


class Duplex:
    """Both directions of a stream, at the server."""

    def __init__(self, context: Any) -> None:  # noqa: ANN401 - see Call.of
        self._context = context

    async def read(self) -> Any:  # noqa: ANN401 - see UnaryFn
        """Wait for a message; return None at the end of the caller's messages."""
        message = await self._context.read()
        return None if message is grpc.aio.EOF else message

    async def write(self, message: Message) -> None:
        """Send a message; waits while flow control blocks."""
        await self._context.write(message)


# The call that the running task serves. Tasks that it starts inherit the value.
_current: ContextVar[Call | None] = ContextVar("hpcc_call", default=None)


def current_caller() -> tuple[str, str]:
    """Return peer and request id of the call that this task serves; empty strings if none."""
    call = _current.get()
    return (call.peer, call.request_id) if call is not None else ("", "")


def _expected(text: str) -> int:
    """Read a hint; anything else than a small number is none."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(_MAX_EXPECTED))
    return min(int(text), _MAX_EXPECTED) if is_number else 0


def _certificate(auth: Mapping[str, Iterable[bytes]]) -> bytes:
    return next(iter(auth.get("x509_pem_cert", ())), b"")


def _peer(text: str) -> str:
    """Turn grpc's name of a peer (`ipv4:127.0.0.1:4711`, percent-encoded) into a printable one."""
    plain = unquote(text[:_MAX_PEER_CHARS])
    return "".join(c for c in plain if c.isprintable())


# Called for each refused call with the call, its request and the error.
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
    """Build the handler of a service. An `HpccError` of a method becomes a status with details.

    `on_refusal` runs for every such error before the caller gets its status. It must not raise an
    `HpccError`: that would not become a status.
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
                # Close the generator as soon as the caller leaves. Otherwise its resources stay
                # open until the garbage collector runs.
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


def check_token(token: str) -> None:
    """Check that a text can be sent as a bearer token; the empty text passes.

    Raises:
        CallerError: it is not one word of printable ASCII.
    """
    if not token.isascii() or not token.isprintable() or " " in token:
        raise CallerError("the token is not one word", reason="config")


def bearer(credential: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata that carries a credential."""
    return ((AUTHORIZATION_METADATA, f"{_BEARER}{credential}"),)
