"""Whose result an idle worker executes again next."""

from __future__ import annotations

from hpcc.core import Digest, GuestReuse, ImageDigest, Isolation, SharingPolicy, TenantId
from hpcc.identity.token import RouteSharing
from hpcc.rpc.reapi.session import Client
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.execute.turns import _MAX_EACH, _MAX_VOTERS, Candidate, Turns


def candidate(voter: str, name: str, seconds: float = 1.0, *claimants: str) -> Candidate:
    return Candidate(
        action=Digest.of(name.encode()),
        domain=TrustDomain.of(
            tenant=TenantId("acme"), image=ImageDigest("sha256:" + "ab" * 32),
            isolation=Isolation.QEMU_KVM, reuse=GuestReuse.PRINCIPAL, principal=voter,
        ),
        sharing=RouteSharing(
            policy=SharingPolicy(fresh=True, agree=2), voter=voter, verify_seconds=60
        ),
        principal=voter,
        client=Client(credential="", instance="acme"),
        client_version="t",
        result="1" * 64,
        seconds=seconds,
        claimants=claimants,
    )  # fmt: skip


def order(turns: Turns) -> list[Candidate]:
    found = []
    while (one := turns.take()) is not None:
        found.append(one)
    return found


def test_voters_take_equal_turns_whoever_has_more() -> None:
    turns = Turns()
    for number in range(3):
        turns.add(candidate("ann", f"a{number}"))
    turns.add(candidate("bob", "b"))
    assert [c.principal for c in order(turns)] == ["ann", "bob", "ann", "ann"]
    assert len(turns) == 0


def test_what_differs_comes_first_and_then_what_took_longest() -> None:
    turns = Turns()
    made = [candidate("ann", "1", 1.0), candidate("ann", "2", 5.0), candidate("ann", "3", 0.1, "v")]
    for one in made:
        turns.add(one)
    assert order(turns) == [made[2], made[1], made[0]]


def test_flooding_by_one_voter_or_by_many_takes_bounded_room_and_drops_the_cheapest() -> None:
    turns = Turns()
    for number in range(_MAX_EACH):
        assert turns.add(candidate("ann", str(number), 1.0 + number))
    assert not turns.add(candidate("ann", "cheap", 0.5))
    assert len(turns) == _MAX_EACH
    assert all(c.seconds >= 1.0 for c in order(turns))
    added = [turns.add(candidate(f"v{number}", "x")) for number in range(_MAX_VOTERS + 5)]
    assert added.count(True) == len(turns) == _MAX_VOTERS
