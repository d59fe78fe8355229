"""Encodes and parses results. The action cache stores them, and clients receive them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from hpcc.core import (
    MAX_OUTPUTS,
    MAX_STDIO_BYTES,
    CallerError,
    Digest,
    GuestReuse,
    Isolation,
    SharingClass,
    check_guest_path,
)
from hpcc.reapi.claims import ResultClaim, encode_claims, parse_claims
from hpcc.reapi.digests import digest_from_proto, digest_to_proto, parse_message
from hpcc.reapi.limits import MAX_RESULT_BYTES, ReapiError

# 2: signed, with the digests of kernel, agent and lineage. 3: with the evidence of a shared result;
# only a caller that says that it knows it gets one.
_FORMAT: Final = 2
_SHARED_FORMAT: Final = 3
_KEY_ID: Final = re.compile(r"[0-9a-f]{32}")
_SIGNATURE_BYTES: Final = 64
# A Struct's number (a double) holds integers below this exactly.
_MAX_COUNT: Final = 1 << 53


@dataclass(frozen=True, slots=True)
class ResultOutput:
    """One output. `path` is spelled as in the command, relative to the working directory.

    The path of an output directory ends with "/", and its digest is that of its `Tree`.
    """

    path: str
    digest: Digest
    is_executable: bool = False

    @property
    def is_directory(self) -> bool:
        """Return whether this is an output directory."""
        return self.path.endswith("/")


@dataclass(frozen=True, slots=True)
class ResultSignature:
    """A signature (64 bytes), the id of its key, and its time in milliseconds since the epoch."""

    key_id: str
    signed_at_ms: int
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SharingEvidence:
    """Why a result may serve a whole tenant. `row` is the id of the audit row of its execution.

    `claims` are those that agree, for an agreed result.
    """

    sharing: SharingClass
    row: str
    claims: tuple[ResultClaim, ...] = ()

    @property
    def text(self) -> str:
        """The class, with the number of votes of an agreed result: the label of audit rows."""
        return f"{self.sharing}({len(self.claims)})" if self.claims else self.sharing.value


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRecord:
    """How an action ended and what ran it. Times are seconds since the epoch, UTC.

    `lineage_digest` covers what the worker stores beside the result for later audit rows. `inline`
    maps output paths to contents. `evidence` is None for a result that serves its principal only.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    outputs: tuple[ResultOutput, ...]
    isolation: Isolation
    reuse: GuestReuse
    guest_id: str
    guest_execs_before: int
    worker: str
    image: str
    reason: str = ""
    queued_at: float = 0.0
    started_at: float = 0.0
    completed_at: float = 0.0
    kernel_digest: str = ""
    agent_digest: str = ""
    lineage_digest: str = ""
    evidence: SharingEvidence | None = None
    signature: ResultSignature | None = None
    inline: Mapping[str, bytes] = field(default_factory=dict)


def encode_result(record: ResultRecord) -> bytes:
    """Encode a record canonically as an `ActionResult`, with `inline` contents beside digests."""
    message = pb.ActionResult(
        exit_code=record.exit_code, stdout_raw=record.stdout, stderr_raw=record.stderr
    )
    for output in sorted(record.outputs, key=lambda o: o.path.encode()):
        if output.is_directory:
            message.output_directories.add(
                path=output.path[:-1], tree_digest=digest_to_proto(output.digest)
            )
            continue
        message.output_files.add(
            path=output.path,
            digest=digest_to_proto(output.digest),
            is_executable=output.is_executable,
            contents=record.inline.get(output.path, b""),
        )
    metadata = message.execution_metadata
    metadata.worker = record.worker
    metadata.queued_timestamp.CopyFrom(_timestamp(record.queued_at))
    metadata.worker_start_timestamp.CopyFrom(_timestamp(record.started_at))
    metadata.execution_start_timestamp.CopyFrom(_timestamp(record.started_at))
    metadata.execution_completed_timestamp.CopyFrom(_timestamp(record.completed_at))
    metadata.worker_completed_timestamp.CopyFrom(_timestamp(record.completed_at))
    labels = Struct()
    labels.update(
        {
            "agent": record.agent_digest,
            "format": _FORMAT,
            "guest_execs_before": record.guest_execs_before,
            "guest_id": record.guest_id,
            "image": record.image,
            "isolation": record.isolation.value,
            "kernel": record.kernel_digest,
            "lineage": record.lineage_digest,
            "reason": record.reason,
            "reuse": record.reuse.value,
        }
    )
    if record.evidence is not None:
        labels.update(_evidence_labels(record.evidence))
    if record.signature is not None:
        labels.update(
            {
                "key": record.signature.key_id,
                "signature": base64.b64encode(record.signature.value).decode(),
                "signed_at_ms": record.signature.signed_at_ms,
            }
        )
    packed = Any(
        type_url="type.googleapis.com/google.protobuf.Struct",
        value=labels.SerializeToString(deterministic=True),
    )
    metadata.auxiliary_metadata.append(packed)
    return message.SerializeToString(deterministic=True)


def parse_result(data: bytes) -> ResultRecord:
    """Parse a stored record, or a worker's answer. The signature is not checked here.

    Raises:
        ReapiError: the bytes are not a result of hpcc in this format, or break a limit.
    """
    message = parse_message(pb.ActionResult, data, MAX_RESULT_BYTES)
    if max(len(message.output_files), len(message.output_directories)) > MAX_OUTPUTS:
        raise ReapiError(f"result has more than {MAX_OUTPUTS} outputs")
    if max(len(message.stdout_raw), len(message.stderr_raw)) > MAX_STDIO_BYTES:
        raise ReapiError("result's stdout or stderr is too large")
    labels = _labels(message)
    metadata = message.execution_metadata
    outputs = _outputs(message)
    if len({o.path.rstrip("/") for o in outputs}) != len(outputs):
        raise ReapiError("result names an output twice", reason="bad-path")
    try:
        return ResultRecord(
            exit_code=message.exit_code,
            stdout=message.stdout_raw,
            stderr=message.stderr_raw,
            outputs=outputs,
            isolation=Isolation(str(labels["isolation"])),
            reuse=GuestReuse(str(labels["reuse"])),
            guest_id=str(labels["guest_id"]),
            guest_execs_before=_count(labels["guest_execs_before"]),
            worker=metadata.worker,
            image=str(labels["image"]),
            reason=str(labels["reason"]),
            queued_at=_seconds(metadata.queued_timestamp),
            started_at=_seconds(metadata.execution_start_timestamp),
            completed_at=_seconds(metadata.execution_completed_timestamp),
            kernel_digest=str(labels["kernel"]),
            agent_digest=str(labels["agent"]),
            lineage_digest=str(labels["lineage"]),
            evidence=_evidence(labels),
            signature=_signature(labels),
            inline={
                o.path: o.contents
                for o in message.output_files
                if o.contents or not o.digest.size_bytes
            },
        )
    except (KeyError, ValueError) as error:
        raise ReapiError("result has no labels of hpcc", reason="foreign-result") from error


def _outputs(message: pb.ActionResult) -> tuple[ResultOutput, ...]:
    files = [
        ResultOutput(_path(o.path), digest_from_proto(o.digest), o.is_executable)
        for o in message.output_files
    ]
    directories = [
        ResultOutput(f"{_path(o.path)}/", digest_from_proto(o.tree_digest))
        for o in message.output_directories
    ]
    return (*files, *directories)


def _labels(message: pb.ActionResult) -> Mapping[str, object]:
    packed = message.execution_metadata.auxiliary_metadata
    labels = Struct()
    try:
        is_ours = len(packed) == 1 and packed[0].Unpack(labels)
        values = {name: _plain(value) for name, value in labels.items()}
    except (DecodeError, ValueError):  # the right type's name and other bytes, or a label unset
        is_ours = False
    if not is_ours:
        raise ReapiError("result has no labels of hpcc", reason="foreign-result")
    if values.get("format") not in {_FORMAT, _SHARED_FORMAT}:
        raise ReapiError("result has another format", reason="foreign-result")
    return values


def _evidence_labels(evidence: SharingEvidence) -> dict[str, str | int]:
    claims = encode_claims(evidence.claims) if evidence.claims else b""
    return {
        "claims": base64.b64encode(claims).decode(),
        "format": _SHARED_FORMAT,
        "row": evidence.row,
        "sharing": evidence.sharing.value,
    }


def _evidence(labels: Mapping[str, object]) -> SharingEvidence | None:
    if labels["format"] == _FORMAT:
        return None
    sharing = SharingClass(str(labels["sharing"]))
    try:
        claims = base64.b64decode(str(labels["claims"]), validate=True)
    except binascii.Error as error:
        raise ValueError("not claims") from error
    if sharing is SharingClass.PRIVATE:
        raise ValueError("a private result has no evidence")
    found = parse_claims(claims) if claims else ()
    return SharingEvidence(sharing=sharing, row=str(labels["row"]), claims=found)


def _signature(labels: Mapping[str, object]) -> ResultSignature | None:
    if "signature" not in labels:
        return None
    key_id = str(labels["key"])
    try:
        value = base64.b64decode(str(labels["signature"]), validate=True)
    except binascii.Error as error:
        raise ValueError("not a signature") from error
    if not _KEY_ID.fullmatch(key_id) or len(value) != _SIGNATURE_BYTES:
        raise ValueError("not a signature")
    return ResultSignature(key_id, _count(labels["signed_at_ms"]), value)


def _plain(value: object) -> object:
    return value if isinstance(value, str | float) else ""


def _count(value: object) -> int:
    if not isinstance(value, float) or not 0 <= value < _MAX_COUNT:
        raise ValueError("not a count")
    return int(value)


def _path(path: str) -> str:
    # REAPI allows `..` in an output path only as far as the command did. The caller that sent the
    # command compares the whole spelling, so this only checks that the path is bounded.
    try:
        return check_guest_path(path.replace("../", "")) and path
    except CallerError as error:
        raise ReapiError(str(error), reason="bad-path") from error


def _timestamp(seconds: float) -> Timestamp:
    # Milliseconds, as in the signed bytes, so that a parsed record encodes to the same bytes.
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return Timestamp(seconds=whole, nanos=milliseconds * 1_000_000)


def _seconds(stamp: Timestamp) -> float:
    milliseconds = stamp.seconds * 1000 + stamp.nanos // 1_000_000
    if not 0 <= milliseconds < _MAX_COUNT:
        raise ValueError("not a time")
    return milliseconds / 1000
