"""Votes against a slow model. An attacker with too few voters never gets an agreement."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hpcc.core import GuestReuse, Isolation, SharingPolicy
from hpcc.reapi.agreement import VoteState, count_votes
from hpcc.reapi.claims import ResultClaim, Voter, encode_claims, parse_claims
from hpcc.reapi.limits import ReapiError

VOTERS = [letter * 32 for letter in "abcdef"]
RESULTS = [digit * 64 for digit in "123"]
KVM = Isolation.QEMU_KVM
CLAIMS = st.builds(
    ResultClaim,
    result=st.sampled_from(RESULTS),
    voter=st.builds(
        Voter, pseudonym=st.sampled_from(VOTERS), epoch=st.sampled_from(["k", "k", "l"])
    ),
    guest_id=st.sampled_from(["g1", "g2", "g3", "g4"]),
    execs_before=st.integers(0, 3),
    is_overlapped=st.booleans(),
    isolation=st.sampled_from([KVM, KVM, Isolation.QEMU_TCG]),
    reuse=st.sampled_from([GuestReuse.PRINCIPAL, GuestReuse.EXEC, GuestReuse.TENANT]),
    snapshot=st.just(""),
    row=st.just("e" * 32),
    made_at_ms=st.integers(0, 3),
    key_id=st.sampled_from(["0" * 32, "1" * 32, "2" * 32]),
    signature=st.sampled_from([b"s" * 64, b"t" * 64]),
)
POLICIES = st.builds(
    SharingPolicy,
    fresh=st.booleans(),
    agree=st.sampled_from([2, 2, 3]),
    across_workers=st.booleans(),
)


def reaches(claims: Sequence[ResultClaim], policy: SharingPolicy, result: str) -> bool:
    """Return whether any set of claims proves `result`, found by trying all of them."""
    fit = [c for c in claims if c.isolation is KVM and c.reuse is not GuestReuse.TENANT]
    fit = [c for c in fit if c.voter.epoch == "k"]
    said = {(c.voter.pseudonym, c.result) for c in fit}
    void = {v for v in VOTERS if sum(voter == v for voter, _ in said) > 1}
    mine = [c for c in fit if c.result == result and c.voter.pseudonym not in void]
    for chosen in itertools.combinations(mine, policy.agree):
        sets = [{c.voter.pseudonym for c in chosen}, {c.guest_id for c in chosen}]
        sets += [{c.key_id for c in chosen}] if policy.across_workers else []
        if all(len(s) == policy.agree for s in sets):
            return True
    return False


@given(st.lists(CLAIMS, max_size=7), POLICIES, st.integers(0, 99))
def test_what_agrees_is_proved_by_distinct_voters_guests_and_workers(
    claims: list[ResultClaim], policy: SharingPolicy, seed: int
) -> None:
    found = count_votes(claims, policy, isolation=KVM, epoch="k")
    proved = [r for r in RESULTS if reaches(claims, policy, r)]
    if found.state is VoteState.AGREED:
        # The count may miss an agreement, which costs an execution, and never invents one.
        (result,) = {c.result for c in found.claims}
        assert result in proved
        assert len({c.voter.pseudonym for c in found.claims}) == len(found.claims) >= policy.agree
    shuffled = random.Random(seed).sample(claims, len(claims))
    again = count_votes(shuffled, policy, isolation=KVM, epoch="k")
    assert (again.state, again.claims) == (found.state, found.claims)


@given(st.lists(CLAIMS, max_size=12), POLICIES, st.sets(st.sampled_from(VOTERS), max_size=2))
def test_an_attacker_with_fewer_voters_than_the_policy_asks_is_never_agreed_with(
    claims: list[ResultClaim], policy: SharingPolicy, rooted: set[str]
) -> None:
    """Rooted voters say what they like, everybody else says the truth."""
    rooted = set(sorted(rooted)[: policy.agree - 1])
    said = [c if c.voter.pseudonym in rooted else replace(c, result=RESULTS[0]) for c in claims]
    found = count_votes(said, policy, isolation=KVM, epoch="k")
    assert {c.result for c in found.claims} <= {RESULTS[0]}


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda b: b"hpcc-claims-1" + b))
def test_any_bytes_are_claims_or_are_refused(data: bytes) -> None:
    try:
        claims = parse_claims(data)
    except ReapiError:
        return
    assert encode_claims(claims) == data
