"""Checks what the host sends in one Exec: frames in, a request and blob pieces out. No I/O."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from hpcc._proto import agent_pb2 as pb
from hpcc.core import (
    MAX_INPUTS,
    CallerError,
    Digest,
    ExecLimits,
    ExecRequest,
    InputFile,
)
from hpcc.wire.exec_frames import (
    CHUNK_BYTES,
    ENTROPY_BYTES,
    GUEST_ID_PATTERN,
    MAX_HEADER_BLOB_BYTES,
    MAX_HEADER_BLOBS,
    MAX_INPUT_BYTES,
    MAX_TRACEPARENT_CHARS,
    check_exec_request,
)

_GUEST_ID: Final = re.compile(GUEST_ID_PATTERN)
_SHA256_BYTES: Final = 32
# Nearly all inputs of a compile were inputs of the one before. About 500 bytes each.
_REMEMBERED_INPUTS: Final = 4096


@dataclass(frozen=True, slots=True)
class FirstExecHeader:
    """Fields that only the first Exec after a boot carries."""

    guest_id: str
    wall_time_ns: int
    entropy: bytes


@dataclass(frozen=True, slots=True)
class BlobPiece:
    """Bytes of the blob that is being received; `ends` marks the last piece."""

    digest: Digest
    data: bytes
    ends: bool


class Intake:
    """The legal order of one Exec's client frames: header, requested blobs in order, end.

    Every method raises CallerError for a frame that violates agent.proto.
    """

    def __init__(self) -> None:
        self._request: ExecRequest | None = None
        self._wanted: list[Digest] = []
        self._next = 0
        self._received = 0
        self._is_ended = False
        # Blobs that came in the header, by hash.
        self.blobs: dict[str, bytes] = {}

    def header(self, frame: pb.ClientFrame | None) -> tuple[ExecRequest, FirstExecHeader | None]:
        """Check the first frame; return the request, and the guest's identity if it is given."""
        if frame is None or frame.WhichOneof("frame") != "header":
            raise CallerError("the first frame is not a Header")
        header = frame.header
        self._request = _request(header)
        self.blobs = _header_blobs(header, self._request)
        return self._request, _first_exec(header.guest) if header.HasField("guest") else None

    def want(self, digests: Sequence[Digest]) -> None:
        """Set the blobs that were requested, in order."""
        self._wanted = list(digests)

    @property
    def is_complete(self) -> bool:
        return self._next == len(self._wanted)

    @property
    def is_ended(self) -> bool:
        """Whether the client has half-closed the stream, as `end` checked."""
        return self._is_ended

    def chunk(self, frame: pb.ClientFrame | None) -> BlobPiece:
        """Check the next frame after the header, while requested blobs are missing."""
        if frame is None or frame.WhichOneof("frame") != "chunk":
            raise CallerError("an InputChunk was expected")
        wanted = self._wanted[self._next]
        chunk = frame.chunk
        if chunk.digest.hex() != wanted.hash or len(chunk.data) > CHUNK_BYTES:
            raise CallerError("an InputChunk that is too large or of another blob")
        self._received += len(chunk.data)
        if self._received > wanted.size_bytes or (
            chunk.last and self._received < wanted.size_bytes
        ):
            raise CallerError("a blob of another size than its Input says")
        if chunk.last:
            self._next, self._received = self._next + 1, 0
        elif not chunk.data:
            raise CallerError("an empty InputChunk that is not the last")
        return BlobPiece(wanted, chunk.data, chunk.last)

    def end(self, frame: pb.ClientFrame | None) -> None:
        """Check that the client has half-closed the stream."""
        if frame is not None:
            raise CallerError("a frame after the last InputChunk")
        self._is_ended = True


@lru_cache(_REMEMBERED_INPUTS)
def _input(path: str, raw: bytes, size_bytes: int, is_executable: bool) -> InputFile:  # noqa: FBT001 - a row of the cache
    if len(raw) != _SHA256_BYTES or size_bytes > MAX_INPUT_BYTES:
        raise CallerError("an input's digest is not 32 bytes, or it is too large")
    return InputFile(path, Digest(raw.hex(), size_bytes), is_executable=is_executable)


def _request(header: pb.Header) -> ExecRequest:
    if len(header.traceparent) > MAX_TRACEPARENT_CHARS:
        raise CallerError("traceparent is too long")
    if max(len(header.inputs), len(header.input_directories)) > MAX_INPUTS:
        raise CallerError("too many inputs")
    request = ExecRequest(
        exec_id=header.exec_id,
        argv=tuple(header.argv),
        env=tuple((v.name, v.value) for v in header.env),
        cwd=header.cwd,
        inputs=tuple(
            _input(i.path, i.digest, i.size_bytes, i.is_executable) for i in header.inputs
        ),
        outputs=tuple(header.outputs),
        output_directories=tuple(header.output_directories),
        input_directories=tuple(header.input_directories),
        limits=_limits(header.limits),
    )
    check_exec_request(request)
    return request


def _header_blobs(header: pb.Header, request: ExecRequest) -> dict[str, bytes]:
    if not header.blobs:
        return {}
    if len(header.blobs) > MAX_HEADER_BLOBS or sum(map(len, header.blobs)) > MAX_HEADER_BLOB_BYTES:
        raise CallerError("too many blobs in a Header, or too large ones")
    found = {hashlib.sha256(data).hexdigest(): data for data in header.blobs}
    if not found.keys() <= {file.digest.hash for file in request.inputs}:
        raise CallerError("a blob in a Header that is not an input")
    return found


def _limits(limits: pb.Limits) -> ExecLimits:
    return ExecLimits(
        wall_seconds=limits.wall_seconds,
        memory_bytes=limits.memory_bytes,
        pids=limits.pids,
        output_bytes=limits.output_bytes,
        stdio_bytes=limits.stdio_bytes,
    )


def _first_exec(guest: pb.Guest) -> FirstExecHeader:
    if not _GUEST_ID.fullmatch(guest.guest_id) or len(guest.entropy) != ENTROPY_BYTES:
        raise CallerError("bad guest id or entropy")
    return FirstExecHeader(guest.guest_id, guest.wall_time_ns, guest.entropy)
