"""Moves blobs to and from a REAPI service: small ones in batches, large ones as streams."""

from __future__ import annotations

import asyncio
import io
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from typing import Final

import grpc
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.google.bytestream import bytestream_pb2 as bs

from hpcc.core import Blob, Digest, IntegrityError, NotFoundError
from hpcc.reapi.digests import digest_from_proto, digest_to_proto
from hpcc.reapi.resource import read_name, write_name
from hpcc.rpc.base.errors import UnavailableError, error_of_status
from hpcc.rpc.reapi.service_calls import ServiceCalls, call_errors

_READ: Final = "/google.bytestream.ByteStream/Read"
_WRITE: Final = "/google.bytestream.ByteStream/Write"
_CHUNK: Final = 512 << 10
# Digest, status and framing of one blob in a batch.
_ITEM_OVERHEAD_BYTES: Final = 256
_PAGE: Final = 20_000


class BlobClient:
    """ContentAddressableStorage and ByteStream of one service."""

    def __init__(self, calls: ServiceCalls) -> None:
        self._calls = calls

    async def find_missing(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        """Return those of `digests` that the service does not have."""
        wanted = sorted(set(digests))
        missing: set[Digest] = set()
        for start in range(0, len(wanted), _PAGE):
            request = pb.FindMissingBlobsRequest(
                instance_name=self._calls.instance,
                blob_digests=[digest_to_proto(d) for d in wanted[start : start + _PAGE]],
            )
            answer = await self._calls.unary(
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
            if cost > self._calls.max_batch_bytes:
                await self._write(blob)
                continue
            if size + cost > self._calls.max_batch_bytes:
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
            if cost > self._calls.max_batch_bytes:
                found[digest] = await self._read(digest)
                continue
            if size + cost > self._calls.max_batch_bytes:
                found.update(await self._batch_read(batch))
                batch, size = [], 0
            batch.append(digest)
            size += cost
        if batch:
            found.update(await self._batch_read(batch))
        return found

    async def _batch_update(self, blobs: Sequence[Blob]) -> None:
        request = pb.BatchUpdateBlobsRequest(instance_name=self._calls.instance)
        for blob in blobs:
            request.requests.add(digest=digest_to_proto(blob.digest), data=blob.data)
        answer = await self._calls.unary(
            "ContentAddressableStorage/BatchUpdateBlobs", request, pb.BatchUpdateBlobsResponse
        )
        for item in answer.responses:
            if item.status.code:
                raise error_of_status(item.status)

    async def _batch_read(self, digests: Sequence[Digest]) -> dict[Digest, Blob]:
        request = pb.BatchReadBlobsRequest(
            instance_name=self._calls.instance, digests=[digest_to_proto(d) for d in digests]
        )
        answer = await self._calls.unary(
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
        name = write_name(self._calls.instance, str(uuid.uuid4()), blob.digest)

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

        call = self._calls.channel.stream_unary(
            _WRITE,
            request_serializer=bs.WriteRequest.SerializeToString,
            response_deserializer=bs.WriteResponse.FromString,
        )
        seconds, answer = self._calls.config.transfer_seconds, None
        with call_errors(seconds):
            try:
                async with aclosing(pieces()) as source:  # type: ignore[type-var]  # an async generator has aclose
                    answer = await call(
                        source, metadata=self._calls.metadata(_WRITE), timeout=seconds
                    )
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.INTERNAL:
                    raise
        if answer is None:
            # grpcio loses the status of a server that answers before the stream has ended. This
            # call gets a refusal again; if the blob is already there, the upload has succeeded.
            if await self.find_missing([blob.digest]):
                raise UnavailableError("the worker aborted an upload")
            return
        if answer.committed_size != blob.digest.size_bytes:
            raise IntegrityError("the worker stored another number of bytes", reason="upload-size")

    async def _read(self, digest: Digest) -> Blob:
        seconds = self._calls.config.transfer_seconds
        call = self._calls.channel.unary_stream(
            _READ,
            request_serializer=bs.ReadRequest.SerializeToString,
            response_deserializer=bs.ReadResponse.FromString,
        )(
            bs.ReadRequest(resource_name=read_name(self._calls.instance, digest)),
            metadata=self._calls.metadata(_READ),
            timeout=seconds,
        )
        # Its value is its buffer: a blob of any size is in memory once.
        data = io.BytesIO()
        try:
            with call_errors(seconds):
                async for piece in call:
                    if data.tell() + len(piece.data) > digest.size_bytes:
                        raise IntegrityError(
                            "more bytes than the digest says", reason="download-size"
                        )
                    data.write(piece.data)
        finally:
            call.cancel()
        return await asyncio.to_thread(Blob.checked, digest, data.getvalue())
