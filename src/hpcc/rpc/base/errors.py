"""Converts errors of hpcc to a gRPC status with details, and a status back to an error."""

from __future__ import annotations

import re
from typing import ClassVar, Final

import grpc
from buildgrid.common.protos.google.rpc import error_details_pb2, status_pb2
from google.protobuf.message import DecodeError, Message

from hpcc.core import (
    CallerError,
    Digest,
    HpccError,
    InfrastructureError,
    IntegrityError,
    NotFoundError,
    PolicyError,
)
from hpcc.obs.text import one_line

DETAILS_KEY: Final = "grpc-status-details-bin"
_DOMAIN: Final = "hpcc"
# Metadata is limited to 8 KiB. A client finds digests that do not fit with FindMissingBlobs.
_MAX_TRAILER_BYTES: Final = 6 << 10
_MAX_MESSAGE_CHARS: Final = 500
_REASON: Final = re.compile(r"[a-z0-9-]{1,64}")
_MISSING: Final = "MISSING"
# Two ends of a call may disagree by this about the time that is left.
_CLOCK_SECONDS: Final = 1.0
# What gRPC writes when no call came about, and what that means. gRPC's text follows, because it
# names the address.
_NO_CALL: Final = tuple(
    (re.compile(pattern), meaning)
    for pattern, meaning in (
        (
            r"DNS resolution failed|errors resolving",
            "its name has no address: look at the name and at DNS",
        ),
        (
            r"CERTIFICATE_VERIFY_FAILED",
            "it shows another certificate than the one that is configured here",
        ),
        (
            r"WRONG_VERSION_NUMBER|Handshake read failed",
            "it does not speak TLS: this is another service's port",
        ),
        (
            r"failed to connect to all addresses.*Socket closed",
            "it ends the connection: this is another port, or it refuses the certificate that it"
            " was shown",
        ),
        (r"No route to host", "there is no way to it: look at the network and at firewalls"),
        (r"Connection refused", "nobody listens there"),
        (
            r"^Method not found!$",
            "the server there has no such call: it is another port of hpcc, or another version",
        ),
    )
)


class UnauthenticatedError(PolicyError):
    """The credential is wrong or expired: the caller needs another one."""

    default_reason = "unauthenticated"


class UnavailableError(InfrastructureError):
    """The peer is not reachable now."""

    default_reason = "unavailable"


class DeadlineError(InfrastructureError):
    """The peer did not answer in time."""

    default_reason = "deadline"


class BusyError(InfrastructureError):
    """The peer has no room now; the caller may retry after `retry_after_seconds`."""

    default_reason = "busy"

    def __init__(
        self, message: str, *, retry_after_seconds: float, reason: str | None = None
    ) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_seconds = retry_after_seconds


class MissingBlobsError(CallerError):
    """Inputs were never uploaded or were evicted: the caller uploads `digests` and tries again."""

    default_reason: ClassVar[str] = "missing-blobs"

    def __init__(self, digests: tuple[Digest, ...]) -> None:
        super().__init__(f"{len(digests)} blobs are missing: upload them and try again")
        self.digests = digests


def code_of(error: HpccError) -> grpc.StatusCode:
    """Return the status code for an error. The code determines what the caller may do next."""
    match error:
        case MissingBlobsError():
            return grpc.StatusCode.FAILED_PRECONDITION
        case BusyError():
            return grpc.StatusCode.RESOURCE_EXHAUSTED
        case DeadlineError():
            return grpc.StatusCode.DEADLINE_EXCEEDED
        case UnauthenticatedError():
            return grpc.StatusCode.UNAUTHENTICATED
        case PolicyError():
            is_token = error.reason.startswith("token")
            return (
                grpc.StatusCode.UNAUTHENTICATED if is_token else grpc.StatusCode.PERMISSION_DENIED
            )
        case CallerError() | IntegrityError():
            return grpc.StatusCode.INVALID_ARGUMENT
        case NotFoundError():
            return grpc.StatusCode.NOT_FOUND
        case _:
            return grpc.StatusCode.UNAVAILABLE


def status_of(
    error: HpccError, *, max_bytes: int = 1 << 20, request_id: str = ""
) -> status_pb2.Status:
    """Build a `google.rpc.Status` whose details carry reason, missing blobs and retry time.

    `request_id` names the call in the server's security events, so that the refused caller can
    refer to it. Missing blobs stop after the one that exceeds `max_bytes`.
    """
    status = status_pb2.Status(
        code=code_of(error).value[0], message=str(error)[:_MAX_MESSAGE_CHARS]
    )
    _pack(status, error_details_pb2.ErrorInfo(reason=error.reason, domain=_DOMAIN))
    if request_id:
        _pack(status, error_details_pb2.RequestInfo(request_id=request_id))
    if isinstance(error, BusyError):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(error.retry_after_seconds * 1000))
        _pack(status, retry)
    if isinstance(error, MissingBlobsError):
        failure = error_details_pb2.PreconditionFailure()
        for digest in error.digests:
            failure.violations.add(type=_MISSING, subject=f"blobs/{digest}")
            if failure.ByteSize() > max_bytes:
                break
        _pack(status, failure)
    return status


def trailer_of(error: HpccError, *, request_id: str = "") -> tuple[tuple[str, bytes], ...]:
    """Return the trailing metadata that carries the status of an error, short enough for gRPC."""
    status = status_of(error, max_bytes=_MAX_TRAILER_BYTES // 2, request_id=request_id)
    return ((DETAILS_KEY, status.SerializeToString()),)


def error_of_status(status: status_pb2.Status) -> HpccError:
    """Return the error for a status that a peer sent. Malformed details are ignored."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    failure = error_details_pb2.PreconditionFailure()
    for detail in status.details[:16]:
        for message in (info, retry, failure):
            _unpack(detail, message)
    reason = info.reason if _REASON.fullmatch(info.reason) else None
    text = _peer_text(status.message)
    missing = _missing_of(failure)
    if missing:
        return MissingBlobsError(missing)
    delay = retry.retry_delay.ToMilliseconds() / 1000 if retry.HasField("retry_delay") else 1.0
    return _error(status.code, text, reason, delay)


def error_of_call(error: grpc.aio.AioRpcError, *, seconds_left: float = 0.0) -> HpccError:
    """Return the error for a failed call: from the status in its trailer, else from its code.

    `seconds_left` is the time that the call still had.
    """
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:
                break
            if status.code == error.code().value[0]:
                return error_of_status(status)
    code = error.code()
    if code is grpc.StatusCode.CANCELLED:
        # The caller did not cancel. A peer that notices the call's deadline first ends the call
        # with this code, when the caller's clock is slightly behind. A peer that stops does too.
        is_over = seconds_left < _CLOCK_SECONDS
        code = grpc.StatusCode.DEADLINE_EXCEEDED if is_over else grpc.StatusCode.UNAVAILABLE
    return _error(code.value[0], _peer_text(_plain_words(error.details() or "")), None, 1.0)


def _plain_words(text: str) -> str:
    """Put what happened before gRPC's text, which is long and names it last."""
    text = text[:_MAX_MESSAGE_CHARS]
    meaning = next((says for pattern, says in _NO_CALL if pattern.search(text)), "")
    return f"{meaning} ({text})" if meaning else text


def _peer_text(text: str) -> str:
    """Return the words of a peer as one bounded line: they reach logs and terminals."""
    return one_line(text[:_MAX_MESSAGE_CHARS])


def _error(code: int, text: str, reason: str | None, delay: float) -> HpccError:
    codes = grpc.StatusCode
    kinds: dict[int, type[HpccError]] = {
        codes.UNAUTHENTICATED.value[0]: UnauthenticatedError,
        codes.PERMISSION_DENIED.value[0]: PolicyError,
        codes.NOT_FOUND.value[0]: NotFoundError,
        codes.INVALID_ARGUMENT.value[0]: CallerError,
        codes.UNIMPLEMENTED.value[0]: CallerError,
        codes.OUT_OF_RANGE.value[0]: CallerError,
        codes.DEADLINE_EXCEEDED.value[0]: DeadlineError,
        codes.UNAVAILABLE.value[0]: UnavailableError,
    }
    if code == codes.RESOURCE_EXHAUSTED.value[0]:
        return BusyError(text, retry_after_seconds=min(max(delay, 0.0), 3600.0), reason=reason)
    return kinds.get(code, InfrastructureError)(text, reason=reason)


def _missing_of(failure: error_details_pb2.PreconditionFailure) -> tuple[Digest, ...]:
    found: list[Digest] = []
    for violation in failure.violations:
        if violation.type != _MISSING:
            continue
        try:
            found.append(Digest.parse(violation.subject.removeprefix("blobs/")))
        except CallerError:
            continue
    return tuple(found)


def _pack(status: status_pb2.Status, message: Message) -> None:
    status.details.add().Pack(message)


def _unpack(detail: object, message: Message) -> None:
    try:
        detail.Unpack(message)  # type: ignore[attr-defined]  # google.protobuf.Any of another stub set
    except DecodeError:
        message.Clear()
