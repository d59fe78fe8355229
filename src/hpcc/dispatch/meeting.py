"""The workers at which results meet, and the notes that are sent to them.

The meeting places are the routes of the widest answer that the scheduler gives, as for `hpcc jobs`:
the workers of a small build differ from those of a large one, and both have to find each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final

from hpcc.core import Digest, HpccError, SharingPolicy
from hpcc.dispatch.calls import ended
from hpcc.dispatch.channels import RoutedWorker
from hpcc.dispatch.login import RENEW_BEFORE_SECONDS
from hpcc.ports import Clock
from hpcc.reapi.claims import ResultClaim
from hpcc.routing.rendezvous import rendezvous
from hpcc.rpc.reapi.client import ReapiClient
from hpcc.rpc.reapi.meeting import MAX_NOTES, Made, Use
from hpcc.rpc.reapi.service_calls import ReapiClientConfig
from hpcc.rpc.scheduler.api import Route

_log: Final = logging.getLogger(__name__)
# Notes wait so long for others to the same worker.
_GATHER_SECONDS: Final = 0.25
_NOTE_SECONDS: Final = 5.0
# A daemon that ends sends what waits within this time.
_LAST_SECONDS: Final = 1.0
# For one worker. More would be dropped, and found by the questions to all workers.
_MAX_WAITING: Final = 4096
# How many workers are asked for a result, beside the meeting place and those that it names.
_MAX_CACHES: Final = 8
# How often the scheduler is asked for all routes, if it gives none.
_PAUSE_SECONDS: Final = 60.0


@dataclass(slots=True)
class Trail:
    """What the look-up of one compile found out.

    `asked` has the workers that do not have the result, `claims` what they know of other voters.
    `place` is where the action meets; None if nobody has to meet anybody.
    """

    asked: set[str] = field(default_factory=set)
    claims: tuple[ResultClaim, ...] = ()
    place: RoutedWorker | None = None


class MeetingPlaces:
    """The workers at which this client's results meet those of others."""

    def __init__(
        self,
        clock: Clock,
        version: str,
        *,
        worker: Callable[[Route], RoutedWorker],
        reached: Callable[[RoutedWorker], AbstractAsyncContextManager[None]],
        is_good: Callable[[Route], bool],
        ask: Callable[[], Awaitable[None]],
    ) -> None:
        """`reached` dials a worker, `is_good` tells whether to. `ask` gives routes to `take`."""
        self._clock, self._version, self._worker = clock, version, worker
        self._reached, self._is_good, self._ask = reached, is_good, ask
        self._lock = asyncio.Lock()
        self._routes: dict[str, Route] = {}
        self._next_at = float("-inf")
        self._waiting: dict[str, tuple[RoutedWorker, list[Made]]] = {}
        self._task: asyncio.Task[None] | None = None

    def take(self, routes: Iterable[Route]) -> None:
        """Use the routes of an answer to a request for all."""
        self._routes = {route.worker_id: route for route in routes}

    def drop(self, worker_id: str) -> None:
        """Let others take the place of a worker that does not answer, until the next answer."""
        self._routes.pop(worker_id, None)

    async def at(self, action: Digest) -> RoutedWorker | None:
        """Return the worker at which an action meets; None if no good one is known."""
        await self._widen()
        name = rendezvous(action.hash, (n for n, r in self._routes.items() if self._is_good(r)))
        return self._worker(self._routes[name]) if name else None

    def named(self, names: Iterable[str]) -> list[RoutedWorker]:
        """Return those of the workers to which there is a good route."""
        routes = (self._routes.get(name) for name in names)
        return [self._worker(r) for r in routes if r is not None and self._is_good(r)]

    async def others(self, first: RoutedWorker) -> list[RoutedWorker]:
        """Return the workers, beside the first, whose action caches may have a result."""
        await self._widen()
        routes = list(filter(self._is_good, self._routes.values()))[:_MAX_CACHES]
        stores = {r.store or r.worker_id: r for r in routes if r.worker_id != first.route.worker_id}
        return [self._worker(route) for route in stores.values()]

    def note(self, place: RoutedWorker, made: Made) -> None:
        """Tell a meeting place, soon, which worker has a result. What fails is dropped."""
        _, waiting = self._waiting.setdefault(place.route.worker_id, (place, []))
        if len(waiting) < _MAX_WAITING:
            waiting.append(made)
        if self._task is None or self._task.done():
            self._task = asyncio.Task(self._send_later(), name="notes")

    async def close(self) -> None:
        """Send what waits, within a second."""
        if self._task is not None:
            await ended(self._task)
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                await self._send_all()
        except TimeoutError:
            _log.info("notes were not sent in time")

    async def _widen(self) -> None:
        """Ask for all routes, if it is time; all compiles of a build's beginning share that."""
        if not self._is_due() and not self._lock.locked():
            return
        async with self._lock:
            if not self._is_due():
                return
            self._next_at = self._clock.monotonic() + _PAUSE_SECONDS
            try:
                await self._ask()
            except HpccError as error:
                _log.info("all routes: %s", error)

    def _is_due(self) -> bool:
        if self._clock.monotonic() < self._next_at:
            return False
        ends = min((r.token_expires_at for r in self._routes.values()), default=0.0)
        return ends - RENEW_BEFORE_SECONDS < self._clock.now()

    async def _send_later(self) -> None:
        while self._waiting:
            await asyncio.sleep(_GATHER_SECONDS)
            await self._send_all()

    async def _send_all(self) -> None:
        waiting, self._waiting = self._waiting, {}
        async with asyncio.TaskGroup() as group:
            for place, made in waiting.values():
                group.create_task(self._send(place, made))

    async def _send(self, place: RoutedWorker, made: Sequence[Made]) -> None:
        config = ReapiClientConfig(
            tenant=place.tenant, tool_version=self._version, call_seconds=_NOTE_SECONDS
        )
        client = ReapiClient(place.channel, place.route.token, config, prove=place.prove)
        try:
            async with self._reached(place):
                for start in range(0, len(made), MAX_NOTES):
                    await client.note(made[start : start + MAX_NOTES])
        except HpccError as error:
            _log.info("notes for worker %s: %s", place.route.worker_id, error)


async def report_uses(
    version: str,
    reached: Callable[[RoutedWorker], AbstractAsyncContextManager[None]],
    worker: RoutedWorker,
    sharing: SharingPolicy,
    uses: Sequence[Use],
) -> None:
    """Report to a worker which results were used from build packs; `sharing` is what counts here.

    Raises:
        HpccError: the worker did not take the report.
    """
    config = ReapiClientConfig(
        tenant=worker.tenant, tool_version=version, call_seconds=_NOTE_SECONDS, sharing=sharing
    )
    client = ReapiClient(worker.channel, worker.route.token, config, prove=worker.prove)
    async with reached(worker):
        await client.used(uses)
