"""The types between the pool's core and its shell: limits, guests, decisions. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from hpcc.worker.base.domain import TrustDomain


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """Bounds, in MiB and seconds. `guest_mib` is the host's cost of one guest with its VMM."""

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

    @property
    def capacity(self) -> int:
        """How many guests may exist at the same time."""
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

    @property
    def is_free(self) -> bool:
        return self.phase is GuestPhase.READY and self.refs < self.places

    @property
    def is_idle(self) -> bool:
        return self.phase is GuestPhase.READY and not self.refs

    @property
    def serves(self) -> bool:
        """Whether it takes, or will take, new execs."""
        return self.phase in {GuestPhase.BOOTING, GuestPhase.READY}
