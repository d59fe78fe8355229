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


@pytest.mark.parametrize(
    ("details", "said"),
    [
        (
            "errors resolving s1.acme.example:7444: [field:hostname lookup error:address lookup"
            " failed for s1.acme.example:7444: Domain name not found]",
            "its name has no address: look at the name and at DNS (errors resolving s1.acme.exa",
        ),
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:7443: Tls"
            " handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL"
            " routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: self signed certificate: OK",
            "it shows another certificate than the one that is configured here (failed to",
        ),
        (
            "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:10.0.0.1:7444:"
            " Socket closed",
            "it ends the connection: this is another port, or it refuses the certificate",
        ),
        (
            "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:10.0.0.1:9464:"
            " Handshake read failed (Socket closed)",
            "it does not speak TLS",
        ),
        ("Socket closed", "Socket closed"),
        ("connect: Connection refused (111)", "nobody listens there (connect: Conn"),
        ("the worker says no", "the worker says no"),
    ],
)
def test_a_connection_that_does_not_come_about_is_explained(details: str, said: str) -> None:
    failed = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details
    )
    assert str(error_of_call(failed)).startswith(said)


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
