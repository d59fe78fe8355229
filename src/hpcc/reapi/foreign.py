"""Results of foreign REAPI services: no labels, no signature, and stdout may be a blob."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb

from hpcc.core import EMPTY_DIGEST, MAX_OUTPUTS, Blob, Digest
from hpcc.reapi.digests import digest_from_proto, digest_to_proto, parse_message
from hpcc.reapi.limits import MAX_RESULT_BYTES, ReapiError
from hpcc.reapi.result import ResultOutput

ENTRY_COMMAND: Final = "hpcc-remote-cache-entry"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignResult:
    """How an action ended, as a service that the user chose reports it. It is not signed.

    Each of stdout and stderr is present as bytes, or has a digest.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    stdout_digest: Digest | None
    stderr_digest: Digest | None
    outputs: tuple[ResultOutput, ...]
    inline: Mapping[str, bytes] = field(default_factory=dict)


def parse_foreign_result(data: bytes) -> ForeignResult:
    """Parse an `ActionResult` of any service. Symlinks and directories are left out.

    Raises:
        ReapiError: the bytes are not a result, break a limit, or name an output twice.
    """
    message = parse_message(pb.ActionResult, data, MAX_RESULT_BYTES)
    if len(message.output_files) > MAX_OUTPUTS:
        raise ReapiError(f"result has more than {MAX_OUTPUTS} outputs")
    outputs = tuple(
        ResultOutput(o.path, digest_from_proto(o.digest), o.is_executable)
        for o in message.output_files
    )
    if len({o.path for o in outputs}) != len(outputs):
        raise ReapiError("result names an output twice")
    stdout_named = message.stdout_digest if message.HasField("stdout_digest") else None
    stderr_named = message.stderr_digest if message.HasField("stderr_digest") else None
    stdout, stdout_digest = _stream(message.stdout_raw, stdout_named)
    stderr, stderr_digest = _stream(message.stderr_raw, stderr_named)
    return ForeignResult(
        exit_code=message.exit_code,
        stdout=stdout,
        stderr=stderr,
        stdout_digest=stdout_digest,
        stderr_digest=stderr_digest,
        outputs=outputs,
        inline={o.path: o.contents for o in message.output_files if o.contents},
    )


def encode_entry_result(entry: bytes, blob: Digest | None) -> bytes:
    """Encode an action cache entry as a result that any service stores.

    The entry is the result's stdout, or `blob` names the blob that holds it.
    """
    message = pb.ActionResult(stdout_raw=b"" if blob else entry)
    if blob:
        message.stdout_digest.CopyFrom(digest_to_proto(blob))
    message.execution_metadata.worker = "hpcc"
    return message.SerializeToString(deterministic=True)


def entry_action(key: str) -> tuple[Blob, Blob]:
    """Return a command and an action that stand for a key of an object.

    REAPI asks a client to upload both before their result. Who finds them in a service reads
    what they are for. No compile has this command, and running it fails.
    """
    command = pb.Command(arguments=[ENTRY_COMMAND, key])
    named = Blob.of(command.SerializeToString(deterministic=True))
    action = pb.Action(
        command_digest=digest_to_proto(named.digest),
        input_root_digest=digest_to_proto(EMPTY_DIGEST),
    )
    return named, Blob.of(action.SerializeToString(deterministic=True))


def _stream(raw: bytes, named: pb.Digest | None) -> tuple[bytes, Digest | None]:
    """Return a stream's bytes, and its digest if it is a blob.

    Raises:
        ReapiError: the blob is too large.
    """
    digest = digest_from_proto(named) if named is not None and not raw else None
    if digest is not None and digest.size_bytes > MAX_RESULT_BYTES:
        raise ReapiError("result's stdout or stderr is too large")
    return raw, digest if digest is not None and digest.size_bytes else None
