"""Keeps which workers live and what they offer, here and at other schedulers. Does no I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from hpcc.core import CallerError, ImageDigest, ImageToolchains, NotFoundError
from hpcc.identity.tls import certificate_id
from hpcc.ports import Clock, WorkerLease
from hpcc.routing.fleet import Fleet, Member, RouteRequest
from hpcc.rpc.scheduler.api import Beat, Registration, RouteChange
from hpcc.rpc.scheduler.registration_messages import unpack_registration
from hpcc.scheduler.generations import Generations
from hpcc.scheduler.registry_row import Capacities, Row, Worker, newest_toolchains

MAX_WORKERS: Final = 10_000
BEATS_IN_A_LEASE: Final = 4
# Larger farms get longer leases, so that heartbeats stay below this rate, up to a limit.
_BEATS_A_SECOND: Final = 400.0
MAX_LEASE_SECONDS: Final = 30.0
# How long a removed worker is not adopted again from another scheduler's older copy.
_TOMBSTONE_SECONDS: Final = 30.0
# While the store is unreachable, workers of other schedulers are kept for so long.
HOLD_SECONDS: Final = 600.0
_LOSS_DECAY: Final = 0.9
# The time a worker has to come back after its stream broke, here or at another scheduler.
RETURN_SECONDS: Final = 2.0
# If more break at once, the network or this scheduler has failed: their leases decide.
_MANY_AT_ONCE: Final = 8
_MANY_SHARE: Final = 0.1


class WorkerRegistry:
    """Workers by id. A generation is one life of a worker's guests; generations only grow."""

    def __init__(self, clock: Clock, lease_seconds: float) -> None:
        self._clock, self._lease_seconds = clock, lease_seconds
        self._rows: dict[str, Row] = {}
        # Workers with changes that the other schedulers do not have yet.
        self._dirty: dict[str, None] = {}
        self._fleet = Fleet()
        # Removed workers, with the generation that ended and the time to forget it.
        self._ended: dict[str, tuple[int, float]] = {}
        generations = Generations(clock)
        self._generation, self._sane = generations.next, generations.sane
        # Workers that an operator drains, whatever they say themselves.
        self._drained: frozenset[str] = frozenset()
        # How many workers were added, or take compiles again: here, or at other schedulers.
        self.additions = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def lease_seconds(self) -> float:
        """The length of a new lease in seconds. It grows with the farm and never shrinks."""
        wanted = len(self._rows) * BEATS_IN_A_LEASE / _BEATS_A_SECOND
        self._lease_seconds = max(self._lease_seconds, min(wanted, MAX_LEASE_SECONDS))
        return self._lease_seconds

    def register(self, registration: Registration) -> tuple[Worker, list[RouteChange]]:
        """Add a worker; with a generation in its registration the worker continues that life.

        Returns the worker and the generations that ended.

        Raises:
            CallerError: there are too many workers.
        """
        worker_id = registration.worker_id
        known = self._rows.get(worker_id)
        if known is None and len(self._rows) >= MAX_WORKERS:
            raise CallerError(f"more than {MAX_WORKERS} workers", reason="too-many-workers")
        old = known.member.generation if known else 0
        said = self._sane(registration.generation)
        was_draining = known is not None and known.registration.is_draining
        if said and registration.is_draining and not was_draining:
            said = self._generation(max(old, said))  # daemons drop their routes, not their calls
        generation = max(old, said) if said else self._generation(old)
        ended, _ = self._ended.pop(worker_id, (0, 0.0))
        if generation <= ended:
            # Watchers have received the end of that life.
            generation = self._generation(ended)
        row = self._put(registration, self._generation(generation), generation)
        row.heard_at = self._clock.monotonic()
        dead = [RouteChange(worker_id, old, is_dead=True)] if old and generation != old else []
        return row.worker, dead

    def heartbeat(self, beat: Beat) -> tuple[Worker, list[RouteChange]]:
        """Renew a lease; a later generation that another scheduler gave the worker stays.

        Raises:
            NotFoundError: the worker is unknown, or its lease ran out.
        """
        row, now = self._known(beat.worker_id), self._clock.monotonic()
        member = row.member
        dead = self._advance(row, self._sane(beat.generation))
        member.running, member.queued, member.routed = beat.running, beat.queued, 0
        member.lease_until, member.is_stale = now + self.lease_seconds, False
        member.losses *= _LOSS_DECAY
        row.heard_at, row.return_until = now, None
        row.drain, row.drain_seconds, row.facts = beat.drain, beat.drain_seconds, beat.facts
        self._dirty[beat.worker_id] = None
        return row.worker, dead

    def speaks_here(self, worker_id: str) -> bool:
        """Return whether a worker last spoke to this scheduler, as far as is known here."""
        row = self._rows.get(worker_id)
        return row is not None and self._is_mine(row)

    def parted(self, worker_id: str) -> None:
        """Note that a worker's stream broke: it gets no routes and has little time to return."""
        row = self._rows.get(worker_id)
        if row is not None and self._is_mine(row):
            row.return_until = self._clock.monotonic() + RETURN_SECONDS
            row.member.is_stale = True

    def moved(self, worker_id: str) -> None:
        """Note that a worker speaks to another scheduler, whose data about it now counts."""
        row = self._rows.get(worker_id)
        if row is not None and row.return_until is not None:
            row.return_until, row.heard_at = None, float("-inf")

    def deserters(self) -> list[str]:
        """Return the workers that did not come back in time.

        If many are away, the result is empty: those keep their leases as if nothing had happened.
        """
        now = self._clock.monotonic()
        parted = [w for w, row in self._rows.items() if row.return_until is not None]
        if len(parted) > max(_MANY_AT_ONCE, len(self._rows) * _MANY_SHARE):
            return []
        return [w for w in parted if (self._rows[w].return_until or now) <= now]

    def lost(self, worker_id: str, said: int) -> tuple[RouteChange, Worker]:
        """End a generation; return the change for watchers, and the worker's next life.

        `said` is the generation that the worker believes to be in.
        """
        row = self._known(worker_id)
        dead = max(row.member.generation, self._sane(said))
        row.member.generation = self._generation(dead)
        row.member.losses += 1
        # The worker spoke here, so the others get its new life from this scheduler's next exchange.
        row.heard_at = self._clock.monotonic()
        self._dirty[worker_id] = None
        return RouteChange(worker_id, dead, is_dead=True), row.worker

    def remove(self, worker_id: str) -> RouteChange | None:
        """Remove a worker; older data about it from other schedulers is then ignored."""
        row = self._rows.get(worker_id)
        if row is None:
            return None
        self._bury(worker_id, row.member.generation)
        return self._drop(worker_id)

    def expire(self) -> list[RouteChange]:
        """Drop workers whose lease ran out; mark as stale those that have been silent."""
        now = self._clock.monotonic()
        self._ended = {w: e for w, e in self._ended.items() if e[1] > now}
        for row in self._rows.values():
            if row.member.lease_until - now < self._lease_seconds / 2:
                row.member.is_stale = True  # until its next heartbeat
        gone = [w for w, row in self._rows.items() if row.member.lease_until <= now]
        return [self._drop(worker_id) for worker_id in gone]

    def choose(self, request: RouteRequest, below: Callable[[int], int]) -> Worker:
        """Return the worker that the fleet chooses, and count the route to it.

        Raises:
            NotFoundError: no live worker fits.
        """
        member = self._fleet.choose(request, self._clock.monotonic(), below)
        if member is None:
            raise NotFoundError(
                f"no live worker has image {request.image} at the requested isolation",
                reason="no-worker",
            )
        member.routed += 1
        return self._rows[member.worker_id].worker

    def further(self, request: RouteRequest, first: Worker, most: int) -> list[Worker]:
        """Return up to `most` workers for further routes; the caller counts those that it uses."""
        member = self._rows[first.registration.worker_id].member
        found = self._fleet.further(request, member, self._clock.monotonic(), most)
        return [self._rows[m.worker_id].worker for m in found]

    def has_others(self, image: ImageDigest) -> bool:
        """Return whether more than one worker has an image."""
        return self._fleet.count(image) > 1

    def count_route(self, worker: Worker) -> None:
        """Count a route to a worker as load until its next heartbeat."""
        self._rows[worker.registration.worker_id].member.routed += 1

    def toolchains(self, image: ImageDigest) -> ImageToolchains | None:
        """Return an image's compilers, as the worker that registered last reported them."""
        return newest_toolchains(self.live(), image)

    def capacities(self) -> Capacities:
        """Return how many compiles at once each worker takes."""
        return Capacities(self._rows)

    def live(self) -> list[Row]:
        """Return the workers whose lease has not ended; the caller changes nothing in them."""
        now = self._clock.monotonic()
        return [row for row in self._rows.values() if row.member.lease_until > now]

    def row_or_none(self, worker_id: str) -> Row | None:
        return self._rows.get(worker_id)

    def registrations(self) -> tuple[Registration, ...]:
        return tuple(row.registration for row in self._rows.values())

    def outbox(self, most: int = MAX_WORKERS) -> list[WorkerLease]:
        """Return the leases to share: of workers that spoke here since the last time."""
        now, leases = self._clock.monotonic(), list[WorkerLease]()
        while self._dirty and len(leases) < most:
            worker_id = next(iter(self._dirty))
            del self._dirty[worker_id]
            # A worker that speaks elsewhere becomes dirty again when it comes back.
            row = self._rows.get(worker_id)
            if row is not None and self._is_mine(row):
                leases.append(row.lease(now))
        return leases

    @property
    def outbox_size(self) -> int:
        """How many workers may have changes to share."""
        return len(self._dirty)

    def own(self) -> list[tuple[str, int, int]]:
        """Return worker, generation and `since` of the workers that speak here."""
        return [
            (worker_id, row.member.generation, row.since)
            for worker_id, row in self._rows.items()
            if self._is_mine(row)
        ]

    def shared(self, leases: Sequence[WorkerLease], wanted: frozenset[str], *, done: bool) -> None:
        """Note how the exchange of an outbox ended; `wanted` lack their registration there."""
        for lease in leases:
            row = self._rows.get(lease.worker_id)
            if row is not None and row.since == lease.since:
                is_kept = done and lease.worker_id not in wanted
                row.needs_facts = not is_kept and (row.needs_facts or done)
                if not is_kept:
                    self._dirty[lease.worker_id] = None

    def ended(self) -> list[tuple[str, int]]:
        """Return the workers that were removed lately, with their last generation."""
        return [(worker_id, generation) for worker_id, (generation, _) in self._ended.items()]

    def unknown(self, leases: Sequence[WorkerLease]) -> list[str]:
        """Return the workers whose registration this scheduler lacks or has in another version."""
        return [x.worker_id for x in leases if self._is_news(x)][: MAX_WORKERS - len(self._rows)]

    def absorb(
        self,
        leases: Sequence[WorkerLease],
        facts: Mapping[str, tuple[int, bytes]],
        *,
        is_settled: bool = True,
    ) -> list[RouteChange]:
        """Merge the leases of all schedulers; return the lives that ended elsewhere.

        What a worker reported here counts more than what is read, unless that is later. A store
        that was unreachable is not settled, because other schedulers may not have written yet:
        workers that are not listed then stay until their lease ends.
        """
        changes: list[RouteChange] = []
        for lease in leases:
            if self._is_news(lease):
                changes += self._adopt(lease, facts.get(lease.worker_id))
            elif (row := self._rows.get(lease.worker_id)) is not None:
                changes += self._refresh(row, lease)
        return changes + self.keep_only({x.worker_id for x in leases}) if is_settled else changes

    def keep_only(self, listed: Collection[str]) -> list[RouteChange]:
        """Drop the workers of other schedulers that are not listed any more."""
        gone = [w for w, row in self._rows.items() if w not in listed and not self._is_mine(row)]
        return [self._drop(worker_id) for worker_id in gone]

    def heard_end(self, worker_id: str, dead: int, successor: int) -> list[RouteChange]:
        """Merge a broadcast: `dead` ended and `successor` follows it; 0 if the worker left."""
        row = self._rows.get(worker_id)
        if not successor:
            if row is None or row.member.generation <= dead:
                self._bury(worker_id, dead)
            if row is None or row.member.generation > dead:
                return []
            return [self._drop(worker_id)]
        return self._advance(row, self._sane(successor)) if row is not None else []

    def hold(self) -> None:
        """Keep the workers of other schedulers, because nothing shows now whether they live."""
        until = self._clock.monotonic() + self._lease_seconds
        for row in self._rows.values():
            if not self._is_mine(row):
                row.member.lease_until = max(row.member.lease_until, until)
                row.member.is_stale = True

    def drain(self, workers: frozenset[str]) -> None:
        """Route nothing to these workers, until the next call leaves them out."""
        back, self._drained = self._drained - workers, workers
        for worker_id in back | workers:
            if (row := self._rows.get(worker_id)) is not None:
                row.member.is_draining = row.registration.is_draining or worker_id in workers
                self.additions += not row.member.is_draining

    def _is_mine(self, row: Row) -> bool:
        return row.heard_at + self._lease_seconds > self._clock.monotonic()

    def _is_news(self, lease: WorkerLease) -> bool:
        if lease.generation <= self._ended.get(lease.worker_id, (0, 0.0))[0]:
            return False
        row = self._rows.get(lease.worker_id)
        if row is None:
            return True
        if row.since == lease.since:
            return False
        newer = (lease.generation, lease.since) > (row.member.generation, row.since)
        return newer or not self._is_mine(row)

    def _adopt(self, lease: WorkerLease, known: tuple[int, bytes] | None) -> list[RouteChange]:
        if known is None or known[0] != lease.since or not self._sane(lease.generation):
            return []
        try:
            registration = unpack_registration(known[1])
        except CallerError:
            return []  # of a later version, or damaged: the others route to that worker
        if registration.worker_id != lease.worker_id:
            return []
        old = self._rows.get(lease.worker_id)
        before = old.member.generation if old else 0
        row = self._put(registration, lease.since, lease.generation)
        row.needs_facts = False
        self._refresh(row, lease)
        self._dirty.pop(lease.worker_id, None)
        if not before or before == lease.generation:
            return []
        return [RouteChange(lease.worker_id, before, is_dead=True)]

    def _refresh(self, row: Row, lease: WorkerLease) -> list[RouteChange]:
        dead = self._advance(row, self._sane(lease.generation))
        member = row.member
        if not self._is_mine(row):
            until = self._clock.monotonic() + lease.seconds
            if until > member.lease_until + self._lease_seconds / 8:
                member.routed = 0  # it has reported its load since
            member.running, member.queued = lease.running, lease.queued
            member.lease_until = until
            member.is_stale = lease.seconds < self._lease_seconds / 2
        return dead

    def _advance(self, row: Row, generation: int) -> list[RouteChange]:
        old = row.member.generation
        if generation <= old:
            return []
        row.member.generation = generation
        self._dirty[row.registration.worker_id] = None
        return [RouteChange(row.registration.worker_id, old, is_dead=True)]

    def _put(self, registration: Registration, since: int, generation: int) -> Row:
        member = Member(
            worker_id=registration.worker_id,
            generation=generation,
            rank=registration.isolation.rank,
            capacity=registration.capacity,
            images=frozenset(registration.images),
            lease_until=self._clock.monotonic() + self._lease_seconds,
            is_draining=registration.is_draining or registration.worker_id in self._drained,
        )
        row = Row(
            registration, certificate_id(registration.certificate), since, member, float("-inf")
        )
        known = self._rows.get(registration.worker_id)
        if known is None or known.member.is_draining > member.is_draining:
            self.additions += 1
        self._rows[registration.worker_id] = row
        self._dirty[registration.worker_id] = None
        self._fleet.put(member)
        return row

    def _bury(self, worker_id: str, generation: int) -> None:
        if len(self._ended) < MAX_WORKERS:
            until = self._clock.monotonic() + _TOMBSTONE_SECONDS
            self._ended[worker_id] = generation, until

    def _drop(self, worker_id: str) -> RouteChange:
        row = self._rows.pop(worker_id)
        self._dirty.pop(worker_id, None)
        self._fleet.drop(worker_id)
        return RouteChange(worker_id, row.member.generation, is_dead=True)

    def _known(self, worker_id: str) -> Row:
        row = self._rows.get(worker_id)
        if row is None:
            raise NotFoundError("unknown worker: register again", reason="unknown-worker")
        return row
