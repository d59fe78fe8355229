"""The types between the pool's core and its shell: limits, guests, decisions. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from hpcc.core import ImageDigest
from hpcc.worker.base.domain import TrustDomain


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """Bounds, in MiB and seconds. `guest_mib` is the host's cost of one guest with its VMM.

    `mib_by_image` has the cost for images whose guests have another size.
    """

    max_guests: int
    vcpus: int
    guest_mib: int
    memory_mib: int
    max_queue: int
    idle_seconds: float
    session_seconds: float
    # While others wait a guest serves this long: as long as several boots, so that a turn pays off.
    turn_seconds: float = 10.0
    # A build's guest is idle for moments between two compiles; ending it then would cost a boot.
    settle_seconds: float = 0.5
    # The pause after a boot that failed while another guest serves the domain.
    retry_seconds: float = 2.0
    # How many guests at most boot or are unused because a build announced compiles; 0: none.
    ahead_guests: int = 0
    # An idle guest is parked (ended, to be started again on demand) when it was idle for so many
    # starts of a guest of its image, but not before `park_seconds`; 0 starts: only by idle_seconds.
    park_after_starts: float = 0.0
    park_seconds: float = 60.0
    mib_by_image: Mapping[ImageDigest, int] = field(default_factory=dict)

    def cost_mib(self, image: ImageDigest) -> int:
        """Return the host's cost of a guest of an image."""
        return self.mib_by_image.get(image, self.guest_mib)

    def hold_seconds(self, start_seconds: float | None, *, is_unused_ahead: bool) -> float:
        """Return how long a guest may be idle; `start_seconds` is what the last start took.

        Memory is given back once holding it has cost as much as a start does. Nobody can know when
        the next compile comes; with this rule the cost is at most twice that of who knows.
        """
        least = min(self.park_seconds, self.idle_seconds)
        if is_unused_ahead:
            return least
        if start_seconds is None or not self.park_after_starts:
            return self.idle_seconds
        return min(max(least, start_seconds * self.park_after_starts), self.idle_seconds)

    @property
    def capacity(self) -> int:
        """How many guests may exist at the same time, if all are of the largest size."""
        largest = max([self.guest_mib, *self.mib_by_image.values()])
        return min(self.max_guests, self.memory_mib // largest)


class Refusal(enum.Enum):
    """Why a waiter gets no guest."""

    QUEUE_FULL = enum.auto()
    DRAINING = enum.auto()
    BOOT_FAILED = enum.auto()


@dataclass(frozen=True, slots=True)
class Boot:
    """Start a guest."""

    guest: int
    domain: TrustDomain


@dataclass(frozen=True, slots=True)
class Grant:
    """Give the waiter a place in the guest, until `release`."""

    waiter: int
    guest: int
    execs_before: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Refuse the waiter."""

    waiter: int
    why: Refusal


@dataclass(frozen=True, slots=True)
class Retire:
    """End the guest, whatever runs in it; call `ended` when it is gone."""

    guest: int


Decision = Boot | Grant | Refuse | Retire


@dataclass(slots=True)
class PoolCounts:
    """What a pool has done since it began.

    `ahead`: guests that were started because a build had announced compiles. `ahead_used`: those
    that got a compile. `ahead_unused`: those that ended without one. `parked`: idle guests that
    ended because a start costs less than their memory. `failed`: starts that gave no guest.
    """

    started: int = 0
    ahead: int = 0
    ahead_used: int = 0
    ahead_unused: int = 0
    parked: int = 0
    failed: int = 0


class GuestPhase(enum.Enum):
    """A guest's life. CLOSING takes no further exec; ENDING is being ended, or has died."""

    BOOTING = enum.auto()
    READY = enum.auto()
    CLOSING = enum.auto()
    ENDING = enum.auto()


@dataclass(slots=True)
class PooledGuest:
    """A guest as the core tracks it. Times are the caller's monotonic seconds."""

    number: int
    domain: TrustDomain
    places: int
    phase: GuestPhase = GuestPhase.BOOTING
    refs: int = 0
    execs: int = 0
    ready_at: float = 0.0
    idle_since: float = 0.0
    # Nobody waited when its boot began: a build had announced compiles.
    is_ahead: bool = False
    began_at: float = 0.0

    @property
    def is_free(self) -> bool:
        return self.phase is GuestPhase.READY and self.refs < self.places

    @property
    def is_idle(self) -> bool:
        return self.phase is GuestPhase.READY and not self.refs

    @property
    def is_unused_ahead(self) -> bool:
        """Whether it was started ahead of demand, and no compile has come yet."""
        return self.is_ahead and not self.execs

    @property
    def serves(self) -> bool:
        """Whether it takes, or will take, new execs."""
        return self.phase in {GuestPhase.BOOTING, GuestPhase.READY}
