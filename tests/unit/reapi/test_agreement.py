"""Which claims agree, and which evidence is enough for a policy. Attacks have their names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpcc.core import (
    PRIVATE_ONLY,
    CallerError,
    Digest,
    GuestReuse,
    Isolation,
    SharingClass,
    SharingPolicy,
)
from hpcc.core.basis import FarmTerms
from hpcc.reapi.agreement import (
    VoteCount,
    VoteState,
    basis_of,
    check_sharing,
    count_votes,
    may_replace,
    result_digest,
)
from hpcc.reapi.claims import (
    MAX_CLAIMS,
    ResultClaim,
    Voter,
    encode_claims,
    parse_claims,
)
from hpcc.reapi.limits import ReapiError
from hpcc.reapi.result import (
    ResultOutput,
    ResultRecord,
    ResultSignature,
    SharingEvidence,
    encode_result,
    parse_result,
)

KVM = Isolation.QEMU_KVM
TWO = SharingPolicy(fresh=True, agree=2)
ACROSS = SharingPolicy(fresh=True, agree=2, across_workers=True)
EPOCH = "k-1"
ANN, BOB, CAROL, MALLORY = "a" * 32, "b" * 32, "c" * 32, "d" * 32
GOOD, EVIL, OTHER = "1" * 64, "2" * 64, "3" * 64
RECORD = ResultRecord(
    exit_code=0,
    stdout=b"",
    stderr=b"",
    outputs=(ResultOutput("a.o", Digest.of(b"a")),),
    isolation=KVM,
    reuse=GuestReuse.PRINCIPAL,
    guest_id="g-1",
    guest_execs_before=0,
    worker="w1",
    image="sha256:" + "ab" * 32,
)


def claim(
    voter: str = ANN, result: str = GOOD, *, guest: str = "", epoch: str = EPOCH, key: str = "1"
) -> ResultClaim:
    return ResultClaim(
        result=result,
        voter=Voter(pseudonym=voter, epoch=epoch),
        guest_id=guest or f"g-{voter[0]}",
        execs_before=7,
        is_overlapped=True,
        isolation=KVM,
        reuse=GuestReuse.PRINCIPAL,
        snapshot="sha256:5",
        row="e" * 32,
        made_at_ms=1000,
        key_id=key * 32,
        signature=b"s" * 64,
    )


def count(*claims: ResultClaim, policy: SharingPolicy = TWO, epoch: str = EPOCH) -> VoteCount:
    return count_votes(claims, policy, isolation=KVM, epoch=epoch)


def test_two_voters_with_one_result_agree() -> None:
    found = count(claim(ANN), claim(BOB))
    assert found.state is VoteState.AGREED
    assert {c.voter.pseudonym for c in found.claims} == {ANN, BOB}


def test_one_rooted_principal_keeps_its_result_and_others_agree_without_it() -> None:
    assert count(claim(MALLORY, EVIL)).state is VoteState.OPEN
    found = count(claim(MALLORY, EVIL), claim(ANN), claim(BOB))
    assert found.state is VoteState.AGREED
    assert {c.result for c in found.claims} == {GOOD}


def test_two_guests_of_one_principal_do_not_agree_with_each_other() -> None:
    found = count(claim(MALLORY, EVIL, guest="g-1"), claim(MALLORY, EVIL, guest="g-2"))
    assert found.state is VoteState.OPEN


def test_two_digests_from_one_voter_void_both() -> None:
    assert count(claim(ANN), claim(ANN, EVIL), claim(BOB)).state is VoteState.OPEN
    assert count(claim(ANN), claim(ANN, EVIL), claim(BOB), claim(CAROL)).state is VoteState.AGREED


def test_one_guest_does_not_vote_for_two_voters() -> None:
    assert count(claim(ANN, guest="g"), claim(BOB, guest="g")).state is VoteState.OPEN


def test_votes_of_two_epochs_do_not_count_together() -> None:
    assert count(claim(ANN), claim(BOB, epoch="k-2")).state is VoteState.OPEN
    assert count(claim(ANN), claim(BOB), epoch="k-2").state is VoteState.OPEN


def test_only_claims_of_equal_isolation_count_together() -> None:
    weak = replace(claim(BOB), isolation=Isolation.QEMU_TCG)
    assert count(claim(ANN), weak).state is VoteState.OPEN


def test_a_guest_that_a_whole_tenant_used_has_no_vote() -> None:
    assert count(claim(ANN), replace(claim(BOB), reuse=GuestReuse.TENANT)).state is VoteState.OPEN


def test_a_rogue_worker_with_a_valid_key_does_not_agree_with_itself_across_workers() -> None:
    assert count(claim(ANN), claim(BOB), policy=ACROSS).state is VoteState.OPEN
    assert count(claim(ANN), claim(BOB, key="2"), policy=ACROSS).state is VoteState.AGREED


def test_containers_of_one_kernel_are_one_vote() -> None:
    runc = Isolation.PROCESS_RUNC
    claims = [replace(claim(v), isolation=runc) for v in (ANN, BOB)]
    assert count_votes(claims, TWO, isolation=runc, epoch=EPOCH).state is VoteState.OPEN
    claims[1] = replace(claims[1], key_id="2" * 32)
    assert count_votes(claims, TWO, isolation=runc, epoch=EPOCH).state is VoteState.AGREED


def test_a_colluding_pair_agrees_and_a_third_vote_is_what_raises_the_price() -> None:
    pair = (claim(MALLORY, EVIL), claim(CAROL, EVIL))
    assert count(*pair).state is VoteState.AGREED  # documented: `agree` is the bound
    assert count(*pair, policy=SharingPolicy(agree=3)).state is VoteState.OPEN


def test_disagreement_is_no_veto_and_a_split_is_contested() -> None:
    assert count(claim(ANN), claim(BOB, EVIL)).state is VoteState.OPEN
    assert count(claim(ANN), claim(BOB, EVIL), claim(CAROL, OTHER)).state is VoteState.CONTESTED
    two_each = (claim(ANN), claim(BOB), claim(CAROL, EVIL), claim(MALLORY, EVIL))
    assert count(*two_each).state is VoteState.CONTESTED


def test_nothing_agrees_where_agreement_is_off() -> None:
    policy = SharingPolicy(fresh=True)
    assert count(claim(ANN), claim(BOB), policy=policy).state is VoteState.OPEN


def agreed(*voters: str, record: ResultRecord = RECORD) -> ResultRecord:
    claims = tuple(claim(v, result_digest(record)) for v in voters)
    evidence = SharingEvidence(sharing=SharingClass.AGREED, row="e" * 32, claims=claims)
    return replace(record, evidence=evidence)


FRESH = replace(RECORD, evidence=SharingEvidence(sharing=SharingClass.FRESH, row="e" * 32))


def is_enough(record: ResultRecord, policy: SharingPolicy) -> bool:
    try:
        check_sharing(record, policy)
    except ReapiError as error:
        assert error.reason == "result-sharing"
        return False
    return True


def test_the_evidence_of_a_shared_result_must_satisfy_the_policy() -> None:
    fresh_only = SharingPolicy(fresh=True)
    three = SharingPolicy(fresh=True, agree=3)
    assert [is_enough(FRESH, p) for p in (PRIVATE_ONLY, fresh_only, TWO, ACROSS)] == [
        False, True, True, False,
    ]  # fmt: skip
    two = agreed(ANN, BOB)
    assert [is_enough(two, p) for p in (PRIVATE_ONLY, fresh_only, TWO, ACROSS, three)] == [
        False, False, True, False, False,
    ]  # fmt: skip
    assert is_enough(agreed(ANN, BOB, CAROL), three)


@pytest.mark.parametrize("isolation", [KVM, Isolation.PROCESS_RUNC])
def test_the_basis_of_a_result_counts_where_the_result_does(isolation: Isolation) -> None:
    """A stored copy has only its basis, and must not be worth more than the result was."""
    own = replace(RECORD, isolation=isolation)
    fresh = replace(own, evidence=SharingEvidence(sharing=SharingClass.FRESH, row="0" * 32))
    of_two = _agreed_at(own, ("1", "1"))
    records = [own, fresh, of_two, _agreed_at(own, ("1", "2")), _agreed_at(own, ("1", "2", "2"))]
    for record in records:
        basis = basis_of(record)
        for policy in (PRIVATE_ONLY, SharingPolicy(fresh=True), TWO, ACROSS, replace(TWO, agree=3)):
            terms = FarmTerms(
                minimum_isolation=Isolation.LOCAL_NONE,
                guest_reuse=GuestReuse.PRINCIPAL,
                sharing=policy,
            )
            assert basis.counts(terms) == is_enough(record, policy), (basis, policy)


def _agreed_at(record: ResultRecord, keys: tuple[str, ...]) -> ResultRecord:
    claims = tuple(
        replace(claim(voter, result_digest(record), key=key), isolation=record.isolation)
        for voter, key in zip((ANN, BOB, CAROL), keys, strict=False)
    )
    evidence = SharingEvidence(sharing=SharingClass.AGREED, row="0" * 32, claims=claims)
    return replace(record, evidence=evidence)


def test_a_fresh_result_whose_guest_had_executed_before_is_refused() -> None:
    assert not is_enough(replace(FRESH, guest_execs_before=1), TWO)
    assert not is_enough(replace(FRESH, reuse=GuestReuse.TENANT), TWO)


def test_claims_of_another_result_do_not_carry_this_one() -> None:
    poisoned = replace(agreed(ANN, BOB), outputs=(ResultOutput("a.o", Digest.of(b"evil")),))
    assert not is_enough(poisoned, TWO)
    assert not is_enough(replace(agreed(ANN, BOB), stderr=b"note: all is well\n"), TWO)
    assert not is_enough(agreed(ANN, ANN), TWO)
    assert not is_enough(agreed(ANN), TWO)
    assert not is_enough(replace(agreed(ANN, BOB), isolation=Isolation.QEMU_TCG), TWO)


def test_a_shared_result_is_replaced_by_what_is_at_least_as_strong() -> None:
    two, three = agreed(ANN, BOB), agreed(ANN, BOB, CAROL)
    assert may_replace(FRESH, two)
    assert may_replace(FRESH, FRESH)
    assert may_replace(three, two)
    assert not may_replace(two, three)
    assert not may_replace(two, two)
    assert not may_replace(three, FRESH)
    assert not may_replace(RECORD, two)


def test_a_client_may_demand_more_than_the_tenant_grants_and_never_less() -> None:
    assert TWO.meet(PRIVATE_ONLY).is_private
    assert TWO.meet(SharingPolicy(fresh=True)) == SharingPolicy(fresh=True)
    assert TWO.meet(SharingPolicy(agree=3)) == SharingPolicy(agree=3)
    assert TWO.meet(ACROSS) == ACROSS
    assert SharingPolicy(fresh=True, across_workers=True).is_private


@pytest.mark.parametrize("policy", [PRIVATE_ONLY, TWO, ACROSS, SharingPolicy(agree=8)])
def test_a_policy_reads_as_it_is_written(policy: SharingPolicy) -> None:
    assert SharingPolicy.parse(policy.text) == policy


@pytest.mark.parametrize(
    "text",
    ["", "agree=1", "agree=9", "agree=2 fresh", "agree=٢", "fresh fresh", "agree=22", "x" * 99],
)
def test_another_text_is_no_policy(text: str) -> None:
    with pytest.raises(CallerError):
        SharingPolicy.parse(text)


def test_claims_and_shared_results_read_as_they_are_written() -> None:
    claims = tuple(claim(f"{n:032x}") for n in range(MAX_CLAIMS))
    assert parse_claims(encode_claims(claims)) == claims
    signature = ResultSignature("0" * 32, 5, b"s" * 64)
    for record in (FRESH, agreed(ANN, BOB), RECORD):
        signed = replace(record, signature=signature)
        assert parse_result(encode_result(signed)) == signed


def test_flooding_of_claims_is_bounded() -> None:
    flood = encode_claims(claim(f"{n:032x}") for n in range(MAX_CLAIMS + 1))
    with pytest.raises(ReapiError):
        parse_claims(flood)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hpcc-claims-1\0",
        b"hpcc-claims-1\0\5abc",
        b"hpcc-claims-2",
        encode_claims([claim()])[:-1],
        encode_claims([claim()]) + b"\0",
        encode_claims([replace(claim(), signature=b"")]),
        encode_claims([claim()]).replace(b"qemu/kvm", b"qemu/kvn"),
        encode_claims([claim()]).replace(b"overlapped", b"underlappe"),
    ],
)
def test_a_malformed_claim_is_refused(data: bytes) -> None:
    with pytest.raises(ReapiError) as refused:
        parse_claims(data)
    assert refused.value.reason == "claim-form"
