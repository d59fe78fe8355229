"""An engine in memory that misbehaves as a test says: RWAPI's Bots service, and a CAS.

Open `scripted_engine`, put blobs into `blobs`, then `give` leases.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.google.bytestream import bytestream_pb2 as bs
from buildgrid.common.protos.google.devtools.remoteworkers.v1test2 import bots_pb2 as bots

from hpcc.core import Blob

_HOLD_SECONDS = 1.0
_PIECE = 1 << 20


@dataclass(slots=True)
class ScriptedEngine:
    """One engine with one bot. `edit` may change each answer before it is sent."""

    port: int = 0
    blobs: dict[str, bytes] = field(default_factory=dict)
    # What is sent in place of a blob, by its hash.
    lies: dict[str, bytes] = field(default_factory=dict)
    # Hashes that were asked for, and those that were uploaded.
    read: list[str] = field(default_factory=list)
    uploaded: list[str] = field(default_factory=list)
    leases: dict[str, bots.Lease] = field(default_factory=dict)
    ended: dict[str, bots.Lease] = field(default_factory=dict)
    created: list[bots.BotSession] = field(default_factory=list)
    updated: list[bots.BotSession] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    edit: Callable[[bots.BotSession], None] = lambda _: None
    # The code that each call of the bot ends with, or None.
    refuses: grpc.StatusCode | None = None
    # The same for each call to the CAS.
    cas_refuses: grpc.StatusCode | None = None
    is_silent: bool = False
    # The only instance that it knows; None: each.
    instance: str | None = None
    # Whether calls of an idle bot are held, as engines do.
    holds: bool = True
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def endpoint(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def give(self, name: str, action: Blob, **fields: Any) -> None:  # noqa: ANN401 - fields of the message
        """Give the bot a lease of an action."""
        lease = bots.Lease(id=name, state=bots.LeaseState.ACTIVE, **fields)
        lease.payload.Pack(pb.Action.FromString(action.data))
        self.leases[name] = lease
        self.changed.set()

    def add(self, *blobs: Blob) -> Blob:
        """Store blobs; return the last one."""
        self.blobs.update((b.digest.hash, b.data) for b in blobs)
        return blobs[-1]

    async def end_of(self, name: str) -> bots.Lease:
        """Wait until the bot has ended a lease, and return what it said."""
        while name not in self.ended:  # noqa: ASYNC110 - filled by calls of a bot
            await asyncio.sleep(0.01)
        return self.ended[name]

    async def create(self, request: bots.CreateBotSessionRequest, call: Any) -> bots.BotSession:  # noqa: ANN401 - grpc's context
        self.created.append(request.bot_session)
        await self._begin(call)
        session = request.bot_session
        session.name = f"{request.parent}/{len(self.created)}"
        session.version = "1"
        self.edit(session)
        return session

    async def update(self, request: bots.UpdateBotSessionRequest, call: Any) -> bots.BotSession:  # noqa: ANN401 - as above
        session = request.bot_session
        self.updated.append(bots.BotSession.FromString(session.SerializeToString()))
        await self._begin(call)
        told = {lease.id: lease for lease in session.leases}
        for lease in told.values():
            if lease.state == bots.LeaseState.COMPLETED and lease.id in self.leases:
                self.ended[lease.id] = lease
                del self.leases[lease.id]
        is_idle = not told and session.status == bots.BotStatus.OK
        if self.holds and is_idle and not self.leases:
            self.changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_HOLD_SECONDS):
                    await self.changed.wait()
        del session.leases[:]
        if session.status == bots.BotStatus.OK or told:
            session.leases.extend(told.get(n, lease) for n, lease in self.leases.items())
        self.edit(session)
        return session

    async def _begin(self, call: Any) -> None:  # noqa: ANN401 - as above
        self.tokens.add(str(dict(call.invocation_metadata()).get("authorization", "")))
        while self.is_silent:  # noqa: ASYNC110 - set by a test
            await asyncio.sleep(0.02)
        if self.refuses is not None:
            await call.abort(self.refuses, "no")

    async def _refuse(self, call: Any) -> None:  # noqa: ANN401 - as above
        if self.cas_refuses is not None:
            await call.abort(self.cas_refuses, "no")

    async def supported(self, request: pb.GetCapabilitiesRequest, call: Any) -> Any:  # noqa: ANN401 - a message
        await self._begin(call)
        if self.instance not in (None, request.instance_name):
            await call.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such instance")
        answer = pb.ServerCapabilities()
        answer.execution_capabilities.exec_enabled = True
        answer.execution_capabilities.digest_function = pb.DigestFunction.SHA256
        return answer

    async def missing(self, request: pb.FindMissingBlobsRequest, call: Any) -> Any:  # noqa: ANN401 - a message
        await self._refuse(call)
        absent = [d for d in request.blob_digests if d.hash not in self.blobs]
        return pb.FindMissingBlobsResponse(missing_blob_digests=absent)

    async def get(self, request: pb.BatchReadBlobsRequest, call: Any) -> Any:  # noqa: ANN401 - as above
        await self._refuse(call)
        answer = pb.BatchReadBlobsResponse()
        for digest in request.digests:
            item = answer.responses.add(digest=digest)
            self.read.append(digest.hash)
            item.data = self.lies.get(digest.hash, self.blobs.get(digest.hash, b""))
            if digest.hash not in self.blobs:
                item.status.code = grpc.StatusCode.NOT_FOUND.value[0]
        return answer

    async def put(self, request: pb.BatchUpdateBlobsRequest, _: object) -> Any:  # noqa: ANN401 - as above
        answer = pb.BatchUpdateBlobsResponse()
        for item in request.requests:
            self.blobs[item.digest.hash] = item.data
            self.uploaded.append(item.digest.hash)
            answer.responses.add(digest=item.digest)
        return answer

    async def stream(self, request: bs.ReadRequest, _: object) -> Any:  # noqa: ANN401 - as above
        name = request.resource_name.split("/")[-2]
        self.read.append(name)
        data = self.lies.get(name, self.blobs.get(name, b""))
        for start in range(0, len(data), _PIECE):
            yield bs.ReadResponse(data=data[start : start + _PIECE])


@asynccontextmanager
async def scripted_engine() -> AsyncGenerator[ScriptedEngine]:
    """Run an engine on loopback while the block runs."""
    engine = ScriptedEngine()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    reapi = "build.bazel.remote.execution.v2.ContentAddressableStorage"
    capabilities = "build.bazel.remote.execution.v2.Capabilities"
    rwapi = "google.devtools.remoteworkers.v1test2.Bots"
    unary: dict[str, dict[str, tuple[Any, Any]]] = {
        rwapi: {
            "CreateBotSession": (engine.create, bots.CreateBotSessionRequest),
            "UpdateBotSession": (engine.update, bots.UpdateBotSessionRequest),
        },
        capabilities: {"GetCapabilities": (engine.supported, pb.GetCapabilitiesRequest)},
        reapi: {
            "FindMissingBlobs": (engine.missing, pb.FindMissingBlobsRequest),
            "BatchReadBlobs": (engine.get, pb.BatchReadBlobsRequest),
            "BatchUpdateBlobs": (engine.put, pb.BatchUpdateBlobsRequest),
        },
    }
    for service, methods in unary.items():
        handlers = {name: _unary(handler, kind) for name, (handler, kind) in methods.items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    read: Any = grpc.unary_stream_rpc_method_handler(
        engine.stream,
        request_deserializer=bs.ReadRequest.FromString,
        response_serializer=bs.ReadResponse.SerializeToString,
    )
    stream = grpc.method_handlers_generic_handler("google.bytestream.ByteStream", {"Read": read})
    server.add_generic_rpc_handlers((stream,))
    engine.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield engine
    finally:
        engine.is_silent = False
        await server.stop(None)


def _unary(handler: Any, kind: Any) -> Any:  # noqa: ANN401 - generated messages
    return grpc.unary_unary_rpc_method_handler(
        handler,
        request_deserializer=kind.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )
