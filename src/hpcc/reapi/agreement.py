"""Decides when a result may serve a whole tenant. Pure: claims in, a decision out.

Problem: a member of a tenant may have rooted the guest that runs that member's compiles. Whatever
such a guest gives must not reach a colleague. Running each compile in a fresh guest would settle
that, and costs a restore per compile.

Rule: a result serves the tenant if one of these holds.

- `fresh`: its guest had executed nothing since it was booted or restored, and ran nothing beside
  it. The worker's own counters say so, never the guest.
- `agreed`: `agree` voters have claims with the same digest of everything that a caller gets.

Votes are counted as follows.

- A voter has one vote. A voter with two results for one action has none.
- Only claims of one epoch and one isolation count together, from guests with reuse "exec" or
  "principal", each guest once.
- Where containers share a kernel, or the policy says so (`across_workers`), each signing key
  counts once too, and a fresh result is one vote.
- Others cannot veto by disagreement. A result serves when enough voters made it, whatever others
  made. If two results have enough votes, or three voters gave no agreement, the action is
  contested, and one fresh execution settles it.

Example: Mallory's rooted guest gives D1. Ann's and Bob's guests give D2. D2 has two votes and
serves everybody. D1 has one and serves Mallory.

What must never happen: two guests of one principal agree with each other; a claim without a valid
signature counts; a checker takes the word of the worker that promoted a result instead of the
claims in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hpcc.core import PRIVATE_ONLY, GuestReuse, Isolation, SharingClass, SharingPolicy
from hpcc.core.basis import ResultBasis
from hpcc.reapi.claims import ResultClaim, encode_claims
from hpcc.reapi.limits import ReapiError
from hpcc.reapi.result import ResultRecord

_RESULT_TAG: Final = b"hpcc-claimed-result-1"
# Below this rank guests share the kernel of their host.
_OWN_KERNEL_RANK: Final = 3
# So many voters without an agreement make an action contested.
_CONTESTED_VOTERS: Final = 3
_VOTING: Final = frozenset({GuestReuse.EXEC, GuestReuse.PRINCIPAL})


class VoteState(StrEnum):
    """What the votes on an action say."""

    OPEN = "open"
    AGREED = "agreed"
    # Votes will not settle it: a fresh execution does.
    CONTESTED = "contested"


@dataclass(frozen=True, slots=True)
class VoteCount:
    """The state, and the claims that agree; empty unless the state is AGREED."""

    state: VoteState
    claims: tuple[ResultClaim, ...] = ()


def result_digest(record: ResultRecord) -> str:
    """Return the digest (64 hex digits) of everything that a caller gets of an execution."""
    fields = [
        _RESULT_TAG,
        str(record.exit_code).encode(),
        hashlib.sha256(record.stdout).digest(),
        hashlib.sha256(record.stderr).digest(),
    ]
    for output in sorted(record.outputs, key=lambda o: o.path.encode()):
        fields += [output.path.encode(), str(output.digest).encode(), b"x" * output.is_executable]
    return hashlib.sha256(b"".join(len(f).to_bytes(4, "big") + f for f in fields)).hexdigest()


def needs_workers(policy: SharingPolicy, isolation: Isolation) -> bool:
    """Return whether votes need different workers."""
    return policy.across_workers or isolation.rank < _OWN_KERNEL_RANK


def count_votes(
    claims: Iterable[ResultClaim], policy: SharingPolicy, *, isolation: Isolation, epoch: str
) -> VoteCount:
    """Count claims whose signatures were checked. The order of the claims does not matter."""
    if not policy.agree:
        return VoteCount(VoteState.OPEN)
    votes = _votes(claims, isolation, epoch)
    by_result: dict[str, list[ResultClaim]] = {}
    for claim in votes.values():
        by_result.setdefault(claim.result, []).append(claim)
    by_worker = needs_workers(policy, isolation)
    counted = [_distinct(found, by_worker=by_worker) for found in by_result.values()]
    agreed = [found for found in counted if len(found) >= policy.agree]
    if len(agreed) == 1:
        return VoteCount(VoteState.AGREED, agreed[0])
    is_split = len(by_result) > 1 and len(votes) >= max(_CONTESTED_VOTERS, policy.agree)
    return VoteCount(VoteState.CONTESTED if agreed or is_split else VoteState.OPEN)


def check_sharing(record: ResultRecord, policy: SharingPolicy) -> None:
    """Check that a shared result's evidence is enough for a policy; no signature is checked.

    Raises:
        ReapiError: it is not; `reason` is `result-sharing`.
    """
    evidence = record.evidence
    if evidence is None:
        return
    if evidence.sharing is SharingClass.FRESH:
        is_good = policy.accepts_fresh and not record.guest_execs_before and not evidence.claims
    else:
        is_good = evidence.sharing is SharingClass.AGREED and _is_agreement(record, policy)
    if not is_good or record.reuse not in _VOTING:
        raise ReapiError(
            f"the result is shared as {evidence.sharing}, which is not enough here",
            reason="result-sharing",
        )


def basis_of(record: ResultRecord) -> ResultBasis:
    """Return what a stored copy of an accepted result has to tell about it later."""
    evidence = record.evidence
    if evidence is None:
        return ResultBasis(isolation=record.isolation, reuse=record.reuse)
    by_guest, by_worker = (
        len(_distinct(evidence.claims, by_worker=by_worker)) for by_worker in (False, True)
    )
    is_by_worker = needs_workers(PRIVATE_ONLY, record.isolation)
    return ResultBasis(
        isolation=record.isolation,
        reuse=record.reuse,
        sharing=evidence.sharing,
        voters=by_worker if is_by_worker else by_guest,
        workers=by_worker,
    )


def may_replace(new: ResultRecord, old: ResultRecord) -> bool:
    """Return whether a shared result may take the place of one that is valid.

    A fresh result replaces any. An agreed one replaces an agreed one with fewer votes.
    """
    mine, other = new.evidence, old.evidence
    if mine is None or other is None:
        return False
    if mine.sharing is SharingClass.FRESH:
        return True
    return other.sharing is SharingClass.AGREED and len(mine.claims) > len(other.claims)


def _is_agreement(record: ResultRecord, policy: SharingPolicy) -> bool:
    claims = record.evidence.claims if record.evidence else ()
    if not policy.agree or len(claims) < policy.agree:
        return False
    epoch, result = claims[0].voter.epoch, result_digest(record)
    votes = _votes(claims, record.isolation, epoch)
    by_worker = needs_workers(policy, record.isolation)
    # All of them count, so that nothing in the record is without meaning.
    is_whole = len(votes) == len(claims) and all(c.result == result for c in claims)
    return is_whole and len(_distinct(claims, by_worker=by_worker)) >= policy.agree


def _votes(
    claims: Iterable[ResultClaim], isolation: Isolation, epoch: str
) -> Mapping[str, ResultClaim]:
    """Return the claim of each voter that has one result, by pseudonym."""
    votes, void = dict[str, ResultClaim](), set[str]()
    for claim in sorted(claims, key=lambda c: (c.made_at_ms, encode_claims([c]))):
        if claim.isolation is not isolation or claim.voter.epoch != epoch:
            continue
        if claim.reuse not in _VOTING:
            continue
        first = votes.setdefault(claim.voter.pseudonym, claim)
        if first.result != claim.result:
            void.add(claim.voter.pseudonym)
    return {voter: claim for voter, claim in votes.items() if voter not in void}


def _distinct(claims: Sequence[ResultClaim], *, by_worker: bool) -> tuple[ResultClaim, ...]:
    """Return claims of which no two have a guest in common, nor (`by_worker`) a key."""
    chosen, guests, keys = list[ResultClaim](), set[str](), set[str]()
    for claim in claims:
        if claim.guest_id in guests or (by_worker and claim.key_id in keys):
            continue
        chosen.append(claim)
        guests.add(claim.guest_id)
        keys.add(claim.key_id)
    return tuple(chosen)
