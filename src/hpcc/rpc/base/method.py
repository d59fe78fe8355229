"""Wraps every server method: judges the caller before its message is read, bounds the wait for it.

gRPC reads the message of a unary method before it calls the handler, before the sender is known.
So each method is served as one that takes a stream, which is the same on the wire: the handler
reads.
"""

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
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError, Message

from hpcc.core import CallerError, HpccError
from hpcc.rpc.base.errors import code_of, trailer_of
from hpcc.rpc.base.lobby import Lobby, address_of, in_time

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
# What the caller accepts of results that colleagues' guests made. Without it: nothing, as callers
# that do not know the form of such results.
SHARING_METADATA: Final = "hpcc-sharing"
_MAX_SHARING_CHARS: Final = 64
# Claims of other workers about the action of an execution, as the caller got them from there.
CLAIMS_METADATA: Final = "hpcc-claims-bin"
# Metadata of a call may have 8 KiB. More than this is ignored.
MAX_CARRIED_BYTES: Final = 4 << 10
_REQUEST_ID_BYTES: Final = 8
_MAX_PEER_CHARS: Final = 256

# How long one message of a caller with a good credential may take, from its first byte on.
MESSAGE_SECONDS: Final = 60.0

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
    sharing: str = ""
    claims: bytes = b""
    # `/package.Service/Method`, which the proof covers.
    method: str = ""
    # The caller's address, and a random id of this call. Security events name both, and the
    # caller gets the id with a refusal.
    peer: str = ""
    request_id: str = ""
    # The connection's client certificate in PEM. It is empty unless the server asks for
    # certificates, and TLS has checked it against the server's client roots.
    certificate: bytes = b""
    # What the service's `Gate` found out about the caller.
    known: object = None

    @classmethod
    def of(cls, context: Any, method: str = "") -> Call:  # noqa: ANN401 - grpc's context is generic over the messages
        """Read metadata, peer and certificate from gRPC's context; long values are cut."""
        credential, tool, injected, proof, expected, sharing = "", b"", b"", "", 0, ""
        claims = b""
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
            elif key == SHARING_METADATA and isinstance(value, str):
                sharing = value[: _MAX_SHARING_CHARS + 1]
            elif key == CLAIMS_METADATA and isinstance(value, bytes):
                claims = value if len(value) <= MAX_CARRIED_BYTES else b""
        return cls(
            credential=credential[: _MAX_CREDENTIAL_CHARS + 1],
            tool_metadata=tool,
            injected=injected,
            proof=proof,
            expected=expected,
            sharing=sharing,
            claims=claims,
            method=method,
            peer=_peer(context.peer() or ""),
            request_id=secrets.token_hex(_REQUEST_ID_BYTES),
            certificate=_certificate(context.auth_context()),
        )


class Duplex:
    """Both directions of a stream, at the server."""

    def __init__(self, context: Any, request: type[Message]) -> None:  # noqa: ANN401 - see Call.of
        self._context, self._request = context, request

    async def read(self) -> Any:  # noqa: ANN401 - see UnaryFn
        """Wait for a message; return None at the end of the caller's messages.

        Raises:
            CallerError: it is malformed.
        """
        data = await self._context.read()
        if data is grpc.aio.EOF:
            return None
        try:
            return self._request.FromString(data)
        except DecodeError as error:
            name = self._request.DESCRIPTOR.name
            raise CallerError(f"not a {name}", reason="malformed") from error

    async def read_in_time(self) -> Any:  # noqa: ANN401 - see UnaryFn
        """As `read`, within `MESSAGE_SECONDS`.

        Raises:
            DeadlineError: the message was not whole by then.
        """
        async with in_time(MESSAGE_SECONDS):
            return await self.read()

    async def messages(self) -> AsyncGenerator[Any]:
        """Yield the caller's messages, each of which must come in time."""
        while (message := await self.read_in_time()) is not None:
            yield message

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
    return plain if plain.isprintable() else "".join(c for c in plain if c.isprintable())


# Called for each refused call with the call, its request and the error. The request is empty if
# the call was refused before its message was read.
OnRefusal = Callable[["Call", Message, HpccError], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Gate:
    """What happens before the first message of a call is read.

    `judge` decides by metadata and certificate alone, and returns what it found out: `Call.known`.
    It raises an `HpccError` to refuse. Callers of methods with `is_login` cannot be judged before
    their message is read; they wait in the `lobby`.
    """

    judge: Callable[[Call], Awaitable[object]]
    lobby: Lobby = field(default_factory=Lobby)


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
    is_login: bool = False


def service_handler(
    service: str, methods: tuple[Method, ...], gate: Gate, on_refusal: OnRefusal | None = None
) -> grpc.GenericRpcHandler:
    """Build the handler of a service. An `HpccError` of a method becomes a status with details.

    `on_refusal` runs for every such error before the caller gets its status. It must not raise an
    `HpccError`: that would not become a status.
    """
    return grpc.method_handlers_generic_handler(
        service,
        {m.name: _Served(m, f"/{service}/{m.name}", gate, on_refusal).handler() for m in methods},
    )


class _Served:
    """One method of a running server."""

    def __init__(self, method: Method, path: str, gate: Gate, on_refusal: OnRefusal | None) -> None:
        self._method, self._path, self._gate = method, path, gate
        self._on_refusal = on_refusal

    def handler(self) -> grpc.RpcMethodHandler[Any, Any]:
        codec = {"response_serializer": lambda m: m.SerializeToString()}
        if self._method.duplex is not None:
            return grpc.stream_stream_rpc_method_handler(self._serve_duplex, **codec)
        if self._method.stream is not None:
            return grpc.stream_stream_rpc_method_handler(self._serve_stream, **codec)
        return grpc.stream_unary_rpc_method_handler(self._serve_unary, **codec)

    async def _serve_unary(self, _: Any, context: Any) -> Any:  # noqa: ANN401 - see UnaryFn
        method = self._method
        assert method.unary is not None
        call, request = self._call(context), method.request()
        duplex = Duplex(context, method.request)
        try:
            call = await self._judged(call)
            if method.is_client_streaming:
                async with aclosing(duplex.messages()) as messages:
                    return await method.unary(messages, call)
            request = await self._first(duplex, call)
            return await method.unary(request, call)
        except HpccError as error:
            await self._refuse(context, call, request, error)

    async def _serve_stream(self, _: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - see UnaryFn
        method = self._method
        assert method.stream is not None
        call, request = self._call(context), method.request()
        try:
            call = await self._judged(call)
            request = await self._first(Duplex(context, method.request), call)
            # Close the generator as soon as the caller leaves. Otherwise its resources stay
            # open until the garbage collector runs.
            async with aclosing(method.stream(request, call)) as messages:
                async for message in messages:
                    yield message
        except HpccError as error:
            await self._refuse(context, call, request, error)

    async def _serve_duplex(self, _: Any, context: Any) -> None:  # noqa: ANN401 - see UnaryFn
        method = self._method
        assert method.duplex is not None
        call = self._call(context)
        try:
            call = await self._judged(call)
            await method.duplex(Duplex(context, method.request), call)
        except HpccError as error:
            await self._refuse(context, call, method.request(), error)

    def _call(self, context: Any) -> Call:  # noqa: ANN401 - see Call.of
        call = Call.of(context, self._path)
        _current.set(call)
        return call

    async def _judged(self, call: Call) -> Call:
        if self._method.is_login:
            return call
        known = await self._gate.judge(call)
        # A copy takes as long as the whole of `Call.of`, so there is none without need.
        return call if known is None else replace(call, known=known)

    async def _first(self, duplex: Duplex, call: Call) -> Any:  # noqa: ANN401 - see UnaryFn
        if self._method.is_login:
            async with self._gate.lobby.seat(address_of(call.peer)):
                message = await duplex.read()
        else:
            message = await duplex.read_in_time()
        if message is None:
            raise CallerError("a call without a message", reason="malformed")
        return message

    async def _refuse(
        self,
        context: Any,  # noqa: ANN401 - see Call.of
        call: Call,
        request: Message,
        error: HpccError,
    ) -> None:
        if self._on_refusal is not None:
            await self._on_refusal(call, request, error)
        await _abort(context, error, call)


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
