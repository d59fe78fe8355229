"""The client's side of a relayed call: checked headers, bounded messages, unchanged statuses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from google.protobuf.message import DecodeError

from hpcc.core import CallerError, HpccError, PolicyError
from hpcc.rpc.base.errors import DETAILS_KEY, UnauthenticatedError, code_of, trailer_of
from hpcc.rpc.base.method import TOOL_METADATA
from hpcc.rpc.relay.methods import RELAY_METHODS, RelayMethod

IMAGE_METADATA: Final = "hpcc-image"
_OURS: Final = "hpcc-"
_AUTHORIZATION: Final = "authorization"
_BEARER: Final = "bearer "
_MAX_CREDENTIAL_CHARS: Final = 8 << 10
_MAX_IMAGE_CHARS: Final = 400
_MAX_TOOL_BYTES: Final = 4096
_MAX_LABEL_CHARS: Final = 128
_MAX_DETAILS_BYTES: Final = 8 << 10
_MAX_TEXT_CHARS: Final = 500


@dataclass(frozen=True, slots=True)
class RelayCall:
    """What a client's headers contain. Only the form is checked here.

    `tool` is a new `RequestMetadata`, encoded, with a few fields copied from the client's.
    """

    method: RelayMethod
    credential: str
    image: str
    tool: bytes
    peer: str
    seconds_left: float | None


class RelayedError(Exception):
    """A worker's refusal, which the client gets unchanged."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        super().__init__(error.code())
        self.error = error


class RelayLink:
    """One call of a client, as whole messages in and out."""

    def __init__(self, context: Any, call: RelayCall) -> None:  # noqa: ANN401 - grpc's context is generic over messages we name only here
        self._context, self.call = context, call

    async def read(self, seconds: float) -> bytes | None:
        """Return the client's next message, or None after the last one.

        Raises:
            CallerError: no message came within `seconds`.
        """
        try:
            async with asyncio.timeout(seconds):
                message = await self._context.read()
        except TimeoutError as error:
            raise CallerError("no message came in time", reason="relay-slow") from error
        return None if message is grpc.aio.EOF else bytes(message)

    async def write(self, message: bytes, seconds: float) -> None:
        """Send a message; waits while the client does not read.

        Raises:
            CallerError: the client did not read within `seconds`.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._context.write(message)
        except TimeoutError as error:
            raise CallerError("the answer was not read in time", reason="relay-slow") from error


type OnRefusal = Callable[[str, str, HpccError], None]


class RelayHandlers(grpc.GenericRpcHandler):
    """Every REAPI method as raw bytes, served by one function.

    `on_refusal` gets method, peer and error of a call whose headers are refused. `serve` has the
    others.
    """

    def __init__(
        self, serve: Callable[[RelayLink], Awaitable[None]], on_refusal: OnRefusal
    ) -> None:
        self._serve, self._on_refusal = serve, on_refusal
        self._handlers = {path: self._handler(method) for path, method in RELAY_METHODS.items()}

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        return self._handlers.get(str(handler_call_details.method))

    def _handler(self, method: RelayMethod) -> grpc.RpcMethodHandler[Any, Any]:
        # Every method is served as a stream in both directions, so that no message is read before
        # there is room for it.
        async def run(_messages: Any, context: Any) -> None:  # noqa: ANN401 - as above
            try:
                await self._serve(RelayLink(context, self._admitted(context, method)))
            except RelayedError as relayed:
                await _abort_as(context, relayed.error)
            except HpccError as error:
                await context.abort(
                    code_of(error),
                    str(error)[:_MAX_TEXT_CHARS],
                    trailing_metadata=trailer_of(error),
                )

        return grpc.stream_stream_rpc_method_handler(run)

    def _admitted(self, context: Any, method: RelayMethod) -> RelayCall:  # noqa: ANN401 - as above
        try:
            return _call_of(context, method)
        except HpccError as error:
            self._on_refusal(method.name, str(context.peer()), error)
            raise


async def _abort_as(context: Any, error: grpc.aio.AioRpcError) -> None:  # noqa: ANN401 - as above
    """End a call with a worker's status: only its code, text and details are passed on."""
    details = [
        (key, value)
        for key, value in error.trailing_metadata() or ()
        if key == DETAILS_KEY and isinstance(value, bytes) and len(value) <= _MAX_DETAILS_BYTES
    ]
    text = (error.details() or "")[:_MAX_TEXT_CHARS]
    await context.abort(error.code(), text, trailing_metadata=tuple(details[:1]))


def _call_of(context: Any, method: RelayMethod) -> RelayCall:  # noqa: ANN401 - as above
    """Parse the headers of a call.

    Raises:
        UnauthenticatedError: there is not exactly one bearer token.
        PolicyError: there is a header that only components of hpcc may send.
        CallerError: there are two image headers, or one is too long.
    """
    tokens: list[str] = []
    images: list[str] = []
    tool = b""
    for key, value in context.invocation_metadata() or ():
        if key == _AUTHORIZATION:
            tokens.append(str(value))
        elif key == IMAGE_METADATA:
            images.append(str(value))
        elif key.startswith(_OURS):
            raise PolicyError(f"clients do not send {key[:64]!r}", reason="smuggled-header")
        elif key == TOOL_METADATA and isinstance(value, bytes):
            tool = _tool(value)
    if len(images) > 1 or any(len(i) > _MAX_IMAGE_CHARS for i in images):
        raise CallerError(f"more than one {IMAGE_METADATA}, or too long", reason="image-header")
    return RelayCall(
        method, _bearer(tokens), "".join(images), tool, str(context.peer()), _time_left(context)
    )


def _bearer(values: list[str]) -> str:
    is_bearer = len(values) == 1 and values[0].lower().startswith(_BEARER)
    token = values[0][len(_BEARER) :].strip() if is_bearer else ""
    if not is_bearer or not token or len(token) > _MAX_CREDENTIAL_CHARS or not token.isascii():
        raise UnauthenticatedError(
            "send one `authorization: Bearer` header with your identity provider's token:"
            " `hpcc token` prints it",
            reason="no-token",
        )
    return token


def _tool(data: bytes) -> bytes:
    """Copy the fields of a tool's description that the audit trail shows."""
    if len(data) > _MAX_TOOL_BYTES:
        return b""
    try:
        said = pb.RequestMetadata.FromString(data)
    except DecodeError:
        return b""
    return pb.RequestMetadata(
        tool_details=pb.ToolDetails(
            tool_name=said.tool_details.tool_name[:_MAX_LABEL_CHARS],
            tool_version=said.tool_details.tool_version[:_MAX_LABEL_CHARS],
        ),
        tool_invocation_id=said.tool_invocation_id[:_MAX_LABEL_CHARS],
        correlated_invocations_id=said.correlated_invocations_id[:_MAX_LABEL_CHARS],
    ).SerializeToString()


def _time_left(context: Any) -> float | None:  # noqa: ANN401 - as above
    left = context.time_remaining()
    return None if left is None else float(left)
