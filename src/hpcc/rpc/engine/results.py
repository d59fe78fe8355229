"""Encodes a result as an engine's clients get it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb

from hpcc.core import Blob
from hpcc.reapi.result import ResultRecord, encode_result
from hpcc.rpc.reapi.stdio_blobs import shorten


@dataclass(slots=True)
class _Kept:
    """Collects the blobs that a result needs beside its outputs."""

    blobs: list[Blob] = field(default_factory=list)

    async def keep(self, blob: Blob) -> None:
        self.blobs.append(blob)


async def engine_result(record: ResultRecord) -> tuple[bytes, tuple[Blob, ...]]:
    """Return the encoded `ActionResult`, and blobs of long messages, to be uploaded before it.

    It has the labels of what ran the action, and no signature: nobody outside a farm can check
    one, and a result with it must not be taken for one of a farm.
    """
    plain = replace(record, signature=None, evidence=None, inline={})
    message, kept = pb.ActionResult.FromString(encode_result(plain)), _Kept()
    await shorten(message, kept)
    return message.SerializeToString(deterministic=True), tuple(kept.blobs)
