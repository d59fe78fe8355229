"""Which result an idle worker executes again next. Pure: candidates in, the next one out.

Voters take turns, so that one person with a large build does not use all of a tenant's budget. Of a
voter's results the one that took longest comes first: a colleague saves most by it. What differs
from other results comes before, because it may be an attack.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from hpcc.core import Digest, TenantId
from hpcc.identity.token import RouteSharing
from hpcc.rpc.reapi.session import Client
from hpcc.worker.base.domain import TrustDomain

_MAX_VOTERS: Final = 256
_MAX_EACH: Final = 64

_Voter = tuple[TenantId, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A private result that may be executed again. `seconds` is how long its execution took.

    `domain` and `principal` are its maker's. `result` is its `result_digest`. `claimants` are those
    whose claims differ, if that is why; they pay for it.
    """

    action: Digest
    domain: TrustDomain
    sharing: RouteSharing
    principal: str
    client: Client
    client_version: str
    result: str
    seconds: float
    claimants: tuple[str, ...] = ()

    @property
    def _order(self) -> tuple[bool, float]:
        return bool(self.claimants), self.seconds

    def precedes(self, other: Candidate) -> bool:
        """Return whether it is worth more than another of its voter."""
        return self._order > other._order


class Turns:
    """Candidates by voter. A full list drops what is worth least; further voters wait outside."""

    def __init__(self) -> None:
        self._voters: OrderedDict[_Voter, dict[Digest, Candidate]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._voters.values()))

    def add(self, candidate: Candidate) -> bool:
        """Add a candidate; return whether all that were there still are, and it is."""
        voter = candidate.domain.tenant, candidate.sharing.voter
        if voter not in self._voters and len(self._voters) >= _MAX_VOTERS:
            return False
        found = self._voters.setdefault(voter, {})
        found[candidate.action] = candidate
        if len(found) <= _MAX_EACH:
            return True
        del found[_first(found, is_last=True).action]
        return False

    def take(self) -> Candidate | None:
        """Remove and return the next candidate; its voter's next turn comes after all others."""
        if not self._voters:
            return None
        voter, found = self._voters.popitem(last=False)
        candidate = found.pop(_first(found).action)
        if found:
            self._voters[voter] = found
        return candidate


def _first(found: dict[Digest, Candidate], *, is_last: bool = False) -> Candidate:
    first, *others = found.values()
    for other in others:
        if first.precedes(other) if is_last else other.precedes(first):
            first = other
    return first
