"""Compiles that builds have announced: how many of each trust domain a worker may get soon. Pure.

An announcement is a client's claim. It is a reason to start guests where nobody else needs the
room, and never a reason to end one or to let a waiter wait. It is forgotten after a few seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from hpcc.core.memo import LruMemo
from hpcc.worker.base.domain import TrustDomain

# A build that goes on announces itself with each compile.
EXPECT_SECONDS: Final = 5.0
_MAX_DOMAINS: Final = 1024


class Announcements:
    """The newest announcement of each trust domain; each replaces the one before."""

    def __init__(self) -> None:
        # The count of compiles, and until when it holds, in the caller's monotonic seconds.
        self._said: LruMemo[TrustDomain, tuple[int, float]] = LruMemo(_MAX_DOMAINS)

    def note(self, domain: TrustDomain, count: int, now: float) -> None:
        """Note that so many compiles of the domain run, wait or will come soon."""
        self._said[domain] = count, now + EXPECT_SECONDS

    def drop(self, domain: TrustDomain) -> None:
        """Forget what a domain announced."""
        self._said.pop(domain, None)

    def clear(self) -> None:
        """Forget everything."""
        self._said.clear()

    def short(
        self, now: float, places: Callable[[TrustDomain], int], load: Callable[[TrustDomain], int]
    ) -> Iterator[TrustDomain]:
        """Yield the domains that announced more compiles than they have `places`.

        Those with the lowest `load` come first, and of equal ones who announced first.
        """
        for domain in [d for d, (_, until) in self._said.items() if until <= now]:
            del self._said[domain]
        short = [d for d, (count, _) in self._said.items() if count > places(d)]
        yield from sorted(short, key=load)
