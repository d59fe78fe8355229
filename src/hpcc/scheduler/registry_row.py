"""One worker as a scheduler keeps it."""

from __future__ import annotations

from dataclasses import dataclass

from hpcc.ports import WorkerLease
from hpcc.routing.fleet import Member
from hpcc.rpc.scheduler.api import Registration
from hpcc.rpc.scheduler.registration_messages import pack_registration


@dataclass(frozen=True, slots=True)
class Worker:
    """A registered worker in its current life."""

    registration: Registration
    audience: str
    generation: int


@dataclass(slots=True)
class Row:
    """`heard_at` is when the worker itself spoke to this scheduler last (monotonic)."""

    registration: Registration
    audience: str
    # Names what it registered with; other schedulers know a row by it.
    since: int
    member: Member
    heard_at: float
    needs_facts: bool = True
    # Until when it may come back, if its stream broke; None while it is here, or elsewhere.
    return_until: float | None = None

    @property
    def worker(self) -> Worker:
        return Worker(self.registration, self.audience, self.member.generation)

    def lease(self, now: float) -> WorkerLease:
        """Return what other schedulers are told of it."""
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
