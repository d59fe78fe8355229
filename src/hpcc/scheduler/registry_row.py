"""The types of one registered worker in a scheduler's memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hpcc.core import ImageDigest, ImageToolchains
from hpcc.ports import WorkerLease
from hpcc.routing.fleet import Member
from hpcc.rpc.scheduler.api import NO_FACTS, DrainState, Registration, WorkerFacts
from hpcc.rpc.scheduler.registration_messages import pack_registration


@dataclass(frozen=True, slots=True)
class Worker:
    """A registered worker in its current generation."""

    registration: Registration
    audience: str
    generation: int


@dataclass(slots=True)
class Row:
    """A worker's row. `heard_at`: when the worker last spoke to this scheduler (monotonic)."""

    registration: Registration
    audience: str
    # Names the registration; other schedulers identify a row's version by it.
    since: int
    member: Member
    heard_at: float
    needs_facts: bool = True
    # The time to come back after its stream broke; None while it is here or at another scheduler.
    return_until: float | None = None
    # What the worker said here last about its drain.
    drain: DrainState = DrainState.NONE
    drain_seconds: float = 0.0
    facts: WorkerFacts = NO_FACTS

    @property
    def drain_state(self) -> DrainState:
        """Whether the worker takes compiles, as far as is known here."""
        if not self.member.is_draining:
            return DrainState.NONE
        return self.drain or DrainState.DRAINING

    @property
    def worker(self) -> Worker:
        return Worker(self.registration, self.audience, self.member.generation)

    def lease(self, now: float) -> WorkerLease:
        """Return the worker's lease, as other schedulers read it from the control store."""
        member = self.member
        return WorkerLease(
            worker_id=member.worker_id,
            generation=member.generation,
            since=self.since,
            running=member.running,
            queued=member.queued,
            seconds=member.lease_until - now,
            facts=pack_registration(self.registration) if self.needs_facts else None,
        )


class Capacities:
    """How many compiles at once each worker takes, as it is now; a question costs one look."""

    def __init__(self, rows: Mapping[str, Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, worker_id: str) -> int | None:
        """Return a worker's capacity; None for a worker that is not registered."""
        row = self._rows.get(worker_id)
        return row.member.capacity if row is not None else None

    def copy(self) -> dict[str, int]:
        """Return all of them; a thread must not do this while workers come and go."""
        return {worker_id: row.member.capacity for worker_id, row in self._rows.items()}


def newest_toolchains(rows: Iterable[Row], image: ImageDigest) -> ImageToolchains | None:
    """Return an image's compilers, as the worker of these that registered last reported them."""
    said = [
        (row.since, t)
        for row in rows
        if image in row.member.images
        for t in row.registration.toolchains
        if t.image == image
    ]
    return max(said, key=lambda pair: pair[0])[1] if said else None
