"""REAPI v2 server: converts messages to core types and back, and checks every bound."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final

import grpc
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.build.bazel.semver import semver_pb2
from buildgrid.common.protos.google.longrunning import operations_pb2 as ops
from google.protobuf.empty_pb2 import Empty

from hpcc._proto import meeting_pb2 as meeting
from hpcc.core import Digest, NotFoundError, PolicyError
from hpcc.reapi.digests import digest_from_proto, digest_to_proto
from hpcc.rpc.base.blob_room import BlobRoom
from hpcc.rpc.base.channel import MAX_BATCH_BYTES
from hpcc.rpc.base.errors import code_of, status_of
from hpcc.rpc.base.method import Call, Gate, Method, service_handler
from hpcc.rpc.reapi.blob_server import BlobServices
from hpcc.rpc.reapi.explain import EXPLAIN_SERVICE, explain_methods
from hpcc.rpc.reapi.inline_blobs import InlineBlobs
from hpcc.rpc.reapi.meeting import SERVICE as MEETING
from hpcc.rpc.reapi.meeting import Meeting, encode_known, parse_notes, parse_uses
from hpcc.rpc.reapi.session import Authorizer, Finished, Running, Session, client_of
from hpcc.rpc.reapi.stdio_blobs import BlobKeeper, shorten

_REAPI: Final = "build.bazel.remote.execution.v2"


def reapi_handlers(authorizer: Authorizer, place: Meeting) -> tuple[grpc.GenericRpcHandler, ...]:
    """Build the handlers of all services of a worker: REAPI, `Explain` and `Meeting`."""
    room = BlobRoom()
    server = _ReapiServer(authorizer, room)
    blobs = BlobServices(authorizer, room)
    gate = Gate(authorizer.judge)
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
            gate,
        ),
        service_handler(f"{_REAPI}.ContentAddressableStorage", blobs.cas_methods(), gate),
        service_handler("google.bytestream.ByteStream", blobs.stream_methods(), gate),
        service_handler(f"{_REAPI}.ActionCache", server.cache_methods(), gate),
        service_handler(f"{_REAPI}.Execution", server.execution_methods(), gate),
        service_handler("google.longrunning.Operations", server.operation_methods(), gate),
        service_handler(EXPLAIN_SERVICE, explain_methods(authorizer), gate),
        service_handler(MEETING, _MeetingServer(authorizer, server, place).methods(), gate),
    )


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
        return await self.cached(session, request)

    async def cached(self, session: Session, request: pb.GetActionResultRequest) -> pb.ActionResult:
        """Return a hit; raises NotFoundError for a miss."""
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


class _MeetingServer:
    """Look-ups that are also answered with what is known about a miss."""

    def __init__(self, authorizer: Authorizer, server: _ReapiServer, place: Meeting) -> None:
        self._authorizer, self._server, self._place = authorizer, server, place

    def methods(self) -> tuple[Method, ...]:
        return (
            Method("Look", pb.GetActionResultRequest, meeting.LookAnswer, unary=self.look),
            Method("Note", meeting.NoteRequest, meeting.NoteAnswer, unary=self.note),
            Method("Used", meeting.UsedRequest, meeting.UsedAnswer, unary=self.used),
        )

    async def look(self, request: pb.GetActionResultRequest, call: Call) -> meeting.LookAnswer:
        client = client_of(call, request.instance_name)
        session = await self._authorizer.session(client)
        try:
            result = await self._server.cached(session, request)
        except NotFoundError:
            action = digest_from_proto(request.action_digest)
            return encode_known(await self._place.known(client, action))
        return meeting.LookAnswer(result=result.SerializeToString())

    async def note(self, request: meeting.NoteRequest, call: Call) -> meeting.NoteAnswer:
        client = client_of(call, request.instance_name)
        await self._authorizer.session(client)
        self._place.note(client, parse_notes(request))
        return meeting.NoteAnswer()

    async def used(self, request: meeting.UsedRequest, call: Call) -> meeting.UsedAnswer:
        client = client_of(call, request.instance_name)
        await self._authorizer.session(client)
        await self._place.used(client, parse_uses(request))
        return meeting.UsedAnswer()


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
