"""Frames between the daemon and its dispatcher process: bounded, multiplexed by request id.

Frame: length u32, kind u8, request id u64, head length u32, head (JSON), blobs back to back.
Both ends are ours, so a malformed frame ends the connection.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from hpcc.core import (
    CallerError,
    Digest,
    FarmRun,
    Isolation,
    RemoteFailure,
    RemoteInput,
    RemoteOutcome,
    RemoteOutput,
    RemoteRequest,
    RemoteResult,
    RunHere,
    SharedInputs,
)
from hpcc.core.reasons.fallback import FallbackReason

# One object of MAX_OUTPUT_BYTES and what is sent with it.
MAX_FRAME_BYTES: Final = 640 << 20
# The reason if a request names shared inputs that the dispatcher does not have; the daemon then
# sends it again with the inputs.
UNKNOWN_INPUTS: Final = "unknown-inputs"
_PREFIX: Final = struct.Struct(">IBQI")
LENGTH: Final = struct.Struct(">I")
_HEAD: Final = struct.Struct(">BQI")


class FrameKind(IntEnum):
    """What a frame carries. OUTCOME and REPORTED come back, all others go to the dispatcher.

    ENDED: a compile whose outcome was `RunHere` has ended. REPORT: what the farm gets of a
    build, and REPORTED: why it was not taken, "" if it was.
    """

    COMPILE = 1
    CANCEL = 2
    OUTCOME = 3
    ENDED = 4
    REPORT = 5
    REPORTED = 6


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame without its length."""

    kind: FrameKind
    request_id: int
    head: Mapping[str, Any]
    body: bytes


def encode_frame(
    kind: FrameKind, request_id: int, head: Mapping[str, object], *blobs: bytes
) -> bytes:
    """Encode a frame with its length.

    Raises:
        CallerError: it is larger than `MAX_FRAME_BYTES` (reason `frame-size`).
    """
    return _frame(kind, request_id, json.dumps(head, separators=(",", ":")).encode(), blobs)


def _frame(kind: FrameKind, request_id: int, raw: bytes, blobs: Sequence[bytes]) -> bytes:
    body = b"".join(blobs)
    length = _PREFIX.size - LENGTH.size + len(raw) + len(body)
    if length > MAX_FRAME_BYTES:
        raise CallerError(f"a compile of {length} bytes is too large to send", reason="frame-size")
    return _PREFIX.pack(length, kind, request_id, len(raw)) + raw + body


def decode_frame(payload: bytes) -> Frame:
    """Decode the bytes that follow a frame's length.

    Raises:
        CallerError: they are not a frame.
    """
    try:
        kind, request_id, head_size = _HEAD.unpack_from(payload)
        head = json.loads(payload[_HEAD.size : _HEAD.size + head_size])
        frame = Frame(FrameKind(kind), request_id, head, payload[_HEAD.size + head_size :])
    except (ValueError, RecursionError, struct.error) as error:
        raise CallerError("malformed frame", reason="frame") from error
    if not isinstance(head, dict):
        raise CallerError("malformed frame", reason="frame")
    return frame


def encode_request(request_id: int, request: RemoteRequest, *, with_shared: bool = True) -> bytes:
    """Encode a compile; leave the shared inputs out for a dispatcher that has them already.

    Raises:
        CallerError: argv, env or a path is not UTF-8, or the frame is too large.
    """
    shared = request.shared
    encoded = shared.encoded if shared is not None and with_shared else b""
    text = None if shared is None else shared.text
    head = {
        "argv": request.argv,
        "env": request.env,
        "cwd": request.cwd,
        "inputs": [_input(i) for i in (request.inputs if shared is None else shared.own)],
        "outputs": request.outputs,
        "directories": request.directories,
        "injected": request.injected,
        "client_version": request.client_version,
        "toolchain": request.toolchain,
        "folds_case": request.folds_case,
        "may_run_here": request.may_run_here,
        "build": request.build,
        "wants_entry": request.wants_entry,
        "needs_exact": request.needs_exact,
        "packed": len(request.packed),
        "shared": None if shared is None else [shared.name.hex(), len(encoded), text is not None],
    }
    blobs = (request.packed, encoded, text or b"")
    return _frame(FrameKind.COMPILE, request_id, _json(head), blobs)


def _input(item: RemoteInput) -> tuple[str, str, bool, str]:
    return item.path, item.host_path, item.is_executable, item.sha256


def encode_inputs(inputs: Iterable[tuple[RemoteInput, int]]) -> bytes:
    """Encode inputs with their sizes in bytes for `SharedInputs`; equal inputs give equal bytes.

    Raises:
        CallerError: a path is not UTF-8.
    """
    rows = [[i.path, i.host_path, i.sha256, size] for i, size in inputs]
    return _json(rows)


def decode_inputs(encoded: bytes) -> list[tuple[str, str, Digest]]:
    """Return path, host path and digest of each input; the reverse of `encode_inputs`.

    Raises:
        CallerError: the bytes are malformed.
    """
    try:
        return [
            (path, host_path, Digest(sha256, size))
            for path, host_path, sha256, size in json.loads(encoded)
        ]
    except (ValueError, TypeError) as error:
        raise CallerError("malformed inputs", reason="frame") from error


def _json(value: object) -> bytes:
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise CallerError(
            "argv, env or a path is not UTF-8", reason=FallbackReason.NOT_UTF_8
        ) from error


def request_of(frame: Frame) -> RemoteRequest:
    """Decode a compile. If it has shared inputs, `inputs` holds only the others."""
    head, packed = frame.head, frame.head["packed"]
    inputs = tuple(RemoteInput(*item) for item in head["inputs"])
    return RemoteRequest(
        argv=tuple(head["argv"]),
        env=tuple((n, v) for n, v in head["env"]),
        cwd=head["cwd"],
        inputs=inputs,
        outputs=tuple(head["outputs"]),
        directories=tuple(head["directories"]),
        injected=tuple(head["injected"]),
        client_version=head["client_version"],
        toolchain=head["toolchain"],
        folds_case=head["folds_case"],
        may_run_here=head.get("may_run_here", "off"),
        build=head["build"],
        packed=frame.body[:packed],
        wants_entry=head["wants_entry"],
        needs_exact=head["needs_exact"],
        shared=_shared(head["shared"], frame.body[packed:], inputs),
    )


def _shared(
    said: tuple[str, int, bool] | None, body: bytes, own: tuple[RemoteInput, ...]
) -> SharedInputs | None:
    if said is None:
        return None
    name, size, has_text = said
    return SharedInputs(body[:size], own, bytes.fromhex(name), body[size:] if has_text else None)


def encode_outcome(request_id: int, outcome: RemoteOutcome) -> bytes:
    """Encode an outcome; a result that is too large becomes a failure `frame-size`."""
    if isinstance(outcome, RemoteFailure):
        head: dict[str, object] = {"reason": outcome.reason, "message": outcome.message}
        return encode_frame(FrameKind.OUTCOME, request_id, head)
    if isinstance(outcome, RunHere):
        return encode_frame(FrameKind.OUTCOME, request_id, {"run_here": True})
    head = {
        "exit_code": outcome.exit_code,
        "is_cached": outcome.is_cached,
        "isolation": outcome.isolation.value,
        "action": outcome.action,
        "sharing": outcome.sharing,
        "basis": outcome.basis,
        "pack": outcome.pack,
        "ran": None if outcome.ran is None else _run(outcome.ran),
        "sizes": [len(outcome.stdout), len(outcome.stderr), len(outcome.entry)],
        "outputs": [[o.path, o.is_executable, len(o.data)] for o in outcome.outputs],
    }
    texts = (outcome.stdout, outcome.stderr, outcome.entry)
    blobs = (*texts, *(o.data for o in outcome.outputs))
    try:
        return encode_frame(FrameKind.OUTCOME, request_id, head, *blobs)
    except CallerError as error:
        return encode_outcome(request_id, RemoteFailure(error.reason, str(error)))


def _run(ran: FarmRun) -> tuple[str, str, float, float]:
    return ran.worker, ran.guest, ran.waited_seconds, ran.ran_seconds


def outcome_of(frame: Frame) -> RemoteOutcome:
    """Decode an outcome; the end of a `RunHere` is reported by its receiver.

    Raises:
        CallerError: it is malformed.
    """
    head = frame.head
    try:
        if "reason" in head:
            return RemoteFailure(str(head["reason"]), str(head["message"]))
        if "run_here" in head:
            return RunHere(lambda _is_compiled: None)
        sizes = [*head["sizes"], *(size for _, _, size in head["outputs"])]
        parts: list[bytes] = []
        offset = 0
        for size in sizes:
            parts.append(frame.body[offset : offset + size])
            offset += size
        stdout, stderr, entry, *contents = parts
        return RemoteResult(
            exit_code=head["exit_code"],
            stdout=stdout,
            stderr=stderr,
            outputs=tuple(
                RemoteOutput(path, data, is_executable)
                for (path, is_executable, _), data in zip(head["outputs"], contents, strict=True)
            ),
            is_cached=head["is_cached"],
            isolation=Isolation(head["isolation"]),
            action=head["action"],
            sharing=head["sharing"],
            basis=head["basis"],
            entry=entry,
            pack=head["pack"],
            ran=None if head["ran"] is None else FarmRun(*head["ran"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CallerError("malformed outcome", reason="frame") from error
