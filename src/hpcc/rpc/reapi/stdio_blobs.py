"""Stores long stdout and stderr as blobs, unless the client asked for them in the answer."""

from __future__ import annotations

from typing import Final, Protocol

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb

from hpcc.core import Blob
from hpcc.reapi.digests import digest_to_proto

# Most compilers' messages fit. REAPI lets the server choose the number.
MAX_INLINE_STDIO_BYTES: Final = 64 << 10


class BlobKeeper(Protocol):
    """Stores blobs that the worker made."""

    async def keep(self, blob: Blob) -> None:
        """Store a blob.

        Raises:
            InfrastructureError: the store failed.
        """
        ...


async def shorten(
    result: pb.ActionResult,
    keeper: BlobKeeper,
    *,
    inline_stdout: bool = False,
    inline_stderr: bool = False,
) -> None:
    """Replace stdout and stderr over the limit by digests, after storing them as blobs.

    Raises:
        InfrastructureError: a blob cannot be stored.
    """
    if len(result.stdout_raw) > MAX_INLINE_STDIO_BYTES and not inline_stdout:
        blob = Blob.of(result.stdout_raw)
        await keeper.keep(blob)
        result.stdout_digest.CopyFrom(digest_to_proto(blob.digest))
        result.ClearField("stdout_raw")
    if len(result.stderr_raw) > MAX_INLINE_STDIO_BYTES and not inline_stderr:
        blob = Blob.of(result.stderr_raw)
        await keeper.keep(blob)
        result.stderr_digest.CopyFrom(digest_to_proto(blob.digest))
        result.ClearField("stderr_raw")
