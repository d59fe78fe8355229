"""Encodes and parses an action's blobs inside its ExecuteRequest (proto/hpcc/v1/inline.proto)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from google.protobuf.message import DecodeError

from hpcc._proto import inline_pb2 as inline
from hpcc.core import Blob, CallerError, Digest, IntegrityError, NotFoundError
from hpcc.reapi.delta import Delta, apply_delta, check_deltas
from hpcc.reapi.limits import ReapiError


def encode_execute(request: pb.ExecuteRequest, deltas: Iterable[Delta]) -> bytes:
    """Encode a request with blobs of its action; it asks for only the end of the operation."""
    extras = inline.ExecuteExtras(only_end=True)
    for delta in deltas:
        blob = extras.blobs.add(
            sha256=bytes.fromhex(delta.digest.hash),
            size_bytes=delta.digest.size_bytes,
            data=delta.data,
        )
        if delta.base is not None:
            blob.base_sha256 = bytes.fromhex(delta.base.hash)
            blob.base_size_bytes = delta.base.size_bytes
            blob.prefix_bytes, blob.suffix_bytes = delta.prefix_bytes, delta.suffix_bytes
    return request.SerializeToString() + extras.SerializeToString()


class BlobPlace(Protocol):
    """The blob store of one tenant."""

    async def put(self, blob: Blob) -> None:
        """Store a blob."""
        ...

    async def get(self, digest: Digest) -> Blob:
        """Return a blob.

        Raises:
            NotFoundError: it is absent.
            IntegrityError: the stored bytes were damaged; they are removed.
        """
        ...


class InlineBlobs:
    """The checked fields that hpcc adds to a REAPI request. Stock clients send none of them."""

    def __init__(self, request: pb.ExecuteRequest) -> None:
        """Parse the added fields of a hostile request.

        Raises:
            ReapiError: the fields are malformed, or the blobs break a limit.
        """
        try:
            extras = inline.ExecuteExtras.FromString(request.SerializeToString())
        except DecodeError as error:
            raise ReapiError("malformed blobs in a request", reason="inline-blobs") from error
        self.only_end = extras.only_end
        self._deltas = tuple(map(_delta, extras.blobs))
        check_deltas(self._deltas)

    @property
    def size_bytes(self) -> int:
        """Return the most bytes of blobs that `store` has in memory."""
        return sum(d.digest.size_bytes + (d.base.size_bytes if d.base else 0) for d in self._deltas)

    async def store(self, place: BlobPlace) -> None:
        """Store the blobs. One without its base is skipped, and found missing later.

        Raises:
            ReapiError: a blob does not match its digest.
        """
        for delta in self._deltas:
            base = b""
            if delta.base is not None:
                try:
                    base = (await place.get(delta.base)).data
                except (NotFoundError, IntegrityError):  # absent, or damaged and now removed
                    continue
            await place.put(apply_delta(delta, base))


def _delta(blob: inline.InlineBlob) -> Delta:
    has_base = bool(blob.base_sha256)
    return Delta(
        _digest(blob.sha256, blob.size_bytes),
        blob.data,
        _digest(blob.base_sha256, blob.base_size_bytes) if has_base else None,
        blob.prefix_bytes,
        blob.suffix_bytes,
    )


def _digest(sha256: bytes, size_bytes: int) -> Digest:
    try:
        return Digest(sha256.hex(), size_bytes)
    except CallerError as error:
        raise ReapiError(str(error), reason="inline-blobs") from error
