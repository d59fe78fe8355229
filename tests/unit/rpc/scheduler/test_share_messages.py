"""Asks for places and their grants on the wire; each side bounds what the other sends."""

from __future__ import annotations

import pytest

from hpcc._proto import scheduler_pb2 as pb
from hpcc.core import CallerError, ImageDigest, Isolation, TenantId
from hpcc.rpc.scheduler.api import MAX_ASKS, MAX_SLOTS, Registration, ShareAsk, ShareGrants
from hpcc.rpc.scheduler.registration_messages import registration_message, registration_of
from hpcc.rpc.scheduler.share_messages import ask_message, asks_of, grants_message, grants_of

ACME = TenantId("acme")


def test_asks_and_grants_come_back() -> None:
    asks = (ShareAsk(ACME, "ann", 4, 2), ShareAsk(ACME, "bob", 0, 3))
    assert asks_of(ask_message("w1", asks)) == asks
    grants = ShareGrants({(ACME, "ann"): 4, (ACME, "bob"): 0}, 30.0, 2.0)
    assert grants_of(grants_message(grants)) == grants


def test_asks_are_bounded() -> None:
    many = pb.LeaseSharesRequest(asks=[pb.ShareAsk(tenant="acme", principal="a")] * (MAX_ASKS + 1))
    with pytest.raises(CallerError, match="at most"):
        asks_of(many)
    for principal in ("", "a\nb", "x" * 129):
        with pytest.raises(CallerError, match="principal"):
            asks_of(pb.LeaseSharesRequest(asks=[pb.ShareAsk(tenant="acme", principal=principal)]))
    with pytest.raises(CallerError):
        asks_of(pb.LeaseSharesRequest(asks=[pb.ShareAsk(tenant="../x", principal="a")]))
    huge = pb.ShareAsk(tenant="acme", principal="a", wanted=1 << 31, held=1 << 31)
    (ask,) = asks_of(pb.LeaseSharesRequest(asks=[huge]))
    assert (ask.wanted, ask.held) == (MAX_SLOTS, MAX_SLOTS)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf"), 1e12])
def test_times_of_an_answer_are_bounded(seconds: float) -> None:
    said = grants_of(pb.LeaseSharesResponse(seconds=seconds, renew_seconds=seconds))
    assert 0.1 <= said.seconds == said.renew_seconds <= 300.0


@pytest.mark.parametrize(
    ("shares", "leases", "sharing", "said"),
    [(False, False, False, 0), (True, False, False, 1), (True, True, False, 2), (True,) * 3 + (3,)],
)
def test_a_worker_says_which_claims_it_knows(
    shares: bool, leases: bool, sharing: bool, said: int
) -> None:
    registration = Registration(
        worker_id="w1", endpoint="h:1", certificate=b"c", isolation=Isolation.QEMU_TCG,
        images=(ImageDigest("sha256:" + "ab" * 32),), capacity=2, result_key=b"k",
        result_proof=b"p", knows_shares=shares, knows_leases=leases,
        knows_sharing=sharing,
    )  # fmt: skip
    message = registration_message(registration)
    assert message.token_format == said
    assert registration_of(message) == registration
