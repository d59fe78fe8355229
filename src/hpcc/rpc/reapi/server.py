"""REAPI v2 server: converts messages to core types and back, and checks every bound."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

import grpc
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.build.bazel.semver import semver_pb2
from buildgrid.common.protos.google.bytestream import bytestream_pb2 as bs
from buildgrid.common.protos.google.longrunning import operations_pb2 as ops
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError

from hpcc.core import Blob, CallerError, Digest, HpccError, NotFoundError, PolicyError, TenantId
from hpcc.reapi.digests import digest_from_proto, digest_to_proto
from hpcc.reapi.limits import MAX_TREE_BYTES
from hpcc.reapi.resource import parse_read_name, parse_write_name
from hpcc.rpc.base.blob_room import BlobRoom
from hpcc.rpc.base.channel import MAX_BATCH_BYTES, MAX_UPLOAD_BYTES
from hpcc.rpc.base.errors import code_of, status_of
from hpcc.rpc.base.method import Call, Method, service_handler
from hpcc.rpc.base.write_order import WriteOrder
from hpcc.rpc.reapi.inline_blobs import InlineBlobs
from hpcc.rpc.reapi.stdio_blobs import BlobKeeper, shorten

MAX_DIGESTS: Final = 50_000
_READ_CHUNK: Final = 1 << 20
_TREE_PAGE: Final = 1000
_REAPI: Final = "build.bazel.remote.execution.v2"
_MAX_LABEL_CHARS: Final = 128
_MAX_INJECTED: Final = 16


@dataclass(frozen=True, slots=True)
class Client:
    """The caller: credential, instance and proof as sent, and what its tool reports."""

    credential: str
    instance: str
    tool: str = ""
    build_id: str = ""
    injected: tuple[str, ...] = ()
    proof: str = ""
    method: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """An accepted execution that has not ended; `name` is its operation name."""

    name: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of an execution: an encoded `ActionResult`, or an error."""

    name: str
    result: bytes = b""
    is_cached: bool = False
    error: HpccError | None = None


class Session(Protocol):
    """What an authorized caller may do, bound to one tenant and token.

    Every method raises an `HpccError` with a reason where it refuses or fails.
    """

    @property
    def tenant(self) -> TenantId:
        """Return the tenant that the token names."""
        ...

    async def find_missing(self, digests: tuple[Digest, ...]) -> frozenset[Digest]:
        """Return those of `digests` that the tenant's store does not have."""
        ...

    async def put(self, blob: Blob) -> None:
        """Store a client's blob, within the tenant's quotas."""
        ...

    async def get(self, digest: Digest) -> Blob:
        """Return a blob of the tenant.

        Raises:
            NotFoundError: it is absent.
        """
        ...

    async def keep(self, blob: Blob) -> None:
        """Store a blob that the worker made."""
        ...

    async def tree(self, root: Digest) -> tuple[bytes, ...]:
        """Return the encoded `Directory` messages below a root, the root included."""
        ...

    async def cached_result(self, action: Digest, inline: frozenset[str]) -> bytes:
        """Return the encoded `ActionResult` of a hit, with the contents of `inline` outputs.

        Raises:
            NotFoundError: a miss.
        """
        ...

    def execute(
        self,
        action: Digest,
        inline: frozenset[str],
        *,
        skip_cache: bool,
        arrive: Callable[[], Awaitable[None]],
    ) -> AsyncGenerator[Running | Finished]:
        """Run an action and yield its states; the last one is `Finished`.

        `arrive` stores the blobs that came with the request. It is called on a miss.
        """
        ...

    def wait(self, name: str) -> AsyncGenerator[Running | Finished]:
        """Join the operation `name` and yield its states.

        Raises:
            NotFoundError: the tenant has no such operation.
        """
        ...

    def cancel(self, name: str) -> None:
        """Cancel the operation `name`."""
        ...


class Authorizer(Protocol):
    """Decides whether a caller gets a session."""

    async def session(self, client: Client) -> Session:
        """Check the credential and that its tenant has the instance name.

        Raises:
            PolicyError: the credential is invalid, or the instance is not its tenant's.
        """
        ...

    async def refused(self, client: Client, what: str) -> None:
        """Record that a caller tried `what`, which no client may do."""
        ...


def reapi_handlers(authorizer: Authorizer) -> tuple[grpc.GenericRpcHandler, ...]:
    """Build the handlers of all REAPI services."""
    room = BlobRoom()
    server = _ReapiServer(authorizer, room)
    blobs = _BlobServices(authorizer, room)
    return (
        service_handler(
            f"{_REAPI}.Capabilities",
            (
                Method(
                    "GetCapabilities",
                    pb.GetCapabilitiesRequest,
                    pb.ServerCapabilities,
                    unary=server.capabilities,
                ),
            ),
        ),
        service_handler(f"{_REAPI}.ContentAddressableStorage", blobs.cas_methods()),
        service_handler("google.bytestream.ByteStream", blobs.stream_methods()),
        service_handler(f"{_REAPI}.ActionCache", server.cache_methods()),
        service_handler(f"{_REAPI}.Execution", server.execution_methods()),
        service_handler("google.longrunning.Operations", server.operation_methods()),
    )


def client_of(call: Call, instance: str) -> Client:
    """Return the caller. A malformed tool description is ignored: no decision depends on it."""
    tool, build = "", ""
    try:
        metadata = pb.RequestMetadata.FromString(call.tool_metadata)
        tool = f"{metadata.tool_details.tool_name} {metadata.tool_details.tool_version}".strip()
        build = metadata.tool_invocation_id or metadata.correlated_invocations_id
    except DecodeError:
        pass
    injected = call.injected.decode("utf-8", "replace").split("\0")[:_MAX_INJECTED]
    flags = tuple(_label(flag) for flag in injected if flag)
    return Client(
        call.credential, instance, _label(tool), _label(build), flags, call.proof, call.method
    )


def _label(text: str) -> str:
    return "".join(c for c in text[:_MAX_LABEL_CHARS] if c.isprintable())


def _digests(messages: object) -> tuple[Digest, ...]:
    digests = list(messages)  # type: ignore[call-overload]  # a repeated field of either stub set
    if len(digests) > MAX_DIGESTS:
        raise CallerError(f"more than {MAX_DIGESTS} digests in one call")
    return tuple(digest_from_proto(d) for d in digests)


class _BlobServices:
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
        if len(request.requests) > MAX_DIGESTS or (
            sum(len(r.data) for r in request.requests) > MAX_BATCH_BYTES
        ):
            raise CallerError(f"a batch may hold {MAX_BATCH_BYTES} bytes", reason="batch-size")
        answer = pb.BatchUpdateBlobsResponse()
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
            await session.put(Blob.checked(order.digest, await _collected(first, requests, order)))
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
    data = bytearray()
    message: bs.WriteRequest | None = first
    while message is not None:
        is_last = order.take(message)
        data += message.data
        message = None if is_last else await anext(rest, None)
    return bytes(data)


class _ReapiServer:
    """Capabilities, ActionCache, Execution and Operations."""

    def __init__(self, authorizer: Authorizer, room: BlobRoom) -> None:
        self._authorizer, self._room = authorizer, room

    async def capabilities(
        self, request: pb.GetCapabilitiesRequest, call: Call
    ) -> pb.ServerCapabilities:
        await self._authorizer.session(client_of(call, request.instance_name))
        sha256 = pb.DigestFunction.SHA256
        return pb.ServerCapabilities(
            cache_capabilities=pb.CacheCapabilities(
                digest_functions=[sha256],
                max_batch_total_size_bytes=MAX_BATCH_BYTES,
                action_cache_update_capabilities=pb.ActionCacheUpdateCapabilities(
                    update_enabled=False
                ),
                symlink_absolute_path_strategy=pb.SymlinkAbsolutePathStrategy.DISALLOWED,
            ),
            execution_capabilities=pb.ExecutionCapabilities(
                digest_function=sha256, digest_functions=[sha256], exec_enabled=True
            ),
            low_api_version=semver_pb2.SemVer(major=2, minor=0),
            high_api_version=semver_pb2.SemVer(major=2, minor=3),
        )

    def cache_methods(self) -> tuple[Method, ...]:
        return (
            Method(
                "GetActionResult",
                pb.GetActionResultRequest,
                pb.ActionResult,
                unary=self.get_action_result,
            ),
            Method(
                "UpdateActionResult",
                pb.UpdateActionResultRequest,
                pb.ActionResult,
                unary=self.update_action_result,
            ),
        )

    def execution_methods(self) -> tuple[Method, ...]:
        return (
            Method("Execute", pb.ExecuteRequest, ops.Operation, stream=self.execute),
            Method("WaitExecution", pb.WaitExecutionRequest, ops.Operation, stream=self.wait),
        )

    def operation_methods(self) -> tuple[Method, ...]:
        return (Method("CancelOperation", ops.CancelOperationRequest, Empty, unary=self.cancel),)

    async def get_action_result(
        self, request: pb.GetActionResultRequest, call: Call
    ) -> pb.ActionResult:
        session = await self._authorizer.session(client_of(call, request.instance_name))
        action = digest_from_proto(request.action_digest)
        record = await session.cached_result(action, frozenset(request.inline_output_files))
        result = pb.ActionResult.FromString(record)
        await shorten(
            result,
            session,
            inline_stdout=request.inline_stdout,
            inline_stderr=request.inline_stderr,
        )
        return result

    async def update_action_result(
        self, request: pb.UpdateActionResultRequest, call: Call
    ) -> pb.ActionResult:
        client = client_of(call, request.instance_name)
        await self._authorizer.session(client)
        await self._authorizer.refused(client, "update-action-result")
        raise PolicyError("only workers write results", reason="update-refused")

    async def execute(
        self, request: pb.ExecuteRequest, call: Call
    ) -> AsyncGenerator[ops.Operation]:
        session = await self._authorizer.session(client_of(call, request.instance_name))
        action = digest_from_proto(request.action_digest)
        inline_blobs = InlineBlobs(request)

        async def arrive() -> None:
            async with self._room.hold(session.tenant, inline_blobs.size_bytes):
                await inline_blobs.store(session)

        updates = session.execute(
            action,
            frozenset(request.inline_output_files),
            skip_cache=request.skip_cache_lookup,
            arrive=arrive,
        )
        async with aclosing(updates):
            async for update in updates:
                if inline_blobs.only_end and isinstance(update, Running):
                    continue
                yield await _operation(
                    update,
                    action,
                    session,
                    inline_stdout=request.inline_stdout,
                    inline_stderr=request.inline_stderr,
                )

    async def wait(
        self, request: pb.WaitExecutionRequest, call: Call
    ) -> AsyncGenerator[ops.Operation]:
        session, name = await self._named(request.name, call)
        async with aclosing(session.wait(name)) as updates:
            async for update in updates:
                yield await _operation(update, None, session)

    async def cancel(self, request: ops.CancelOperationRequest, call: Call) -> Empty:
        session, name = await self._named(request.name, call)
        session.cancel(name)
        return Empty()

    async def _named(self, name: str, call: Call) -> tuple[Session, str]:
        instance, slash, _ = name.partition("/operations/")
        if not slash or len(name) > 256:  # noqa: PLR2004 - instance, word and a digest
            raise NotFoundError("no such operation")
        return await self._authorizer.session(client_of(call, instance)), name


async def _operation(
    update: Running | Finished, action: Digest | None, keeper: BlobKeeper, **inline: bool
) -> ops.Operation:
    stages: Mapping[bool, pb.ExecutionStage.Value.ValueType] = {
        False: pb.ExecutionStage.EXECUTING,
        True: pb.ExecutionStage.COMPLETED,
    }
    is_done = isinstance(update, Finished)
    operation = ops.Operation(name=update.name, done=is_done)
    metadata = pb.ExecuteOperationMetadata(stage=stages[is_done])
    if action is not None:
        metadata.action_digest.CopyFrom(digest_to_proto(action))
    operation.metadata.Pack(metadata)
    if isinstance(update, Finished):
        response = pb.ExecuteResponse(cached_result=update.is_cached)
        if update.error is not None:
            status = status_of(update.error)
            assert status.code == code_of(update.error).value[0]
            response.status.CopyFrom(status)
        else:
            response.result.ParseFromString(update.result)
            await shorten(response.result, keeper, **inline)
        operation.response.Pack(response)
    return operation
