"""ContentAddressableStorage and ByteStream of a worker: blobs in and out, each bound checked."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.google.bytestream import bytestream_pb2 as bs

from hpcc.core import Blob, CallerError, Digest, HpccError
from hpcc.reapi.digests import digest_from_proto, digest_to_proto
from hpcc.reapi.limits import MAX_TREE_BYTES
from hpcc.reapi.resource import parse_read_name, parse_write_name
from hpcc.rpc.base.blob_room import BlobRoom
from hpcc.rpc.base.channel import MAX_BATCH_BYTES, MAX_UPLOAD_BYTES
from hpcc.rpc.base.errors import status_of
from hpcc.rpc.base.method import Call, Method
from hpcc.rpc.base.write_order import WriteOrder
from hpcc.rpc.reapi.session import Authorizer, Session, client_of

MAX_DIGESTS: Final = 50_000
_READ_CHUNK: Final = 1 << 20
_SMALL_BYTES: Final = 64 << 10
_TREE_PAGE: Final = 1000


class BlobServices:
    """ContentAddressableStorage and ByteStream."""

    def __init__(self, authorizer: Authorizer, room: BlobRoom) -> None:
        self._authorizer, self._room = authorizer, room

    def cas_methods(self) -> tuple[Method, ...]:
        return (
            Method(
                "FindMissingBlobs",
                pb.FindMissingBlobsRequest,
                pb.FindMissingBlobsResponse,
                unary=self.find_missing,
            ),
            Method(
                "BatchUpdateBlobs",
                pb.BatchUpdateBlobsRequest,
                pb.BatchUpdateBlobsResponse,
                unary=self.batch_update,
            ),
            Method(
                "BatchReadBlobs",
                pb.BatchReadBlobsRequest,
                pb.BatchReadBlobsResponse,
                unary=self.batch_read,
            ),
            Method("GetTree", pb.GetTreeRequest, pb.GetTreeResponse, stream=self.get_tree),
        )

    def stream_methods(self) -> tuple[Method, ...]:
        return (
            Method("Read", bs.ReadRequest, bs.ReadResponse, stream=self.read),
            Method(
                "Write", bs.WriteRequest, bs.WriteResponse, unary=self.write,
                is_client_streaming=True,
            ),
            Method(
                "QueryWriteStatus",
                bs.QueryWriteStatusRequest,
                bs.QueryWriteStatusResponse,
                unary=self.write_status,
            ),
        )  # fmt: skip

    async def _session(self, call: Call, instance: str) -> Session:
        return await self._authorizer.session(client_of(call, instance))

    async def find_missing(
        self, request: pb.FindMissingBlobsRequest, call: Call
    ) -> pb.FindMissingBlobsResponse:
        session = await self._session(call, request.instance_name)
        missing = await session.find_missing(_digests(request.blob_digests))
        return pb.FindMissingBlobsResponse(
            missing_blob_digests=[digest_to_proto(d) for d in sorted(missing)]
        )

    async def batch_update(
        self, request: pb.BatchUpdateBlobsRequest, call: Call
    ) -> pb.BatchUpdateBlobsResponse:
        session = await self._session(call, request.instance_name)
        size = sum(len(r.data) for r in request.requests)
        if len(request.requests) > MAX_DIGESTS or size > MAX_BATCH_BYTES:
            raise CallerError(f"a batch may hold {MAX_BATCH_BYTES} bytes", reason="batch-size")
        answer = pb.BatchUpdateBlobsResponse()
        async with self._room.hold(session.tenant, size):
            for item in request.requests:
                entry = answer.responses.add(digest=item.digest)
                try:
                    if item.compressor:
                        raise CallerError("compressed blobs are not supported", reason="compressor")
                    await session.put(Blob.checked(digest_from_proto(item.digest), item.data))
                except HpccError as error:
                    entry.status.CopyFrom(status_of(error, max_bytes=1024))
        return answer

    async def batch_read(
        self, request: pb.BatchReadBlobsRequest, call: Call
    ) -> pb.BatchReadBlobsResponse:
        session = await self._session(call, request.instance_name)
        digests = _digests(request.digests)
        if sum(d.size_bytes for d in digests) > MAX_BATCH_BYTES:
            raise CallerError(f"a batch may hold {MAX_BATCH_BYTES} bytes", reason="batch-size")
        answer = pb.BatchReadBlobsResponse()
        async with self._room.hold(session.tenant, sum(d.size_bytes for d in digests)):
            for digest in digests:
                entry = answer.responses.add(digest=digest_to_proto(digest))
                try:
                    entry.data = (await session.get(digest)).data
                except HpccError as error:
                    entry.status.CopyFrom(status_of(error, max_bytes=1024))
        return answer

    async def get_tree(
        self, request: pb.GetTreeRequest, call: Call
    ) -> AsyncGenerator[pb.GetTreeResponse]:
        session = await self._session(call, request.instance_name)
        page = pb.GetTreeResponse()
        size = 0
        async with self._room.hold(session.tenant, MAX_TREE_BYTES):
            for data in await session.tree(digest_from_proto(request.root_digest)):
                if size + len(data) > MAX_BATCH_BYTES or len(page.directories) >= _TREE_PAGE:
                    yield page
                    page, size = pb.GetTreeResponse(), 0
                page.directories.append(pb.Directory.FromString(data))
                size += len(data)
            yield page

    async def read(self, request: bs.ReadRequest, call: Call) -> AsyncGenerator[bs.ReadResponse]:
        instance, digest = parse_read_name(request.resource_name)
        session = await self._session(call, instance)
        if not 0 <= request.read_offset <= digest.size_bytes or request.read_limit < 0:
            raise CallerError("read offset or limit is out of range", reason="read-range")
        if digest.size_bytes > MAX_UPLOAD_BYTES:
            raise CallerError(f"a blob may have {MAX_UPLOAD_BYTES} bytes", reason="blob-size")
        async with self._room.hold(session.tenant, digest.size_bytes):
            data = memoryview((await session.get(digest)).data)[request.read_offset :]
            if request.read_limit:
                data = data[: request.read_limit]
            for start in range(0, len(data), _READ_CHUNK):
                yield bs.ReadResponse(data=bytes(data[start : start + _READ_CHUNK]))

    async def write(self, requests: AsyncIterator[bs.WriteRequest], call: Call) -> bs.WriteResponse:
        first = await anext(requests, None)
        if first is None:
            raise CallerError("empty write")
        order = WriteOrder(first)
        session = await self._session(call, order.instance)
        size = order.digest.size_bytes
        if not await session.find_missing((order.digest,)):
            return bs.WriteResponse(committed_size=size)
        async with self._room.hold(session.tenant, size):
            data = await _collected(first, requests, order)
            await session.put(await _checked(order.digest, data))
        return bs.WriteResponse(committed_size=size)

    async def write_status(
        self, request: bs.QueryWriteStatusRequest, call: Call
    ) -> bs.QueryWriteStatusResponse:
        instance, digest = parse_write_name(request.resource_name)
        session = await self._session(call, instance)
        if await session.find_missing((digest,)):
            return bs.QueryWriteStatusResponse(committed_size=0, complete=False)
        return bs.QueryWriteStatusResponse(committed_size=digest.size_bytes, complete=True)


async def _collected(
    first: bs.WriteRequest, rest: AsyncIterator[bs.WriteRequest], order: WriteOrder
) -> bytes:
    """Join the pieces of an upload; never holds more bytes than its digest has."""
    # Its value is its buffer: a blob of any size is in memory once.
    data = io.BytesIO()
    message: bs.WriteRequest | None = first
    while message is not None:
        is_last = order.take(message)
        data.write(message.data)
        message = None if is_last else await anext(rest, None)
    return data.getvalue()


async def _checked(digest: Digest, data: bytes) -> Blob:
    # A small one is digested sooner than another thread starts. A large one would stop all calls.
    if digest.size_bytes <= _SMALL_BYTES:
        return Blob.checked(digest, data)
    return await asyncio.to_thread(Blob.checked, digest, data)


def _digests(messages: object) -> tuple[Digest, ...]:
    digests = list(messages)  # type: ignore[call-overload]  # a repeated field of either stub set
    if len(digests) > MAX_DIGESTS:
        raise CallerError(f"more than {MAX_DIGESTS} digests in one call")
    return tuple(digest_from_proto(d) for d in digests)
