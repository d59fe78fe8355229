"""How hpcc interprets the error of a failed call."""

from __future__ import annotations

import grpc
import pytest
from buildgrid.common.protos.google.rpc import status_pb2

from hpcc.core import InfrastructureError
from hpcc.rpc.base.errors import DeadlineError, UnavailableError, error_of_call, error_of_status


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        # A server whose clock sees the deadline first ends the call before its caller does.
        (grpc.StatusCode.CANCELLED, DeadlineError, "deadline"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineError, "deadline"),
        (grpc.StatusCode.UNAVAILABLE, UnavailableError, UnavailableError.default_reason),
        (grpc.StatusCode.DATA_LOSS, InfrastructureError, InfrastructureError.default_reason),
    ],
)
def test_a_call_that_ends_without_an_answer_of_ours(
    code: grpc.StatusCode, kind: type[InfrastructureError], reason: str
) -> None:
    failed = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="x")
    error = error_of_call(failed)
    assert type(error) is kind
    assert error.reason == reason


@pytest.mark.parametrize(
    ("seconds_left", "kind"),
    [(-1.0, DeadlineError), (0.5, DeadlineError), (60.0, UnavailableError)],
)
def test_a_peer_that_stops_ends_a_call_that_had_time_left(
    seconds_left: float, kind: type[InfrastructureError]
) -> None:
    failed = grpc.aio.AioRpcError(
        grpc.StatusCode.CANCELLED, grpc.aio.Metadata(), grpc.aio.Metadata(), details="CANCELLED"
    )
    error = error_of_call(failed, seconds_left=seconds_left)
    assert type(error) is kind
    assert error.reason == kind.default_reason


@pytest.mark.parametrize("is_status", [False, True])
def test_a_peers_words_are_one_line_that_no_terminal_obeys(is_status: bool) -> None:
    text = "no\n2026-11-29 12:00:00 INFO the operator revoked it\x1b[2J" + "x" * 10_000
    if is_status:
        error = error_of_status(status_pb2.Status(code=14, message=text))
    else:
        failed = grpc.aio.AioRpcError(
            grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details=text
        )
        error = error_of_call(failed)
    assert str(error).isprintable()
    assert len(str(error)) <= 1_000
