"""Decides whose result of an action differs from what fresh guests give. Pure: it does no I/O.

Problem: guests of several voters gave different results of one action. Either the compile is not
deterministic, or somebody prepared a guest. The claims alone do not tell which.

Rule: two executions in fresh guests decide.

- They are equal: what else was claimed needs an explanation. Each such claim is a suspect, and is
  returned once. With honest members it can be a compile that depends on rare circumstances. So a
  suspect is a place to look at, and no verdict.
- They differ: the action is not deterministic, and nobody is a suspect.
- There are fewer: nobody is a suspect yet.

Example: Ann's and Bob's guests gave D2, Mallory's gave D1. D2 serves the tenant at once, because
two voters are enough. Two fresh guests give D2 too: Mallory's claim is a suspect.

What must never happen: a claim is a suspect because of a majority, or of one fresh execution.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from hpcc.core import Digest
from hpcc.core.memo import LruMemo
from hpcc.reapi.claims import MAX_CLAIMS, ResultClaim
from hpcc.worker.base.domain import TrustDomain

# Actions whose claims or fresh executions are remembered. Each takes at most some KiB.
_MAX_ACTIONS: Final = 2048
# So many equal fresh executions show that an action is deterministic.
FRESH_RUNS: Final = 2

_Key = tuple[TrustDomain, Digest]


class Agreement(StrEnum):
    """How the known results of an action relate to each other."""

    # All of them are equal, or there is one.
    EQUAL = "equal"
    # They differ, and too few are of fresh guests.
    OPEN = "open"
    # They differ, and those of fresh guests are equal.
    REPEATED = "repeated"
    # Those of fresh guests differ.
    RANDOM = "random"


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshRun:
    """An execution in a guest that had executed nothing. `result` is a `result_digest`."""

    result: str
    guest_id: str
    row: str


@dataclass(slots=True)
class _Action:
    claims: dict[tuple[str, str], ResultClaim] = field(default_factory=dict)
    runs: list[FreshRun] = field(default_factory=list)
    named: set[tuple[str, str]] = field(default_factory=set)

    @property
    def state(self) -> Agreement:
        fresh = {run.result for run in self.runs}
        if len(fresh) > 1:
            return Agreement.RANDOM
        if len(fresh | {result for _, result in self.claims}) < 2:  # noqa: PLR2004 - two differ
            return Agreement.EQUAL
        return Agreement.REPEATED if len(self.runs) >= FRESH_RUNS else Agreement.OPEN


class Disagreements:
    """What one worker learned of actions, in memory. An action that is forgotten starts again."""

    def __init__(self) -> None:
        self._actions: LruMemo[_Key, _Action] = LruMemo(_MAX_ACTIONS)

    def add_claims(
        self, domain: TrustDomain, action: Digest, claims: Iterable[ResultClaim]
    ) -> Agreement:
        """Note claims whose signatures were checked; return the state of the action."""
        found = self._of(domain, action)
        for claim in claims:
            if len(found.claims) < MAX_CLAIMS:
                found.claims.setdefault(_name(claim), claim)
        return found.state

    def add_fresh(self, domain: TrustDomain, action: Digest, run: FreshRun) -> Agreement:
        """Note a fresh execution; return the state of the action."""
        found = self._of(domain, action)
        if len(found.runs) < FRESH_RUNS and all(r.guest_id != run.guest_id for r in found.runs):
            found.runs.append(run)
        return found.state

    def standing(self, domain: TrustDomain, action: Digest) -> tuple[Agreement, str]:
        """Return the state of an action, and the result that fresh executions gave if `REPEATED`.

        An action that nothing is known of is `EQUAL`, and is not remembered by this.
        """
        found = self._actions.use((domain.common, action)) or _Action()
        state = found.state
        return state, found.runs[0].result if state is Agreement.REPEATED else ""

    def claimants(self, domain: TrustDomain, action: Digest) -> tuple[str, ...]:
        """Return the voters who claimed a result of an action, in the order of their claims."""
        return tuple(dict.fromkeys(voter for voter, _ in self._of(domain, action).claims))

    def suspects(
        self, domain: TrustDomain, action: Digest
    ) -> tuple[tuple[ResultClaim, ...], tuple[FreshRun, ...]]:
        """Return claims that differ from equal fresh executions, and these executions.

        A claim is returned until `named` is called with it.
        """
        found = self._of(domain, action)
        if found.state is not Agreement.REPEATED:
            return (), ()
        expected = found.runs[0].result
        odd = (c for name, c in found.claims.items() if name not in found.named)
        return tuple(c for c in odd if c.result != expected), tuple(found.runs)

    def named(self, domain: TrustDomain, action: Digest, claim: ResultClaim) -> None:
        """Note that a suspect was reported."""
        self._of(domain, action).named.add(_name(claim))

    def _of(self, domain: TrustDomain, action: Digest) -> _Action:
        key = domain.common, action
        found = self._actions.use(key)
        if found is None:
            found = self._actions[key] = _Action()
        return found


def _name(claim: ResultClaim) -> tuple[str, str]:
    return claim.voter.text, claim.result
