"""Converts digests between `Digest` and the message, and parses messages of bounded size."""

from __future__ import annotations

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from google.protobuf.message import DecodeError, Message

from hpcc.core import CallerError, Digest
from hpcc.reapi.limits import ReapiError


def digest_to_proto(digest: Digest) -> pb.Digest:
    """Build the message of a digest."""
    return pb.Digest(hash=digest.hash, size_bytes=digest.size_bytes)


def digest_from_proto(message: pb.Digest) -> Digest:
    """Parse a digest from a peer.

    Raises:
        ReapiError: the hash is not a SHA-256, or the size is out of range.
    """
    try:
        return Digest(message.hash, message.size_bytes)
    except CallerError as error:
        raise ReapiError(str(error), reason="bad-digest") from error


def parse_message[M: Message](kind: type[M], data: bytes, limit: int) -> M:
    """Parse a message of at most `limit` bytes.

    Raises:
        ReapiError: the bytes are over the limit, or not a message of this kind.
    """
    name = kind.DESCRIPTOR.name
    if len(data) > limit:
        raise ReapiError(f"{name} of {len(data)} bytes is over the limit of {limit}")
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise ReapiError(f"not a {name}") from error
    return message
