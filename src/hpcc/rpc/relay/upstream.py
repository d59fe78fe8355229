"""The worker's side of a relayed call: passes bytes in both directions and stores nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

import grpc
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.google.bytestream import bytestream_pb2 as bs
from google.protobuf.message import DecodeError

from hpcc.core import Blob, CallerError, Digest, TenantId
from hpcc.reapi.digests import digest_from_proto, digest_to_proto
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.base.method import PROOF_METADATA, TOOL_METADATA, bearer
from hpcc.rpc.base.write_order import WriteOrder
from hpcc.rpc.relay.link import RelayedError, RelayLink

_BATCH_READ: Final = "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchReadBlobs"
_STATUS: Final = "/google.bytestream.ByteStream/QueryWriteStatus"
_LOST: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED})
_LOOK_UP_SECONDS: Final = 30.0


def is_lost(error: RelayedError) -> bool:
    """Return whether the call may succeed with another worker or another token."""
    return error.error.code() in _LOST


class Upstream:
    """Calls to one worker with one route token. The caller owns the channel."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        token: str,
        tool: bytes,
        *,
        prove: Callable[[str], str],
    ) -> None:
        # `tool` is the only part of the client's headers that is passed on. It was re-encoded.
        self._channel, self._token, self._tool, self._prove = channel, token, tool, prove

    def _metadata(self, path: str) -> tuple[tuple[str, str | bytes], ...]:
        tool = ((TOOL_METADATA, self._tool),) if self._tool else ()
        return (*bearer(self._token), (PROOF_METADATA, self._prove(path)), *tool)

    async def unary(self, path: str, request: bytes, seconds: float) -> bytes:
        """Call a method without streams; return the answer's bytes.

        Raises:
            RelayedError: the worker refused or is unreachable.
        """
        call: Any = self._channel.unary_unary(path)
        try:
            return bytes(await call(request, metadata=self._metadata(path), timeout=seconds))
        except grpc.aio.AioRpcError as error:
            raise RelayedError(error) from error

    async def stream(self, path: str, request: bytes, seconds: float) -> AsyncGenerator[bytes]:
        """Yield a stream's messages. Each is read only when the caller asks for it.

        Raises:
            RelayedError: the worker refused or is unreachable.
        """
        raw: Any = self._channel.unary_stream(path)
        call = raw(request, metadata=self._metadata(path), timeout=seconds)
        try:
            while (message := await call.read()) is not grpc.aio.EOF:
                yield bytes(message)
        except grpc.aio.AioRpcError as error:
            raise RelayedError(error) from error
        finally:
            call.cancel()

    async def write(
        self, link: RelayLink, first: bytes, *, seconds: float, piece_seconds: float
    ) -> bytes:
        """Pass a client's upload on, piece by piece; return the worker's answer.

        `seconds` bounds the upload, `piece_seconds` the wait for each further piece.

        Raises:
            CallerError: a piece breaks the rules of an upload, or comes too late.
            RelayedError: the worker refused or is unreachable.
            UnavailableError: the worker ended the upload early and does not have the blob.
        """
        path = link.call.method.path
        order = WriteOrder(_piece(first))
        raw: Any = self._channel.stream_unary(path)
        call = raw(metadata=self._metadata(path), timeout=seconds)
        message: bytes | None = first
        try:
            while message is not None:
                is_last = order.take(_piece(message))
                await call.write(message)
                message = None if is_last else await link.read(piece_seconds)
            await call.done_writing()
            return bytes(await call)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.INTERNAL:
                raise RelayedError(error) from error
            return await self._broken_off(order)
        except asyncio.InvalidStateError:
            return await self._broken_off(order)
        finally:
            call.cancel()

    async def _broken_off(self, order: WriteOrder) -> bytes:
        """Ask the worker whether it has the blob of an upload that ended without a status.

        grpcio loses the status of a server that answers before the stream has ended. A worker
        that already has the blob does so.
        """
        request = bs.QueryWriteStatusRequest(resource_name=order.name).SerializeToString()
        data = await self.unary(_STATUS, request, _LOOK_UP_SECONDS)
        if not bs.QueryWriteStatusResponse.FromString(data).complete:
            raise UnavailableError("the worker aborted the upload")
        return bs.WriteResponse(committed_size=order.digest.size_bytes).SerializeToString()

    async def small_blob_or_none(self, tenant: TenantId, digest: Digest) -> bytes | None:
        """Fetch a blob that fits a batch; return None if the worker does not have it.

        Raises:
            RelayedError: the worker refused or is unreachable.
            HpccError: the bytes that it sent are not the blob.
        """
        request = pb.BatchReadBlobsRequest(
            instance_name=tenant.value, digests=[digest_to_proto(digest)]
        )
        data = await self.unary(_BATCH_READ, request.SerializeToString(), _LOOK_UP_SECONDS)
        try:
            answer = pb.BatchReadBlobsResponse.FromString(data)
        except DecodeError as error:
            raise UnavailableError("the worker's answer is malformed") from error
        for item in answer.responses:
            if not item.status.code and digest_from_proto(item.digest) == digest:
                return Blob.checked(digest, item.data).data
        return None


def _piece(data: bytes) -> bs.WriteRequest:
    try:
        return bs.WriteRequest.FromString(data)
    except DecodeError as error:
        raise CallerError("not a WriteRequest", reason="bad-reapi-message") from error
