"""Splits what a caller may use over the workers of its routes. Pure.

A quota of a tenant holds for one worker. A caller with several routes would get it several times.
So each of its routes carries a share, and the shares sum up to the quota.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def allot(capacities: Sequence[int], wanted: int, limit: int) -> list[int]:
    """Return how many compiles at once each worker takes of a caller, in the workers' order.

    A worker gives what it has. The list ends when `wanted` is reached, or `limit` (0 for none): it
    may be shorter than `capacities`, and has at least one entry.

    Example: workers of 4 places, a build of 6 and no limit: [4, 4]. With a limit of 6: [4, 2].
    """
    return list(_slots(capacities, wanted, limit))


def _slots(capacities: Sequence[int], wanted: int, limit: int) -> Iterator[int]:
    total = 0
    for capacity in capacities:
        slots = min(capacity, limit - total) if limit else capacity
        yield slots
        total += slots
        if total >= wanted or total == limit:
            return


def portion(amount: int, slots: int, total: int) -> int:
    """Return the share of `amount` for `slots` of `total`; 0 (no limit) stays 0."""
    return max(amount * slots // total, 1) if amount else 0
