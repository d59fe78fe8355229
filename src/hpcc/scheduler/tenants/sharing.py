"""What a tenant's members get of each other's results, and who has a vote. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from hpcc.core import MIN_AGREE, GuestReuse, SharingPolicy

Share = Literal["agreed", "fresh", "private"]
SHARES: Final = ("agreed", "fresh", "private")


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSharing:
    """A tenant's section `sharing`.

    `machines` and `publish_fresh` are patterns of principals. All machines together have one
    vote. Each compile of those in `publish_fresh` has a guest that executed nothing before, so that
    its result serves everybody at once; they are machines too. `verify_idle`: how many seconds of
    an hour each worker, while it is idle, may execute private results again. 0: none. `packs`:
    whether members may use results from build packs, of which they report each first use.
    """

    share: Share = "agreed"
    agree: int = MIN_AGREE
    agree_across_workers: bool = False
    machines: tuple[str, ...] = ()
    publish_fresh: tuple[str, ...] = ()
    verify_idle: int = 0
    packs: bool = False

    @property
    def policy(self) -> SharingPolicy:
        """What the tenant accepts."""
        if self.share == "private":
            return SharingPolicy()
        return SharingPolicy(
            fresh=True,
            agree=self.agree if self.share == "agreed" else 0,
            across_workers=self.agree_across_workers,
        )

    def is_machine(self, principal: str) -> bool:
        """Return whether a principal shares its vote with others."""
        patterns = (*self.machines, *self.publish_fresh)
        return any(matches_principal(p, principal) for p in patterns)

    def reuse_of(self, principal: str, reuse: GuestReuse) -> GuestReuse:
        """Return the guest reuse for a principal, if the tenant's is `reuse`."""
        if any(matches_principal(p, principal) for p in self.publish_fresh):
            return GuestReuse.EXEC
        return reuse


def matches_principal(pattern: str, principal: str) -> bool:
    """Return whether a pattern names a principal; a "*" at its end stands for any rest."""
    if pattern.endswith("*"):
        return principal.startswith(pattern[:-1])
    return principal == pattern
