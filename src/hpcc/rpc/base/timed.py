"""Measures every call of a server, with the status code that it ends with."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, Final

import grpc

from hpcc.ports import Clock

# Gets the method (`/package.Service/Method`), gRPC's number of the status, and seconds.
OnCall = Callable[[str, int, float], None]
_CANCELLED: Final = 1
_UNKNOWN: Final = 2


def timed(
    handlers: Iterable[grpc.GenericRpcHandler], on_call: OnCall, clock: Clock
) -> tuple[grpc.GenericRpcHandler, ...]:
    """Return handlers for a server that tell `on_call` of each call that has ended."""
    return (_TimedHandlers(tuple(handlers), on_call, clock),)


class _TimedHandlers(grpc.GenericRpcHandler):
    """The handlers of a server, each wrapped at its first call. Calls of unknown methods pass."""

    def __init__(
        self, handlers: Sequence[grpc.GenericRpcHandler], on_call: OnCall, clock: Clock
    ) -> None:
        self._handlers, self._on_call, self._clock = handlers, on_call, clock
        # Only of methods that exist, so a caller cannot fill it.
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the wrapped handler of a method; None if no service has it."""
        name = str(handler_call_details.method)
        known = self._wrapped.get(name)
        if known is not None:
            return known
        for handlers in self._handlers:
            found = handlers.service(handler_call_details)
            if found is not None:
                return self._wrapped.setdefault(name, self._wrap(name, found))
        return None

    def _wrap(
        self, name: str, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        codec = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.stream_unary is not None:
            one = self._whole(name, handler.stream_unary)
            return grpc.stream_unary_rpc_method_handler(one, **codec)
        # `service_handler` builds no other kind.
        inner = handler.stream_stream
        assert inner is not None, name
        wrap = self._each if inspect.isasyncgenfunction(inner) else self._whole
        return grpc.stream_stream_rpc_method_handler(wrap(name, inner), **codec)

    def _whole(self, name: str, inner: Any) -> Any:  # noqa: ANN401 - a handler of grpc, generic over the messages
        async def serve(requests: Any, context: Any) -> Any:  # noqa: ANN401 - as above
            with self._measured(name, context):
                return await inner(requests, context)

        return serve

    def _each(self, name: str, inner: Any) -> Any:  # noqa: ANN401 - as `_whole`
        async def serve(requests: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - as above
            with self._measured(name, context):
                async with aclosing(inner(requests, context)) as messages:
                    async for message in messages:
                        yield message

        return serve

    @contextmanager
    def _measured(self, name: str, context: Any) -> Iterator[None]:  # noqa: ANN401 - see Call.of
        started, code = self._clock.monotonic(), _UNKNOWN
        try:
            yield
            code = _code(context)
        except (asyncio.CancelledError, GeneratorExit):
            code = _CANCELLED
            raise
        except BaseException:
            # `abort` has set the code and raises an error of grpc's own.
            code = _code(context) or _UNKNOWN
            raise
        finally:
            self._on_call(name, code, self._clock.monotonic() - started)


def _code(context: Any) -> int:  # noqa: ANN401 - see Call.of
    code = context.code()
    return code if isinstance(code, int) else code.value[0] if code is not None else 0
