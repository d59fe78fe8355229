"""Which workers are alive and what they offer: decisions without I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from hpcc.core import CallerError, ImageDigest, ImageToolchains, Isolation, NotFoundError
from hpcc.identity import certificate_id
from hpcc.ports import Clock
from hpcc.rpc import Beat, Registration, RouteChange

MAX_WORKERS: Final = 1024


@dataclass(frozen=True, slots=True)
class Worker:
    """A registered worker; its lease ends at the monotonic time `lease_until`."""

    registration: Registration
    audience: str
    generation: int
    lease_until: float
    running: int = 0
    queued: int = 0


class Registry:
    """Workers by id. A generation is one life of a worker's guests; numbers only grow."""

    def __init__(self, clock: Clock, lease_seconds: float) -> None:
        self._clock, self._lease_seconds = clock, lease_seconds
        self._workers: dict[str, Worker] = {}
        # Grows over restarts too, so that a daemon never takes an old generation for a new one.
        self._next = int(clock.now()) << 16

    def register(self, registration: Registration) -> Worker:
        """Take a worker in, replacing an earlier life of it.

        Raises:
            CallerError: there are too many workers.
        """
        self.expire()
        if registration.worker_id not in self._workers and len(self._workers) >= MAX_WORKERS:
            raise CallerError(f"more than {MAX_WORKERS} workers", reason="too-many-workers")
        worker = Worker(
            registration,
            certificate_id(registration.certificate),
            self._generation(),
            self._clock.monotonic() + self._lease_seconds,
        )
        self._workers[registration.worker_id] = worker
        return worker

    def heartbeat(self, beat: Beat) -> Worker:
        """Renew a lease.

        Raises:
            NotFoundError: the worker is unknown, or its lease ran out.
        """
        worker = self._known(beat.worker_id)
        renewed = replace(
            worker,
            lease_until=self._clock.monotonic() + self._lease_seconds,
            running=beat.running,
            queued=beat.queued,
        )
        self._workers[beat.worker_id] = renewed
        return renewed

    def lost(self, worker_id: str) -> tuple[RouteChange, Worker]:
        """End a generation; return what to tell the watchers and the worker's next life."""
        worker = self._known(worker_id)
        successor = replace(worker, generation=self._generation())
        self._workers[worker_id] = successor
        return RouteChange(worker_id, worker.generation, is_dead=True), successor

    def remove(self, worker_id: str) -> RouteChange | None:
        worker = self._workers.pop(worker_id, None)
        return RouteChange(worker_id, worker.generation, is_dead=True) if worker else None

    def expire(self) -> list[RouteChange]:
        """Drop the workers whose lease ran out."""
        now = self._clock.monotonic()
        gone = [w for w in self._workers.values() if w.lease_until <= now]
        changes = [self.remove(w.registration.worker_id) for w in gone]
        return [c for c in changes if c is not None]

    def choose(
        self,
        image: ImageDigest,
        minimum: Isolation,
        *,
        failed_generation: int,
        preferred_worker: str = "",
    ) -> Worker:
        """Return a live worker that has the image and isolates well enough.

        The preferred one if it is among them and has not just failed, else the least loaded.

        Raises:
            NotFoundError: there is none.
        """
        now = self._clock.monotonic()
        fit = [
            w
            for w in self._workers.values()
            if w.lease_until > now
            and image in w.registration.images
            and w.registration.isolation.rank >= minimum.rank
        ]
        if not fit:
            raise NotFoundError(
                f"no live worker has image {image} at isolation {minimum} or stronger",
                reason="no-worker",
            )
        return min(
            fit,
            key=lambda w: (
                w.generation == failed_generation,
                w.registration.worker_id != preferred_worker,
                _load(w),
            ),
        )

    def toolchains(self, image: ImageDigest) -> ImageToolchains | None:
        """Return which compilers the worker that came last says that an image has."""
        now = self._clock.monotonic()
        said = [
            (w.generation, t)
            for w in self._workers.values()
            if w.lease_until > now and image in w.registration.images
            for t in w.registration.toolchains
            if t.image == image
        ]
        return max(said, key=lambda pair: pair[0])[1] if said else None

    def live(self) -> Iterator[RouteChange]:
        for worker_id, worker in self._workers.items():
            yield RouteChange(worker_id, worker.generation, is_dead=False)

    def registrations(self) -> tuple[Registration, ...]:
        return tuple(w.registration for w in self._workers.values())

    def _known(self, worker_id: str) -> Worker:
        worker = self._workers.get(worker_id)
        if worker is None:
            raise NotFoundError("unknown worker: register again", reason="unknown-worker")
        return worker

    def _generation(self) -> int:
        self._next += 1
        return self._next


def _load(worker: Worker) -> float:
    return (worker.running + worker.queued) / worker.registration.capacity
