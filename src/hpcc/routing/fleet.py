"""Workers by image, and the choice of one: affinity first, else the better of two random ones.

Two random choices keep the fullest worker near the mean for any number of workers (Mitzenmacher,
"The Power of Two Choices in Randomized Load Balancing", 2001), and cost two lookups. A warm guest
is worth more than an even spread until its worker would have to queue.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from hpcc.core import ImageDigest

# In a farm of at most this size every worker is compared.
_SMALL: Final = 8
# Draws before the whole list is searched: if three quarters are unfit, one try in 10,000 needs it.
_DRAWS: Final = 32
# The weights of a recently lost guest and of a stale worker, in units of a full worker.
_LOSS_WEIGHT: Final = 0.5
_MAX_LOSS_WEIGHT: Final = 2.0
_STALE_WEIGHT: Final = 4.0
# How much fuller than the better of two a worker may be and still keep the callers it served last.
_AFFINE_FACTOR: Final = 2.0
# Workers that are looked at for one further route.
_LOOKS: Final = 8


@dataclass(slots=True, kw_only=True)
class Member:
    """A worker's state for the choice. Times are of one monotonic clock.

    `rank` is that of its isolation. `routed` counts the routes since its last load report. `losses`
    counts the guests that it lost recently. `is_stale`: it has not reported for too long.
    `is_draining`: it takes no compiles, so it is never chosen.
    """

    worker_id: str
    generation: int
    rank: int
    capacity: int
    images: frozenset[ImageDigest]
    lease_until: float
    running: int = 0
    queued: int = 0
    routed: int = 0
    losses: float = 0.0
    is_stale: bool = False
    is_draining: bool = False

    @property
    def cost(self) -> float:
        """Return its load, where 1 is full, plus penalties."""
        load = (self.running + self.queued + self.routed) / self.capacity
        sick = min(self.losses * _LOSS_WEIGHT, _MAX_LOSS_WEIGHT)
        return load + sick + (_STALE_WEIGHT if self.is_stale else 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRequest:
    """What a route is for. `home` is a number derived from tenant, image and principal.

    Every scheduler maps equal numbers to the same worker, as long as it has room. `last` is the
    worker that served the caller before, and `preferred` the one that has its inputs; "" if there
    is none. Both are hints from outside and affect nothing else.
    """

    image: ImageDigest
    rank: int
    home: int
    last: str = ""
    preferred: str = ""
    failed_generation: int = 0
    # The workers that the caller uses now, the first first; a hint like `last`.
    warm: tuple[str, ...] = ()


class Fleet:
    """All workers that a scheduler knows."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        # Ids in order, so that every scheduler numbers them equally.
        self._by_image: dict[ImageDigest, list[str]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, worker_id: str) -> bool:
        return worker_id in self._members

    def count(self, image: ImageDigest) -> int:
        """Return how many workers have an image."""
        return len(self._by_image.get(image, ()))

    def get(self, worker_id: str) -> Member | None:
        return self._members.get(worker_id)

    def put(self, member: Member) -> None:
        """Add a worker, or replace its previous state."""
        self.drop(member.worker_id)
        self._members[member.worker_id] = member
        for image in member.images:
            bisect.insort(self._by_image.setdefault(image, []), member.worker_id)

    def drop(self, worker_id: str) -> Member | None:
        member = self._members.pop(worker_id, None)
        if member is not None:
            for image in member.images:
                ids = self._by_image[image]
                del ids[bisect.bisect_left(ids, worker_id)]
                if not ids:
                    del self._by_image[image]
        return member

    def choose(
        self, request: RouteRequest, now: float, below: Callable[[int], int]
    ) -> Member | None:
        """Return a live worker that has the image and isolates enough; None if there is none.

        `below(n)` draws a number from 0 to n - 1. The worker whose generation just failed the
        caller is chosen only if no other qualifies.
        """
        ids = self._by_image.get(request.image, [])
        best = self._best(ids, request, now, below)
        if best is None:
            failed = [m for m in map(self._members.__getitem__, ids) if _is_fit(m, request, now)]
            return min(failed, key=lambda m: m.cost, default=None)
        preferred = self._members.get(request.preferred)
        if preferred is not None and _is_good(preferred, request, now):
            return preferred
        for worker_id in (request.last, ids[_jump(request.home, len(ids))]):
            member = self._members.get(worker_id)
            if member is None or member.is_stale or not _is_good(member, request, now):
                continue
            if member.cost < 1.0 or member.cost <= best.cost * _AFFINE_FACTOR:
                return member
        return best

    def further(self, request: RouteRequest, first: Member, now: float, most: int) -> list[Member]:
        """Return up to `most` workers for more routes beside `first`, in the order of their use.

        The workers that the caller uses come first, because they have its inputs; also those that
        have not reported for a while, for the caller knows better whether they answer, and what
        runs there counts against its quota. Then come
        workers with room, in an order that is the same for equal `home` at every scheduler: the
        machines of one person then meet at the same few. Full workers come last.
        """
        ids = self._by_image.get(request.image, [])
        found: dict[str, Member] = {}
        full: dict[str, Member] = {}
        for worker_id in itertools.chain(request.warm, _affine(request.home, ids, most)):
            if len(found) >= most:
                break
            member = self._members.get(worker_id)
            if member is None or member is first or worker_id in found:
                continue
            if not _is_good(member, request, now):
                continue
            if worker_id in request.warm:
                found[worker_id] = member
            elif member.is_stale:
                continue
            elif member.cost < 1.0:
                found[worker_id] = member
            else:
                full[worker_id] = member
        rest = sorted(full.values(), key=lambda m: m.cost)
        return [*found.values(), *rest[: most - len(found)]]

    def _best(
        self, ids: list[str], request: RouteRequest, now: float, below: Callable[[int], int]
    ) -> Member | None:
        """Return the better of two good random workers; in a small farm, the best of all."""
        if len(ids) > _SMALL:
            drawn: dict[str, Member] = {}
            for _ in range(_DRAWS):
                member = self._members[ids[below(len(ids))]]
                if _is_good(member, request, now):
                    drawn[member.worker_id] = member
                    if len(drawn) > 1:
                        break
            if drawn:
                return min(drawn.values(), key=lambda m: m.cost)
        good = (m for m in map(self._members.__getitem__, ids) if _is_good(m, request, now))
        return min(good, key=lambda m: m.cost, default=None)


def _is_fit(member: Member, request: RouteRequest, now: float) -> bool:
    is_there = member.lease_until > now and not member.is_draining
    return is_there and member.rank >= request.rank and request.image in member.images


def _is_good(member: Member, request: RouteRequest, now: float) -> bool:
    return _is_fit(member, request, now) and member.generation != request.failed_generation


def _affine(home: int, ids: list[str], most: int) -> Iterator[str]:
    """Yield workers in the order of their affinity to `home`; some may come twice."""
    looks = most * _LOOKS
    if len(ids) <= looks:
        start = _jump(home, len(ids)) if ids else 0
        yield from ids[start:] + ids[:start]
        return
    for step in range(looks):
        key = (home ^ (step * 0x9E37_79B9_7F4A_7C15)) & 0xFFFF_FFFF_FFFF_FFFF
        yield ids[_jump(key, len(ids))]


def _jump(key: int, buckets: int) -> int:
    """Return a bucket for a key. Few keys move when the number of buckets changes.

    Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm", 2014.
    """
    place, following = -1, 0
    while following < buckets:
        place = following
        key = (key * 2862933555777941757 + 1) & 0xFFFF_FFFF_FFFF_FFFF
        following = int((place + 1) * (1 << 31) / ((key >> 33) + 1))
    return place
