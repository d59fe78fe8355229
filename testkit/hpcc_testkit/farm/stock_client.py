"""A stock REAPI client of a gateway, without hpcc's client code: sends any headers and any bytes.

Open `stock_client` with the gateway's port and CA.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import grpc
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.google.bytestream import bytestream_pb2 as bs
from buildgrid.common.protos.google.longrunning import operations_pb2 as ops

from hpcc.core import Blob, Digest
from hpcc.reapi.digests import digest_to_proto

REAPI: Final = "/build.bazel.remote.execution.v2"
BYTESTREAM: Final = "/google.bytestream.ByteStream"
_SECONDS: Final = 60.0

type Headers = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class StockClient:
    """Makes calls with one set of headers; raises grpc's errors."""

    channel: grpc.aio.Channel
    instance: str
    headers: Headers

    def sending(
        self, *headers: tuple[str, str | bytes], instance: str | None = None
    ) -> StockClient:
        """Return the same client with other headers."""
        return replace(
            self, headers=headers, instance=self.instance if instance is None else instance
        )

    async def capabilities(self) -> pb.ServerCapabilities:
        request = pb.GetCapabilitiesRequest(instance_name=self.instance)
        return await self.unary(
            f"{REAPI}.Capabilities/GetCapabilities", request, pb.ServerCapabilities
        )

    async def find_missing(self, digests: Sequence[Digest]) -> list[Digest]:
        request = pb.FindMissingBlobsRequest(
            instance_name=self.instance, blob_digests=[digest_to_proto(d) for d in digests]
        )
        path = f"{REAPI}.ContentAddressableStorage/FindMissingBlobs"
        answer = await self.unary(path, request, pb.FindMissingBlobsResponse)
        return [Digest(d.hash, d.size_bytes) for d in answer.missing_blob_digests]

    async def upload(self, blobs: Sequence[Blob]) -> pb.BatchUpdateBlobsResponse:
        request = pb.BatchUpdateBlobsRequest(instance_name=self.instance)
        for blob in blobs:
            request.requests.add(digest=digest_to_proto(blob.digest), data=blob.data)
        path = f"{REAPI}.ContentAddressableStorage/BatchUpdateBlobs"
        return await self.unary(path, request, pb.BatchUpdateBlobsResponse)

    async def download(self, digest: Digest) -> pb.BatchReadBlobsResponse:
        request = pb.BatchReadBlobsRequest(
            instance_name=self.instance, digests=[digest_to_proto(digest)]
        )
        path = f"{REAPI}.ContentAddressableStorage/BatchReadBlobs"
        return await self.unary(path, request, pb.BatchReadBlobsResponse)

    async def cached(self, action: Digest) -> pb.ActionResult:
        request = pb.GetActionResultRequest(
            instance_name=self.instance, action_digest=digest_to_proto(action)
        )
        return await self.unary(f"{REAPI}.ActionCache/GetActionResult", request, pb.ActionResult)

    async def execute(self, action: Digest, *, skip_cache: bool = False) -> list[ops.Operation]:
        """Run an action; return all operations that the server sent."""
        request = pb.ExecuteRequest(
            instance_name=self.instance,
            action_digest=digest_to_proto(action),
            skip_cache_lookup=skip_cache,
        )
        call = self.stream(f"{REAPI}.Execution/Execute", request, ops.Operation)
        return [operation async for operation in call]

    async def read(self, name: str, *, offset: int = 0, limit: int = 0) -> bytes:
        request = bs.ReadRequest(resource_name=name, read_offset=offset, read_limit=limit)
        call = self.stream(f"{BYTESTREAM}/Read", request, bs.ReadResponse)
        return b"".join([piece.data async for piece in call])

    async def write(self, pieces: Sequence[bs.WriteRequest]) -> bs.WriteResponse:
        call: Any = self.channel.stream_unary(
            f"{BYTESTREAM}/Write",
            request_serializer=bs.WriteRequest.SerializeToString,
            response_deserializer=bs.WriteResponse.FromString,
        )
        answer: bs.WriteResponse = await call(iter(pieces), metadata=self.headers, timeout=_SECONDS)
        return answer

    async def unary[M](self, path: str, request: Any, response: type[M]) -> M:  # noqa: ANN401 - generated messages
        kind: Any = response
        call: Any = self.channel.unary_unary(
            path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=kind.FromString,
        )
        answer: M = await call(request, metadata=self.headers, timeout=_SECONDS)
        return answer

    def stream(self, path: str, request: Any, response: Any) -> Any:  # noqa: ANN401 - as above
        call: Any = self.channel.unary_stream(
            path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return call(request, metadata=self.headers, timeout=_SECONDS)


@asynccontextmanager
async def stock_client(
    port: int, ca_pem: bytes, instance: str, *headers: tuple[str, str | bytes]
) -> AsyncGenerator[StockClient]:
    """Connect to a gateway by its CA, as Bazel does."""
    credentials = grpc.ssl_channel_credentials(root_certificates=ca_pem)
    # A separate connection, as another process would have.
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
    target = f"localhost:{port}"
    async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
        yield StockClient(channel, instance, headers)
