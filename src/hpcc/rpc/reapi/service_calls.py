"""One caller's calls to one REAPI service: names, metadata, time limits and errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb

from hpcc.core import PRIVATE_ONLY, SharingPolicy, TenantId
from hpcc.rpc.base.channel import MAX_BATCH_BYTES
from hpcc.rpc.base.errors import error_of_call
from hpcc.rpc.base.method import (
    AUTHORIZATION_METADATA,
    CLAIMS_METADATA,
    EXPECTED_METADATA,
    INJECTED_METADATA,
    PROOF_METADATA,
    SHARING_METADATA,
    TOOL_METADATA,
    bearer,
)

REAPI: Final = "/build.bazel.remote.execution.v2"
EXECUTE: Final = f"{REAPI}.Execution/Execute"
# Every service accepts this in one message: gRPC's default limit is 4 MiB, including names.
_FOREIGN_BATCH_BYTES: Final = 3 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ReapiClientConfig:
    """Who calls and how long each call may take. `execute_seconds` bounds a whole compile.

    `instance` is set for a foreign REAPI service. It replaces the tenant's name in requests, and
    the service gets only REAPI's own metadata, and the token if there is one. `expected` tells, for
    each call, how many compiles the worker may get at once. `sharing` is what the caller accepts of
    colleagues' results. `claims` are encoded claims of other workers about the action to execute.
    """

    tenant: TenantId
    instance: str | None = None
    tool_version: str
    build_id: str = ""
    injected: tuple[str, ...] = ()
    call_seconds: float = 30.0
    transfer_seconds: float = 120.0
    execute_seconds: float = 600.0
    expected: Callable[[], int] | None = None
    sharing: SharingPolicy = PRIVATE_ONLY
    claims: bytes = b""


@contextmanager
def call_errors(seconds: float) -> Generator[None]:
    """Turn gRPC's error of a call that may take so long into an `HpccError`."""
    ends = asyncio.get_running_loop().time() + seconds
    try:
        yield
    except grpc.aio.AioRpcError as error:
        left = ends - asyncio.get_running_loop().time()
        raise error_of_call(error, seconds_left=left) from error


class ServiceCalls:
    """Calls with one token over a channel that the caller owns."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        token: str,
        config: ReapiClientConfig,
        prove: Callable[[str], str] | None,
    ) -> None:
        """`prove` returns the proof of possession for a method path; None for unbound tokens."""
        self.channel, self.config, self._prove = channel, config, prove
        tool = pb.RequestMetadata(
            tool_details=pb.ToolDetails(tool_name="hpcc", tool_version=config.tool_version),
            tool_invocation_id=config.build_id,
        )
        self._is_ours = is_ours = config.instance is None
        self._metadata: tuple[tuple[str, str | bytes], ...] = (
            *(bearer(token) if token or is_ours else ()),
            (TOOL_METADATA, tool.SerializeToString()),
            *([(INJECTED_METADATA, "\0".join(config.injected).encode())] if is_ours else ()),
            *([] if config.sharing.is_private else [(SHARING_METADATA, config.sharing.text)]),
        )
        self.instance = config.tenant.value if config.instance is None else config.instance
        self.max_batch_bytes = MAX_BATCH_BYTES if is_ours else _FOREIGN_BATCH_BYTES

    def use_token(self, token: str) -> None:
        """Send another token from the next call on. It must pass `check_token`."""
        self._authorize(bearer(token) if token or self._is_ours else ())

    def use_authorization(self, value: str) -> None:
        """Send this whole value of the header `authorization` from the next call on; "": none."""
        self._authorize(((AUTHORIZATION_METADATA, value),) if value else ())

    def _authorize(self, header: tuple[tuple[str, str], ...]) -> None:
        rest = tuple(item for item in self._metadata if item[0] != AUTHORIZATION_METADATA)
        self._metadata = (*header, *rest)

    def metadata(self, path: str) -> tuple[tuple[str, str | bytes], ...]:
        """Return the metadata of a call to a method path."""
        said = self._metadata
        if self.config.expected is not None and self._is_ours:
            said = (*said, (EXPECTED_METADATA, str(self.config.expected())))
        if self.config.claims and path == EXECUTE:
            said = (*said, (CLAIMS_METADATA, self.config.claims))
        return said if self._prove is None else (*said, (PROOF_METADATA, self._prove(path)))

    async def unary(self, method: str, request: Any, response: Any) -> Any:  # noqa: ANN401 - generated messages, named by each caller
        """Make one call; without a `response` type the answer's bytes are returned.

        Raises:
            HpccError: the service refused, failed or did not answer in time.
        """
        return await self.call(f"{REAPI}.{method}", request, response)

    async def call(self, path: str, request: Any, response: Any) -> Any:  # noqa: ANN401 - see unary
        """Make one call to a method by its whole path; see `unary`."""
        call = self.channel.unary_unary(
            path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=(bytes if response is None else response.FromString),
        )
        seconds = self.config.call_seconds
        with call_errors(seconds):
            return await call(request, metadata=self.metadata(path), timeout=seconds)
