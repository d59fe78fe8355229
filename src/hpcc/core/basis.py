"""Why a stored copy of a farm's result counts: how it was made, and what that is worth now.

A client checks a result's signature and claims when it gets it, and then keeps a copy for itself.
The tenant or the user may become stricter afterwards. So the copy carries a `ResultBasis`, and each
hit compares it with the `FarmTerms` of that moment. A basis is the client's own note about what it
checked: it is in the user's private store, and is worth what the results there are worth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Self

from hpcc.core.errors import CallerError
from hpcc.core.names import GuestReuse, Isolation
from hpcc.core.sharing import ALL_SHARING, SharingClass, SharingPolicy

# More claims than a shared result has, by far.
_MAX_VOTES: Final = 999
_MAX_TEXT_CHARS: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class FarmTerms:
    """What a tenant accepts of results. `NO_TERMS` accepts all that a client ever got."""

    minimum_isolation: Isolation
    guest_reuse: GuestReuse
    sharing: SharingPolicy

    def meet(self, demand: SharingPolicy) -> FarmTerms:
        """Return the terms of a user who accepts no more than `demand` of colleagues' results."""
        return replace(self, sharing=self.sharing.meet(demand))


NO_TERMS: Final = FarmTerms(
    minimum_isolation=Isolation.LOCAL_NONE, guest_reuse=GuestReuse.TENANT, sharing=ALL_SHARING
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultBasis:
    """How a result was made that a client accepted.

    `sharing` is PRIVATE for one that is not a colleague's, by the tenant's `guest_reuse`. Of an
    agreement, `voters` and `workers` are how many votes count, and how many of different workers.
    """

    isolation: Isolation
    reuse: GuestReuse
    sharing: SharingClass = SharingClass.PRIVATE
    voters: int = 0
    workers: int = 0

    def counts(self, terms: FarmTerms) -> bool:
        """Return whether a copy of the result may be served under these terms."""
        if self.isolation.rank < terms.minimum_isolation.rank:
            return False
        if self.reuse.stricter(terms.guest_reuse) is not self.reuse:
            return False
        policy = terms.sharing
        match self.sharing:
            case SharingClass.PRIVATE:
                return True
            case SharingClass.FRESH:
                return policy.accepts_fresh
            case SharingClass.AGREED:
                votes = self.workers if policy.across_workers else self.voters
                return 0 < policy.agree <= votes

    @property
    def text(self) -> str:
        """The basis as words, which `parse` reads."""
        words = (self.isolation, self.reuse, self.sharing, str(self.voters), str(self.workers))
        return " ".join(words)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the basis of a `text`.

        Raises:
            CallerError: it is anything else.
        """
        words = text.split(" ") if len(text) <= _MAX_TEXT_CHARS else []
        try:
            isolation, reuse, sharing, voters, workers = words
            found = cls(
                isolation=Isolation(isolation),
                reuse=GuestReuse(reuse),
                sharing=SharingClass(sharing),
                voters=int(voters),
                workers=int(workers),
            )
        except ValueError as error:
            raise CallerError("not the basis of a result") from error
        if found.text != text or not 0 <= found.workers <= found.voters <= _MAX_VOTES:
            raise CallerError("not the basis of a result")
        return found
