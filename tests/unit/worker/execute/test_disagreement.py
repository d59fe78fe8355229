"""Who is a suspect when results differ: nobody before two fresh executions gave the same."""

from __future__ import annotations

from hpcc.core import Digest, GuestReuse, ImageDigest, Isolation, TenantId
from hpcc.reapi.claims import MAX_CLAIMS, ResultClaim, Voter
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.execute.disagreement import Agreement, Disagreements, FreshRun

ACTION = Digest.of(b"a")
DOMAIN = TrustDomain.of(
    tenant=TenantId("acme"), image=ImageDigest("sha256:" + "ab" * 32),
    isolation=Isolation.QEMU_KVM, reuse=GuestReuse.PRINCIPAL, principal="ann",
)  # fmt: skip
GOOD, EVIL = "1" * 64, "2" * 64


def claim(voter: str, result: str) -> ResultClaim:
    return ResultClaim(
        result=result,
        voter=Voter(pseudonym=voter * 32, epoch="k"),
        guest_id=f"g-{voter}",
        execs_before=7,
        is_overlapped=False,
        isolation=Isolation.QEMU_KVM,
        reuse=GuestReuse.PRINCIPAL,
        snapshot="",
        row="e" * 32,
        made_at_ms=1000,
        key_id="1" * 32,
        signature=b"s" * 64,
    )


def fresh(guest: str, result: str = GOOD) -> FreshRun:
    return FreshRun(result=result, guest_id=guest, row=guest * 32)


ANN, BOB, MALLORY = claim("a", GOOD), claim("b", GOOD), claim("d", EVIL)


def test_a_majority_makes_nobody_a_suspect() -> None:
    found = Disagreements()
    assert found.add_claims(DOMAIN, ACTION, [ANN, BOB, MALLORY]) is Agreement.OPEN
    assert found.suspects(DOMAIN, ACTION) == ((), ())


def test_one_fresh_execution_makes_nobody_a_suspect_and_one_guest_is_not_two() -> None:
    found = Disagreements()
    found.add_claims(DOMAIN, ACTION, [ANN, MALLORY])
    for _ in range(2):
        assert found.add_fresh(DOMAIN, ACTION, fresh("1")) is Agreement.OPEN
    assert found.suspects(DOMAIN, ACTION) == ((), ())


def test_after_two_equal_fresh_executions_who_differs_is_a_suspect_once() -> None:
    found = Disagreements()
    found.add_claims(DOMAIN, ACTION, [ANN, MALLORY])
    found.add_fresh(DOMAIN, ACTION, fresh("1"))
    assert found.add_fresh(DOMAIN, ACTION, fresh("2")) is Agreement.REPEATED
    (suspect,), runs = found.suspects(DOMAIN, ACTION)
    assert suspect == MALLORY
    assert {run.guest_id for run in runs} == {"1", "2"}
    found.named(DOMAIN, ACTION, suspect)
    assert found.suspects(DOMAIN, ACTION)[0] == ()


def test_a_claim_that_comes_after_the_fresh_executions_is_a_suspect_too() -> None:
    found = Disagreements()
    for guest in "12":
        assert found.add_fresh(DOMAIN, ACTION, fresh(guest)) is Agreement.EQUAL
    assert found.add_claims(DOMAIN, ACTION, [MALLORY]) is Agreement.REPEATED
    assert found.suspects(DOMAIN, ACTION)[0] == (MALLORY,)


def test_of_an_action_whose_fresh_executions_differ_nobody_is_a_suspect() -> None:
    found = Disagreements()
    found.add_claims(DOMAIN, ACTION, [ANN, MALLORY])
    found.add_fresh(DOMAIN, ACTION, fresh("1"))
    assert found.add_fresh(DOMAIN, ACTION, fresh("2", EVIL)) is Agreement.RANDOM
    assert found.suspects(DOMAIN, ACTION) == ((), ())


def test_flooding_of_claims_takes_bounded_memory() -> None:
    found = Disagreements()
    for number in range(4 * MAX_CLAIMS):
        found.add_claims(DOMAIN, ACTION, [claim("a", f"{number:064x}")])
    for guest in "12":
        found.add_fresh(DOMAIN, ACTION, fresh(guest))
    assert len(found.suspects(DOMAIN, ACTION)[0]) == MAX_CLAIMS


def test_the_standing_of_an_action_is_what_fresh_executions_gave() -> None:
    found = Disagreements()
    assert found.standing(DOMAIN, ACTION) == (Agreement.EQUAL, "")
    found.add_claims(DOMAIN, ACTION, [MALLORY])
    found.add_fresh(DOMAIN, ACTION, fresh("1"))
    assert found.standing(DOMAIN, ACTION) == (Agreement.OPEN, "")
    found.add_fresh(DOMAIN, ACTION, fresh("2"))
    assert found.standing(DOMAIN, ACTION) == (Agreement.REPEATED, GOOD)
    assert found.standing(DOMAIN, Digest.of(b"other")) == (Agreement.EQUAL, "")
