"""What an engine may send, and what it gets."""

from __future__ import annotations

import grpc
import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.google.devtools.remoteworkers.v1test2 import bots_pb2 as bots

from hpcc.core import CallerError, Digest, HpccError, InfrastructureError, IntegrityError
from hpcc.reapi.limits import MAX_ACTION_BYTES, ReapiError
from hpcc.rpc.base.errors import BusyError, DeadlineError, MissingBlobsError
from hpcc.rpc.engine.messages import (
    MAX_LEASES,
    Bot,
    BotStatus,
    EngineSession,
    LeaseEnd,
    LeaseReport,
    LeaseState,
    parse_session,
    properties_of,
    session_message,
)

ACTION = pb.Action(salt=b"s")


def session(*leases: bots.Lease, name: str = "main/1", version: str = "3") -> bots.BotSession:
    return bots.BotSession(name=name, version=version, leases=leases)


def leased(name: str = "main/a", state: int = 2) -> bots.Lease:
    lease = bots.Lease(id=name, state=state)  # type: ignore[arg-type]  # any number
    lease.payload.Pack(ACTION)
    return lease


def test_a_session_is_read() -> None:
    message = session(leased())
    message.expire_time.seconds = 7
    found = parse_session(message.SerializeToString())
    assert (found.name, found.version, found.expires_at) == ("main/1", "3", 7.0)
    (lease,) = found.leases
    assert (lease.id, lease.state, lease.fault) == ("main/a", LeaseState.ACTIVE, "")
    assert lease.action == ACTION.SerializeToString()


def test_a_payload_may_be_the_digest_of_an_action() -> None:
    lease, digest = bots.Lease(id="a", state=bots.LeaseState.PENDING), Digest.of(b"x")
    lease.payload.Pack(pb.Digest(hash=digest.hash, size_bytes=digest.size_bytes))
    (found,) = parse_session(session(lease).SerializeToString()).leases
    assert (found.digest, found.action) == (digest, b"")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: setattr(p, "value", bytes(MAX_ACTION_BYTES + 1)), "over"),
        (lambda p: p.Pack(pb.Command()), "no action"),
        (lambda p: p.Pack(pb.Digest(hash="x", size_bytes=1)), "SHA-256"),
        (lambda p: setattr(p, "type_url", "x/build.bazel.remote.execution.v2.Digest"), ""),
    ],
)
def test_a_bad_payload_is_the_fault_of_its_lease_alone(change: object, says: str) -> None:
    lease = leased()
    change(lease.payload)  # type: ignore[operator]  # a row's function
    first, second = parse_session(session(lease, leased("b")).SerializeToString()).leases
    assert says.lower() in first.fault.lower()
    assert first.fault
    assert not second.fault


@pytest.mark.parametrize(
    "bad",
    [
        b"\xff" * 9,
        session(name="").SerializeToString(),
        session(name="a\nb").SerializeToString(),
        session(name="n" * 2000).SerializeToString(),
        session(leased(""), name="n").SerializeToString(),
        session(leased("a\x1b[2J")).SerializeToString(),
        session(leased("a" * 300)).SerializeToString(),
        session(leased("a"), leased("a")).SerializeToString(),
        session(leased(state=0)).SerializeToString(),
        session(leased(state=3)).SerializeToString(),
        session(*(leased(str(n)) for n in range(MAX_LEASES + 1))).SerializeToString(),
    ],
)
def test_an_answer_that_breaks_a_rule_is_refused(bad: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        parse_session(bad)
    assert caught.value.reason == "engine-protocol"
    assert str(caught.value).isprintable()


def test_a_bot_says_what_it_is_and_what_it_holds() -> None:
    bot = Bot(
        bot_id="w1", status=BotStatus.OK, capacity=3,
        properties=properties_of(["docker://r@sha256:1"], "linux", "x86-64", "fast"),
        leases=(LeaseReport("a"), LeaseReport("b", LeaseEnd(result=b"res"))),
    )  # fmt: skip
    known = EngineSession(name="main/1", version="9", leases=(), expires_at=0.0)
    message = session_message(bot, known)
    assert (message.name, message.version, message.bot_id) == ("main/1", "9", "w1")
    (device,) = message.worker.devices
    assert [(p.key, p.value) for p in device.properties] == [
        ("container-image", "docker://r@sha256:1"),
        ("OSFamily", "linux"),
        ("ISA", "x86-64"),
        ("Pool", "fast"),
    ]
    assert [(c.key, c.value) for c in message.worker.configs] == [("capacity", "3")]
    a, b = message.leases
    assert (a.state, a.HasField("payload")) == (bots.LeaseState.ACTIVE, False)
    assert (b.state, b.status.code, b.result.value) == (bots.LeaseState.COMPLETED, 0, b"res")
    assert b.result.Is(pb.ActionResult.DESCRIPTOR)
    first = session_message(bot, None)
    assert (first.name, first.version) == ("", "")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        # Given out again.
        (InfrastructureError("x"), "UNAVAILABLE"),
        (BusyError("x", retry_after_seconds=1.0), "UNAVAILABLE"),
        (DeadlineError("x"), "UNAVAILABLE"),
        # Not given out again.
        (DeadlineError("x", reason="compile-deadline"), "DEADLINE_EXCEEDED"),
        (InfrastructureError("x", reason="guest-no-such-program"), "FAILED_PRECONDITION"),
        (InfrastructureError("x", reason="guest-memory"), "FAILED_PRECONDITION"),
        (MissingBlobsError((Digest.of(b"x"),)), "FAILED_PRECONDITION"),
        (ReapiError("x", reason="platform"), "FAILED_PRECONDITION"),
        (ReapiError("x", reason="foreign-image"), "FAILED_PRECONDITION"),
        (CallerError("x"), "INVALID_ARGUMENT"),
        (IntegrityError("x"), "INVALID_ARGUMENT"),
    ],
)
def test_an_error_has_the_code_that_decides_whether_another_bot_tries(
    error: HpccError, code: str
) -> None:
    report = LeaseReport("a", LeaseEnd(error=error))
    bot = Bot(bot_id="w", status=BotStatus.OK, capacity=1, properties=(), leases=(report,))
    (lease,) = session_message(bot, None).leases
    assert lease.state == bots.LeaseState.COMPLETED
    assert lease.status.code == grpc.StatusCode[code].value[0]
    assert lease.status.message
    assert not lease.HasField("result")
