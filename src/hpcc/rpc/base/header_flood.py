"""Ends callers who send headers without end, at every gRPC server of hpcc.

The problem: headers are compressed. A frame of 16 KiB can name 16,384 headers, which gRPC unpacks
into 1.3 MB and keeps until the call has ended. `grpc.max_metadata_size` does not prevent that: gRPC
1.85 unpacks the whole frame, refuses the call, and passes it on all the same. So 40 MB of frames
from a stranger took a server to 4 GB.

An honest call has about fifteen headers. So the first handler that is asked looks at how many there
are. A call with too many is refused, and with it everything from its address: what has arrived from
there and waits is as large, and is freed when its connections end (`ConnectionGuard.ban`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import unquote

import grpc

from hpcc.rpc.base.connection_guard import ConnectionGuard
from hpcc.rpc.base.lobby import address_of

# hpcc's clients send at most 12, Bazel about as many, and a proxy adds some.
MAX_HEADERS: Final = 128
_TEXT: Final = f"more than {MAX_HEADERS} headers"


class HeaderFlood(grpc.GenericRpcHandler):
    """The first handler of a server. It answers only calls with too many headers."""

    def __init__(self, guards: Sequence[ConnectionGuard]) -> None:
        self._guards = guards
        self._busy: set[str] = set()
        self._handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
            self._refuse
        )

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the handler that refuses, or None for the other handlers to answer."""
        headers = handler_call_details.invocation_metadata or ()
        return self._handler if len(headers) > MAX_HEADERS else None

    async def _refuse(self, _: Any, context: Any) -> None:  # noqa: ANN401 - see Call.of
        address = address_of(unquote(context.peer() or ""))
        # A flood brings thousands of such calls, and there are few threads.
        if address not in self._busy:
            self._busy.add(address)
            try:
                for guard in self._guards:
                    await asyncio.to_thread(guard.ban, address)
            finally:
                self._busy.discard(address)
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, _TEXT)
