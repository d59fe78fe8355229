"""The words between the pool's core and its shell: limits, guests, decisions. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from hpcc.worker.base.domain import TrustDomain


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """Bounds. `guest_mib` is what one guest costs the host, `memory_mib` what all may cost."""

    max_guests: int
    vcpus: int
    guest_mib: int
    memory_mib: int
    max_queue: int
    idle_seconds: float
    session_seconds: float
    # While others wait a guest serves this long: several boots' time, so that turns pay.
    turn_seconds: float = 10.0
    # A build's guest is idle for moments between two compiles; taking it then would cost a boot.
    settle_seconds: float = 0.5
    # After a boot that failed beside a guest that serves.
    retry_seconds: float = 2.0

    @property
    def capacity(self) -> int:
        """How many guests may exist at once."""
        return min(self.max_guests, self.memory_mib // self.guest_mib)


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
    """The waiter has a place in the guest, until `release`."""

    waiter: int
    guest: int
    execs_before: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """The waiter gets none."""

    waiter: int
    why: Refusal


@dataclass(frozen=True, slots=True)
class Retire:
    """End the guest, whatever runs in it; then say `ended`."""

    guest: int


Decision = Boot | Grant | Refuse | Retire


class GuestPhase(enum.Enum):
    """A guest's life. CLOSING takes no further exec; ENDING has been told to end, or died."""

    BOOTING = enum.auto()
    READY = enum.auto()
    CLOSING = enum.auto()
    ENDING = enum.auto()


@dataclass(slots=True)
class PooledGuest:
    """A guest as the core sees it. Times are the caller's monotonic seconds."""

    number: int
    domain: TrustDomain
    places: int
    phase: GuestPhase = GuestPhase.BOOTING
    refs: int = 0
    execs: int = 0
    ready_at: float = 0.0
    idle_since: float = 0.0

    @property
    def is_free(self) -> bool:
        return self.phase is GuestPhase.READY and self.refs < self.places

    @property
    def is_idle(self) -> bool:
        return self.phase is GuestPhase.READY and not self.refs

    @property
    def serves(self) -> bool:
        """Say whether it takes, or will take, new execs."""
        return self.phase in {GuestPhase.BOOTING, GuestPhase.READY}
