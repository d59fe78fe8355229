"""Finds the target of a REAPI request for a gateway. The rest is passed on unchanged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.google.bytestream import bytestream_pb2 as bs
from buildgrid.common.protos.google.longrunning import operations_pb2 as ops
from google.protobuf.message import DecodeError

from hpcc.core import CallerError, Digest, NotFoundError
from hpcc.reapi.digests import digest_from_proto
from hpcc.reapi.resource import parse_read_name, parse_write_name
from hpcc.rpc.base.channel import MAX_BATCH_BYTES

_REAPI: Final = "build.bazel.remote.execution.v2"
_BYTESTREAM: Final = "google.bytestream.ByteStream"
_MAX_OPERATION_CHARS: Final = 256
# A batch of blobs with its digests. The batch size that Capabilities announces fits.
MAX_RELAY_REQUEST_BYTES: Final = MAX_BATCH_BYTES + (1 << 20)
_SMALL: Final = 512 << 10


class Shape(Enum):
    """Which end of a call sends a stream."""

    UNARY = auto()
    STREAM_OUT = auto()
    STREAM_IN = auto()


@dataclass(frozen=True, slots=True)
class Target:
    """The target that a first message names, and the `request` bytes to pass on.

    `action` is the digest of the action to run, `operation` the name of a running one.
    """

    instance: str
    request: bytes
    action: Digest | None = None
    operation: str = ""


@dataclass(frozen=True, slots=True)
class RelayMethod:
    """A method that the gateway passes on.

    `answer_bytes` bounds the bytes in memory at one time, besides the first message.
    """

    service: str
    name: str
    shape: Shape
    target: Callable[[bytes], Target]
    answer_bytes: int = _SMALL

    @property
    def path(self) -> str:
        """Return `/package.Service/Method`."""
        return f"/{self.service}/{self.name}"


def _parsed(kind: Any, data: bytes) -> Any:  # noqa: ANN401 - generated messages, named by each caller
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise CallerError(f"not a {kind.DESCRIPTOR.name}", reason="bad-reapi-message") from error


def _instance(kind: Any) -> Callable[[bytes], Target]:  # noqa: ANN401 - as above
    def target(data: bytes) -> Target:
        return Target(_parsed(kind, data).instance_name, data)

    return target


def _read(data: bytes) -> Target:
    instance, _ = parse_read_name(_parsed(bs.ReadRequest, data).resource_name)
    return Target(instance, data)


def _write(kind: Any) -> Callable[[bytes], Target]:  # noqa: ANN401 - as above
    def target(data: bytes) -> Target:
        instance, _ = parse_write_name(_parsed(kind, data).resource_name)
        return Target(instance, data)

    return target


def _cached(data: bytes) -> Target:
    request = _parsed(pb.GetActionResultRequest, data)
    _plain(request)
    return Target(request.instance_name, request.SerializeToString())


def _execute(data: bytes) -> Target:
    request = _parsed(pb.ExecuteRequest, data)
    _plain(request)
    action = digest_from_proto(request.action_digest)
    return Target(request.instance_name, request.SerializeToString(), action)


def _plain(request: pb.ExecuteRequest | pb.GetActionResultRequest) -> None:
    """Clear the request for inlined contents, which bounds the answer's size in memory.

    REAPI lets a server ignore that request.
    """
    request.inline_stdout = request.inline_stderr = False
    del request.inline_output_files[:]


def _operation(kind: Any) -> Callable[[bytes], Target]:  # noqa: ANN401 - as above
    def target(data: bytes) -> Target:
        name = _parsed(kind, data).name
        instance, slash, _ = name.partition("/operations/")
        if not slash or len(name) > _MAX_OPERATION_CHARS:
            raise NotFoundError("no such operation")
        return Target(instance, data, operation=name)

    return target


def operation_name(message: bytes) -> str:
    """Return the name of an encoded `Operation` that a worker sent.

    Raises:
        CallerError: the message is malformed.
    """
    return str(_parsed(ops.Operation, message).name)


def _all_methods() -> tuple[RelayMethod, ...]:
    cas, cache = f"{_REAPI}.ContentAddressableStorage", f"{_REAPI}.ActionCache"
    run, out, unary = f"{_REAPI}.Execution", Shape.STREAM_OUT, Shape.UNARY
    large = MAX_RELAY_REQUEST_BYTES
    return (
        RelayMethod(
            f"{_REAPI}.Capabilities", "GetCapabilities", unary, _instance(pb.GetCapabilitiesRequest)
        ),
        RelayMethod(cas, "FindMissingBlobs", unary, _instance(pb.FindMissingBlobsRequest), large),
        RelayMethod(cas, "BatchUpdateBlobs", unary, _instance(pb.BatchUpdateBlobsRequest)),
        RelayMethod(cas, "BatchReadBlobs", unary, _instance(pb.BatchReadBlobsRequest), large),
        RelayMethod(cas, "GetTree", out, _instance(pb.GetTreeRequest), large),
        RelayMethod(_BYTESTREAM, "Read", out, _read, 2 << 20),
        # The pieces of an upload come one after another, each up to the message limit.
        RelayMethod(_BYTESTREAM, "Write", Shape.STREAM_IN, _write(bs.WriteRequest), large),
        RelayMethod(
            _BYTESTREAM, "QueryWriteStatus", unary, _write(bs.QueryWriteStatusRequest)
        ),
        RelayMethod(cache, "GetActionResult", unary, _cached),
        RelayMethod(cache, "UpdateActionResult", unary, _instance(pb.UpdateActionResultRequest)),
        RelayMethod(run, "Execute", out, _execute),
        RelayMethod(run, "WaitExecution", out, _operation(pb.WaitExecutionRequest)),
        RelayMethod(
            "google.longrunning.Operations",
            "CancelOperation",
            unary,
            _operation(ops.CancelOperationRequest),
        ),
    )  # fmt: skip


RELAY_METHODS: Final[Mapping[str, RelayMethod]] = {m.path: m for m in _all_methods()}
