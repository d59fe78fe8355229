"""A REAPI cache in memory that misbehaves as a test says; `calls` are the methods, in order.

A test sets `trouble` to one of the names in `TROUBLES`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.google.bytestream import bytestream_pb2 as bs

from hpcc.core import Digest
from hpcc.reapi.digests import digest_to_proto
from hpcc_testkit.services.server_certificate import ServerFiles

TROUBLES: Final = (
    "nonsense",  # a result that cannot be parsed
    "huge-blob",  # a result that names a blob of 1 TiB
    "over-limit",  # a result that names a blob that is larger than an object may be
    "long",  # an inline object that is longer than a message may be
    "bomb",  # the same, compressed by gRPC to a thousandth
    "absent-blob",  # a result whose blob is gone
    "other-blob",  # a blob of the right name and size, and other bytes
    "endless-blob",  # a stream of bytes without an end
    "silent",  # takes the call and never answers
    "error",  # INTERNAL
    "denied",  # PERMISSION_DENIED
    "full",  # RESOURCE_EXHAUSTED for each write
)
_PIECE: Final = bytes(1 << 20)
_LARGE: Final = 8 << 20


@dataclass(slots=True)
class ReapiServer:
    """A server on loopback; its instances may have any name."""

    port: int = 0
    trouble: str = ""
    # The value of the header `authorization` that each call must have; "" lets everybody in.
    authorization: str = ""
    calls: list[str] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    instances: set[str] = field(default_factory=set)
    results: dict[str, pb.ActionResult] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    sent_pieces: int = 0
    ended: threading.Event = field(default_factory=threading.Event, repr=False)

    def get_result(self, request: pb.GetActionResultRequest, call: grpc.ServicerContext) -> bytes:
        self._begin("GetActionResult", request.instance_name, call)
        match self.trouble:
            case "nonsense":
                return b"\xff" * 100
            case "huge-blob" | "over-limit":
                size = 1 << 40 if self.trouble == "huge-blob" else 17 << 20
                return _naming(Digest("0" * 64, size))
            case "absent-blob":
                return _naming(Digest("0" * 64, 1000))
            case "other-blob":
                return _naming(Digest.of(b"another"))
            case "endless-blob":
                return _naming(Digest("0" * 64, _LARGE))
            case "long" | "bomb":
                return pb.ActionResult(stdout_raw=bytes(64 << 20)).SerializeToString()
            case _:
                return self._stored(request, call)

    def _stored(self, request: pb.GetActionResultRequest, call: grpc.ServicerContext) -> bytes:
        found = self.results.get(request.action_digest.hash)
        if found is None:
            call.abort(grpc.StatusCode.NOT_FOUND, "no result")
        return found.SerializeToString()

    def put_result(
        self, request: pb.UpdateActionResultRequest, call: grpc.ServicerContext
    ) -> bytes:
        self._begin("UpdateActionResult", request.instance_name, call)
        self._refuse_writes(call)
        self.results[request.action_digest.hash] = request.action_result
        return request.action_result.SerializeToString()

    def put_blobs(self, request: pb.BatchUpdateBlobsRequest, call: grpc.ServicerContext) -> bytes:
        self._begin("BatchUpdateBlobs", request.instance_name, call)
        self._refuse_writes(call)
        answer = pb.BatchUpdateBlobsResponse()
        for item in request.requests:
            self.blobs[item.digest.hash] = item.data
            answer.responses.add(digest=item.digest)
        return answer.SerializeToString()

    def get_blobs(self, request: pb.BatchReadBlobsRequest, call: grpc.ServicerContext) -> bytes:
        self._begin("BatchReadBlobs", request.instance_name, call)
        answer = pb.BatchReadBlobsResponse()
        for digest in request.digests:
            item = answer.responses.add(digest=digest)
            item.data = self.blobs.get(digest.hash, b"")
            if self.trouble == "other-blob":
                item.data = bytes(digest.size_bytes)
            elif digest.hash not in self.blobs:
                item.status.code = grpc.StatusCode.NOT_FOUND.value[0]
        return answer.SerializeToString()

    def read(self, request: bs.ReadRequest, call: grpc.ServicerContext) -> Iterator[bytes]:
        self._begin("Read", request.resource_name.partition("/blobs/")[0], call)
        while self.trouble == "endless-blob" and call.is_active():
            self.sent_pieces += 1
            yield bs.ReadResponse(data=_PIECE).SerializeToString()

    def _begin(self, method: str, instance: str, call: grpc.ServicerContext) -> None:
        self.calls.append(method)
        self.instances.add(instance)
        shown = dict(call.invocation_metadata()).get("authorization", "")
        self.authorizations.append(str(shown))
        if self.trouble == "bomb":
            call.set_compression(grpc.Compression.Gzip)
        if self.trouble == "silent":
            self.ended.wait(60)
        if self.trouble == "error":
            call.abort(grpc.StatusCode.INTERNAL, "no")
        if self.trouble == "denied":
            call.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        if self.authorization and shown != self.authorization:
            call.abort(grpc.StatusCode.UNAUTHENTICATED, f"not {shown!r}")

    def _refuse_writes(self, call: grpc.ServicerContext) -> None:
        if self.trouble == "full":
            call.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room")


def _naming(digest: Digest) -> bytes:
    return pb.ActionResult(stdout_digest=digest_to_proto(digest)).SerializeToString()


@contextmanager
def reapi_server(
    tls: ServerFiles | None = None, *, asks_certificate: bool = False
) -> Iterator[ReapiServer]:
    """Run a server until the block ends; with `asks_certificate` clients need one of its CA."""
    state = ReapiServer()
    pool = ThreadPoolExecutor(8)
    server = grpc.server(
        pool, options=[("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]
    )
    reapi = "build.bazel.remote.execution.v2"
    cas = {
        "BatchUpdateBlobs": _unary(pb.BatchUpdateBlobsRequest, state.put_blobs),
        "BatchReadBlobs": _unary(pb.BatchReadBlobsRequest, state.get_blobs),
    }
    results = {
        "GetActionResult": _unary(pb.GetActionResultRequest, state.get_result),
        "UpdateActionResult": _unary(pb.UpdateActionResultRequest, state.put_result),
    }
    read: grpc.RpcMethodHandler[Any, bytes] = grpc.unary_stream_rpc_method_handler(
        state.read, request_deserializer=bs.ReadRequest.FromString
    )
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(f"{reapi}.ActionCache", results),
            grpc.method_handlers_generic_handler(f"{reapi}.ContentAddressableStorage", cas),
            grpc.method_handlers_generic_handler("google.bytestream.ByteStream", {"Read": read}),
        )
    )
    if tls is None:
        state.port = server.add_insecure_port("127.0.0.1:0")
    else:
        pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
        credentials = grpc.ssl_server_credentials(
            [pair], tls.ca.read_bytes(), require_client_auth=asks_certificate
        )
        state.port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield state
    finally:
        state.ended.set()
        server.stop(None).wait()
        pool.shutdown()


def _unary(kind: Any, handler: Callable[[Any, Any], bytes]) -> grpc.RpcMethodHandler[Any, bytes]:  # noqa: ANN401 - generated messages
    return grpc.unary_unary_rpc_method_handler(handler, request_deserializer=kind.FromString)
