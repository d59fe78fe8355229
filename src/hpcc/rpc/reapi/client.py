"""REAPI v2 client of one worker or service, in core types; every failure is an `HpccError`."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import grpc
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.google.bytestream import bytestream_pb2 as bs
from buildgrid.common.protos.google.longrunning import operations_pb2 as ops

from hpcc.core import Blob, CallerError, Digest, IntegrityError, NotFoundError, TenantId
from hpcc.reapi.delta import Delta
from hpcc.reapi.digests import digest_from_proto, digest_to_proto
from hpcc.reapi.resource import read_name, write_name
from hpcc.reapi.result import ResultRecord, parse_result
from hpcc.rpc.base.channel import MAX_BATCH_BYTES
from hpcc.rpc.base.errors import UnavailableError, error_of_call, error_of_status
from hpcc.rpc.base.method import (
    AUTHORIZATION_METADATA,
    INJECTED_METADATA,
    PROOF_METADATA,
    TOOL_METADATA,
    bearer,
)
from hpcc.rpc.reapi.inline_blobs import encode_execute

_REAPI: Final = "/build.bazel.remote.execution.v2"
_EXECUTE: Final = f"{_REAPI}.Execution/Execute"
_READ: Final = "/google.bytestream.ByteStream/Read"
_WRITE: Final = "/google.bytestream.ByteStream/Write"
_NO_METHOD: Final = "/hpcc.v1.Nothing/Ping"
_CHUNK: Final = 512 << 10
# Digest, status and framing of one blob in a batch.
_ITEM_OVERHEAD_BYTES: Final = 256
_PAGE: Final = 20_000
# Every service accepts this in one message: gRPC's default limit is 4 MiB, including names.
_FOREIGN_BATCH_BYTES: Final = 3 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ReapiClientConfig:
    """Who calls and how long each call may take. `execute_seconds` bounds a whole compile.

    `instance` is set for a foreign REAPI service. It replaces the tenant's name in requests, and
    the service gets only REAPI's own metadata, and the token if there is one.
    """

    tenant: TenantId
    instance: str | None = None
    tool_version: str
    build_id: str = ""
    injected: tuple[str, ...] = ()
    call_seconds: float = 30.0
    transfer_seconds: float = 120.0
    execute_seconds: float = 600.0


async def answers(channel: grpc.aio.Channel, seconds: float) -> bool:
    """Return whether a server answers at a channel within `seconds`.

    The call names a method that no server has. The server's refusal is the answer; it needs no
    credential and writes no audit event.
    """
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_NO_METHOD)
    try:
        await call(b"", timeout=seconds)
    except grpc.aio.AioRpcError as error:
        gone = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
        return error.code() not in gone
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceCapabilities:
    """What a service reports about itself: versions of the API as (major, minor)."""

    has_sha256: bool
    can_execute: bool
    lowest_api: tuple[int, int]
    highest_api: tuple[int, int]


def check_token(token: str) -> None:
    """Check that a text can be sent as a bearer token; the empty text passes.

    Raises:
        CallerError: it is not one word of printable ASCII.
    """
    if not token.isascii() or not token.isprintable() or " " in token:
        raise CallerError("the token is not one word", reason="config")


class ReapiClient:
    """Calls with one token over a channel that the caller owns.

    Every call raises an `HpccError` if the service refuses, fails or does not answer in time.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        token: str,
        config: ReapiClientConfig,
        *,
        prove: Callable[[str], str] | None = None,
    ) -> None:
        """`prove` returns the proof of possession for a method path; None for unbound tokens."""
        self._channel, self._config, self._prove = channel, config, prove
        # True if the last execution that ran was answered with one message.
        self.tells_end_alone = False
        tool = pb.RequestMetadata(
            tool_details=pb.ToolDetails(tool_name="hpcc", tool_version=config.tool_version),
            tool_invocation_id=config.build_id,
        )
        self._is_ours = is_ours = config.instance is None
        self._metadata: tuple[tuple[str, str | bytes], ...] = (
            *(bearer(token) if token or is_ours else ()),
            (TOOL_METADATA, tool.SerializeToString()),
            *([(INJECTED_METADATA, "\0".join(config.injected).encode())] if is_ours else ()),
        )
        self._instance = config.tenant.value if config.instance is None else config.instance
        self._max_batch_bytes = MAX_BATCH_BYTES if is_ours else _FOREIGN_BATCH_BYTES

    def use_token(self, token: str) -> None:
        """Send another token from the next call on. It must pass `check_token`."""
        rest = tuple(item for item in self._metadata if item[0] != AUTHORIZATION_METADATA)
        self._metadata = (*(bearer(token) if token or self._is_ours else ()), *rest)

    def _metadata_of(self, path: str) -> tuple[tuple[str, str | bytes], ...]:
        if self._prove is None:
            return self._metadata
        return (*self._metadata, (PROOF_METADATA, self._prove(path)))

    async def cached_result(self, action: Digest, inline: Sequence[str]) -> ResultRecord:
        """Look up an action in a worker's action cache.

        `inline` names outputs whose contents the result should carry.

        Raises:
            NotFoundError: a miss.
            ReapiError: the answer is not a result of hpcc.
        """
        return parse_result(await self.action_result(action, inline))

    async def action_result(self, action: Digest, inline: Sequence[str]) -> bytes:
        """Look up an action in any service's cache; return the `ActionResult` bytes as received.

        Raises:
            NotFoundError: a miss.
        """
        request = pb.GetActionResultRequest(
            instance_name=self._instance,
            action_digest=digest_to_proto(action),
            inline_stdout=True,
            inline_stderr=True,
            inline_output_files=inline,
        )
        data: bytes = await self._unary("ActionCache/GetActionResult", request, None)
        return data

    async def update_action_result(self, action: Digest, result: bytes) -> None:
        """Write an encoded `ActionResult` to a foreign service's cache (workers refuse this).

        Raises:
            PolicyError: the service does not allow it, in general or for this token.
        """
        request = pb.UpdateActionResultRequest(
            instance_name=self._instance,
            action_digest=digest_to_proto(action),
            action_result=pb.ActionResult.FromString(result),
        )
        await self._unary("ActionCache/UpdateActionResult", request, pb.ActionResult)

    async def capabilities(self) -> ServiceCapabilities:
        """Fetch what the service supports."""
        answer = await self._unary(
            "Capabilities/GetCapabilities",
            pb.GetCapabilitiesRequest(instance_name=self._instance),
            pb.ServerCapabilities,
        )
        cache, execution = answer.cache_capabilities, answer.execution_capabilities
        low, high = answer.low_api_version, answer.high_api_version
        return ServiceCapabilities(
            has_sha256=pb.DigestFunction.SHA256 in cache.digest_functions,
            can_execute=execution.exec_enabled
            and pb.DigestFunction.SHA256
            in (*execution.digest_functions, execution.digest_function),
            lowest_api=(low.major, low.minor),
            highest_api=(high.major, high.minor),
        )

    async def find_missing(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        """Return those of `digests` that the service does not have."""
        wanted = sorted(set(digests))
        missing: set[Digest] = set()
        for start in range(0, len(wanted), _PAGE):
            request = pb.FindMissingBlobsRequest(
                instance_name=self._instance,
                blob_digests=[digest_to_proto(d) for d in wanted[start : start + _PAGE]],
            )
            answer = await self._unary(
                "ContentAddressableStorage/FindMissingBlobs", request, pb.FindMissingBlobsResponse
            )
            missing.update(digest_from_proto(d) for d in answer.missing_blob_digests)
        return frozenset(missing) & frozenset(wanted)

    async def upload(self, blobs: Sequence[Blob]) -> None:
        """Upload blobs: small ones in batches, each one over the batch limit as a stream."""
        batch: list[Blob] = []
        size = 0
        for blob in blobs:
            cost = blob.digest.size_bytes + _ITEM_OVERHEAD_BYTES
            if cost > self._max_batch_bytes:
                await self._write(blob)
                continue
            if size + cost > self._max_batch_bytes:
                await self._batch_update(batch)
                batch, size = [], 0
            batch.append(blob)
            size += cost
        if batch:
            await self._batch_update(batch)

    async def download(self, digests: Iterable[Digest]) -> dict[Digest, Blob]:
        """Fetch blobs, each checked against its digest.

        Raises:
            NotFoundError: a blob is absent.
            IntegrityError: a blob does not match its digest.
        """
        found: dict[Digest, Blob] = {}
        batch: list[Digest] = []
        size = 0
        for digest in set(digests):
            cost = digest.size_bytes + _ITEM_OVERHEAD_BYTES
            if cost > self._max_batch_bytes:
                found[digest] = await self._read(digest)
                continue
            if size + cost > self._max_batch_bytes:
                found.update(await self._batch_read(batch))
                batch, size = [], 0
            batch.append(digest)
            size += cost
        if batch:
            found.update(await self._batch_read(batch))
        return found

    async def execute(
        self,
        action: Digest,
        inline: Sequence[str],
        deltas: Sequence[Delta] = (),
        *,
        at_once: bool = False,
    ) -> tuple[ResultRecord, bool]:
        """Run the action; return its result and whether it came from the cache.

        `inline` names outputs whose contents the result should carry. `deltas` are blobs of the
        action that the worker may lack, at most `MAX_INLINE_BLOBS`. Set `at_once` if the worker is
        known to send only the end of an operation (`tells_end_alone` after an earlier call): a
        call with one message costs a third less than a stream of one.

        A cancel ends the call, and the worker counts one waiter less.
        """
        request = self._execute_request(action, inline)
        if not at_once:
            result, is_cached = await self._streamed(request, deltas)
            return parse_result(result), is_cached
        call = self._channel.unary_unary(
            _EXECUTE,
            request_serializer=partial(encode_execute, deltas=deltas),
            response_deserializer=ops.Operation.FromString,
        )
        try:
            operation = await call(
                request, metadata=self._metadata_of(_EXECUTE), timeout=self._config.execute_seconds
            )
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error) from error
        if not operation.done:
            raise UnavailableError("the worker sent more than the end")
        result, is_cached = _outcome(operation)
        return parse_result(result), is_cached

    async def run(self, action: Digest, inline: Sequence[str]) -> tuple[bytes, bool]:
        """Run the action on any service; return the `ActionResult` as received, and if cached."""
        return await self._streamed(self._execute_request(action, inline), ())

    def _execute_request(self, action: Digest, inline: Sequence[str]) -> pb.ExecuteRequest:
        return pb.ExecuteRequest(
            instance_name=self._instance,
            action_digest=digest_to_proto(action),
            inline_stdout=True,
            inline_stderr=True,
            inline_output_files=inline,
        )

    async def _streamed(
        self, request: pb.ExecuteRequest, deltas: Sequence[Delta]
    ) -> tuple[bytes, bool]:
        call = self._channel.unary_stream(
            _EXECUTE,
            request_serializer=(
                partial(encode_execute, deltas=deltas)
                if self._config.instance is None
                else pb.ExecuteRequest.SerializeToString
            ),
            response_deserializer=ops.Operation.FromString,
        )(request, metadata=self._metadata_of(_EXECUTE), timeout=self._config.execute_seconds)
        count = 0
        try:
            async for operation in call:
                count += 1
                if operation.done:
                    result, is_cached = _outcome(operation)
                    # A hit has one message on every worker, so it shows nothing.
                    self.tells_end_alone = count == 1 and not is_cached
                    return result, is_cached
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error) from error
        finally:
            call.cancel()
        raise UnavailableError("the worker ended the call without a result")

    async def _unary(self, method: str, request: Any, response: Any) -> Any:  # noqa: ANN401 - generated messages, named by each caller
        path = f"{_REAPI}.{method}"
        call = self._channel.unary_unary(
            path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=(bytes if response is None else response.FromString),
        )
        try:
            return await call(
                request, metadata=self._metadata_of(path), timeout=self._config.call_seconds
            )
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error) from error

    async def _batch_update(self, blobs: Sequence[Blob]) -> None:
        request = pb.BatchUpdateBlobsRequest(instance_name=self._instance)
        for blob in blobs:
            request.requests.add(digest=digest_to_proto(blob.digest), data=blob.data)
        answer = await self._unary(
            "ContentAddressableStorage/BatchUpdateBlobs", request, pb.BatchUpdateBlobsResponse
        )
        for item in answer.responses:
            if item.status.code:
                raise error_of_status(item.status)

    async def _batch_read(self, digests: Sequence[Digest]) -> dict[Digest, Blob]:
        request = pb.BatchReadBlobsRequest(
            instance_name=self._instance, digests=[digest_to_proto(d) for d in digests]
        )
        answer = await self._unary(
            "ContentAddressableStorage/BatchReadBlobs", request, pb.BatchReadBlobsResponse
        )
        found: dict[Digest, Blob] = {}
        for item in answer.responses:
            if item.status.code:
                raise error_of_status(item.status)
            digest = digest_from_proto(item.digest)
            found[digest] = Blob.checked(digest, item.data)
        if set(found) != set(digests):
            raise NotFoundError("the worker left out a blob")
        return found

    async def _write(self, blob: Blob) -> None:
        name = write_name(self._instance, str(uuid.uuid4()), blob.digest)

        async def pieces() -> AsyncIterator[bs.WriteRequest]:
            total = blob.digest.size_bytes
            for start in range(0, total, _CHUNK):
                data = blob.data[start : start + _CHUNK]
                yield bs.WriteRequest(
                    resource_name=name if not start else "",
                    write_offset=start,
                    data=data,
                    finish_write=start + len(data) == total,
                )

        call = self._channel.stream_unary(
            _WRITE,
            request_serializer=bs.WriteRequest.SerializeToString,
            response_deserializer=bs.WriteResponse.FromString,
        )
        try:
            async with aclosing(pieces()) as source:  # type: ignore[type-var]  # an async generator has aclose
                answer = await call(
                    source,
                    metadata=self._metadata_of(_WRITE),
                    timeout=self._config.transfer_seconds,
                )
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.INTERNAL:
                raise error_of_call(error) from error
            # grpcio loses the status of a server that answers before the stream has ended. This
            # call gets a refusal again; if the blob is already there, the upload has succeeded.
            if await self.find_missing([blob.digest]):
                raise UnavailableError("the worker aborted an upload") from error
            return
        if answer.committed_size != blob.digest.size_bytes:
            raise IntegrityError("the worker stored another number of bytes", reason="upload-size")

    async def _read(self, digest: Digest) -> Blob:
        call = self._channel.unary_stream(
            _READ,
            request_serializer=bs.ReadRequest.SerializeToString,
            response_deserializer=bs.ReadResponse.FromString,
        )(
            bs.ReadRequest(resource_name=read_name(self._instance, digest)),
            metadata=self._metadata_of(_READ),
            timeout=self._config.transfer_seconds,
        )
        data = bytearray()
        try:
            async for piece in call:
                data += piece.data
                if len(data) > digest.size_bytes:
                    raise IntegrityError("more bytes than the digest says", reason="download-size")
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error) from error
        finally:
            call.cancel()
        return Blob.checked(digest, bytes(data))


def _outcome(operation: ops.Operation) -> tuple[bytes, bool]:
    response = pb.ExecuteResponse()
    if not operation.response.Unpack(response):
        raise UnavailableError("the worker ended the operation without a response")
    if response.status.code:
        raise error_of_status(response.status)
    return response.result.SerializeToString(), response.cached_result
