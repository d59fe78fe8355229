"""Which results of a tenant serve all its members: classes of results, and what a policy accepts.

A result of a guest that serves one principal counts for that principal. It may serve colleagues
if nobody could have prepared the guest for it (`fresh`), or if guests of several voters gave the
same result (`agreed`). A tenant's policy and a client's demand each name what they accept, and
only what both accept is served. See docs/adr/0079-agreement.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, Self

from hpcc.core.errors import CallerError

# Two voters are the least that can agree; with more than eight nothing would be shared.
MIN_AGREE: Final = 2
MAX_AGREE: Final = 8
# An idle worker may execute results again, for so many seconds of an hour.
MAX_VERIFY_SECONDS: Final = 3600
_MAX_TEXT_CHARS: Final = 64
_FRESH, _AGREE, _WORKERS, _PRIVATE = "fresh", "agree=", "workers", "private"


class SharingClass(StrEnum):
    """Whom a result may serve, by how it was made."""

    # Serves the principal that asked for it.
    PRIVATE = "private"
    # The guest had executed nothing since it was booted or restored, and ran nothing beside it.
    FRESH = "fresh"
    # Guests of several voters gave the same result.
    AGREED = "agreed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SharingPolicy:
    """The classes that count besides `private`. Without arguments: none.

    `agree`: agreement of so many voters counts; 0: of no number. `across_workers`: every shared
    result needs votes of different workers, so one fresh result does not count.
    """

    fresh: bool = False
    agree: int = 0
    across_workers: bool = False

    def __post_init__(self) -> None:
        """Reject a number of voters that cannot agree."""
        if self.agree and not MIN_AGREE <= self.agree <= MAX_AGREE:
            raise CallerError(f"agreement needs {MIN_AGREE} to {MAX_AGREE} voters")

    @property
    def is_private(self) -> bool:
        """Whether only a principal's own results count."""
        return not self.accepts_fresh and not self.agree

    @property
    def accepts_fresh(self) -> bool:
        """Whether a fresh result counts without votes."""
        return self.fresh and not self.across_workers

    def meet(self, other: SharingPolicy) -> SharingPolicy:
        """Return the policy that accepts what both accept."""
        return SharingPolicy(
            fresh=self.fresh and other.fresh,
            agree=max(self.agree, other.agree) if self.agree and other.agree else 0,
            across_workers=self.across_workers or other.across_workers,
        )

    @property
    def text(self) -> str:
        """The policy as words, which `parse` reads."""
        words = [_FRESH] if self.fresh else []
        words += [f"{_AGREE}{self.agree}"] if self.agree else []
        words += [_WORKERS] if self.across_workers else []
        return " ".join(words) or _PRIVATE

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the policy of a `text`.

        Raises:
            CallerError: it is anything else.
        """
        words = text.split(" ") if len(text) <= _MAX_TEXT_CHARS else [""]
        number = next((w.removeprefix(_AGREE) for w in words if w.startswith(_AGREE)), "0")
        agree = int(number) if len(number) == 1 and number.isascii() and number.isdigit() else -1
        found = cls(fresh=_FRESH in words, agree=agree, across_workers=_WORKERS in words)
        if found.text != text:
            raise CallerError(f"not a policy of sharing: {text[:_MAX_TEXT_CHARS]!r}")
        return found


# What a user may demand: whatever the tenant accepts, no results that need agreement, or none.
Sharing = Literal["agreed", "fresh", "private"]
SHARINGS: Final[tuple[Sharing, ...]] = ("agreed", "fresh", "private")
PRIVATE_ONLY: Final = SharingPolicy()
# What a client accepts that leaves the choice to its tenant.
ALL_SHARING: Final = SharingPolicy(fresh=True, agree=MIN_AGREE)


def demanded(sharing: Sharing) -> SharingPolicy:
    """Return what a client with this setting accepts, as far as its tenant does."""
    match sharing:
        case "agreed":
            return ALL_SHARING
        case "fresh":
            return SharingPolicy(fresh=True)
        case "private":
            return PRIVATE_ONLY
