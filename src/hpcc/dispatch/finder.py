"""Looks for a result where it may be, before it is made again.

Workers without a common store each keep what they executed. So that a second build finds what the
first one left, each action has a meeting place: the worker that rendezvous hashing chooses among
the routes that this client could get (`hpcc.dispatch.meeting`). It is asked first, and its notes
name the workers to ask next. Who executed an action elsewhere notes that there.

What must never happen: anything that a meeting place says is used without the checks that a result
from the executing worker gets. A meeting place that lies costs a question, and a miss.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Final

from hpcc.core import CallerError, HpccError, RemoteRequest, RemoteResult
from hpcc.core.memo import LruMemo
from hpcc.dispatch.channels import RoutedWorker
from hpcc.dispatch.farm import FarmConnection
from hpcc.dispatch.meeting import Trail
from hpcc.dispatch.prepared_action import PreparedAction
from hpcc.dispatch.results import WorkerResults
from hpcc.ports import Clock
from hpcc.rpc.base.errors import DeadlineError, UnavailableError
from hpcc.rpc.reapi.meeting import Known, Made

_log: Final = logging.getLogger(__name__)
# After this many actions in a row that no other worker knew, only each 16th is asked for there.
_MANY: Final = 8
_EVERY: Final = 16
# How long a worker that did not answer in time is not asked.
_SILENT_SECONDS: Final = 60.0
_MAX_SILENT: Final = 64
# How long other workers have to say whether they know a result.
_OTHER_SECONDS: Final = 5.0
# How many of the workers that a meeting place names are asked.
_MOST_NAMED: Final = 2
# How long a worker that serves no `Look` is asked only as before.
_PLAIN_SECONDS: Final = 600.0


class OtherCaches:
    """Decides whether other workers are asked for a result before it is made again.

    Workers without a common store each keep what they executed. A build that used several workers
    left its results at all of them, and the next build, perhaps on another machine, has to find
    them. The builds that find nothing must not pay for that: a few actions tell them apart.
    """

    def __init__(self) -> None:
        # So many actions are asked for at the same time. At the beginning of a build with many jobs
        # the first few decide for those behind them.
        self.turn = asyncio.Semaphore(_MANY)
        self._misses = self._turns = 0
        # By worker: until when it is not asked, because it let an earlier question wait.
        self._silent: LruMemo[str, float] = LruMemo(_MAX_SILENT)

    def are_due(self) -> bool:
        """Count an action that has its turn; return whether to ask for it."""
        self._turns += 1
        return self._misses < _MANY or self._turns % _EVERY == 0

    def was_silent(self, worker_id: str, now: float) -> None:
        """Note that a worker did not answer in time; `now` is monotonic, in seconds."""
        self._silent[worker_id] = now + _SILENT_SECONDS

    def is_silent(self, worker_id: str, now: float) -> bool:
        """Return whether a worker is not asked at present."""
        return now < self._silent.get(worker_id, now)

    def note(self, *, is_found: bool) -> None:
        """Note the answer for an action that was asked for."""
        self._misses = 0 if is_found else self._misses + 1


class ResultFinder:
    """Finds results at workers other than the one that would execute. One event loop uses it."""

    def __init__(self, clock: Clock, results: WorkerResults) -> None:
        self._clock, self._results = clock, results
        self._others = OtherCaches()
        # By worker: until when it is not asked by `Look`, which its version does not serve.
        self._plain: LruMemo[str, float] = LruMemo(_MAX_SILENT)

    async def find(
        self,
        connection: FarmConnection,
        worker: RoutedWorker,
        request: RemoteRequest,
        prepared: PreparedAction,
        trail: Trail,
    ) -> RemoteResult | None:
        """Look for the result where it may be, without a place for a compile; None: not found.

        If all workers have one store, the first is asked if the last result was cached, for hits
        come in a row. Otherwise the action's meeting place is asked, then those that it names.
        Only what was made before this worker was the meeting place is missed so, and all workers
        are asked, as long as that finds something. The call that executes looks at its worker
        anyway.

        Raises:
            HpccError: the first worker failed.
        """
        if not connection.may_have_others(worker):
            if not self._results.was_cached:
                return None
            async with connection.reached(worker):
                found = await self._results.cached(connection, worker, request, prepared)
            if found is None:
                trail.asked.add(worker.route.worker_id)
            return found
        trail.place = await connection.places.at(prepared.digest)
        if trail.place is not None:
            found = await self._met(connection, trail.place, request, prepared, trail)
            if found is not None:
                return found
        async with self._others.turn:
            if not self._others.are_due():
                return None
            return await self._found_elsewhere(connection, worker, request, prepared, trail)

    def made(
        self,
        connection: FarmConnection,
        worker: RoutedWorker,
        prepared: PreparedAction,
        trail: Trail,
        result: RemoteResult,
    ) -> None:
        """Let an action's meeting place know which worker has the result."""
        name = worker.route.worker_id
        if trail.place is None or result.exit_code or trail.place.route.worker_id == name:
            return
        connection.places.note(trail.place, Made(prepared.digest, name))

    async def _met(
        self,
        connection: FarmConnection,
        place: RoutedWorker,
        request: RemoteRequest,
        prepared: PreparedAction,
        trail: Trail,
    ) -> RemoteResult | None:
        """Ask the meeting place, and then at most two workers that it names."""
        seen = await self._look(connection, place, request, prepared, trail)
        if seen is None:
            # Nothing is noted there either. Others may have gone on to the next in rank.
            following = await connection.places.at(prepared.digest)
            name = following.route.worker_id if following is not None else ""
            trail.place = following if name != place.route.worker_id else None
        if not isinstance(seen, Known):
            return seen
        named = connection.places.named(name for name in seen.workers if name not in trail.asked)
        looks = {
            worker.route.worker_id: self._look(connection, worker, request, prepared, trail)
            for worker in named[:_MOST_NAMED]
        }
        found = await _first(looks)
        return found[1] if found else None

    async def _look(
        self,
        connection: FarmConnection,
        worker: RoutedWorker,
        request: RemoteRequest,
        prepared: PreparedAction,
        trail: Trail,
    ) -> RemoteResult | Known | None:
        """Look at one worker, and keep what it knows; None if it cannot be asked."""
        name, now = worker.route.worker_id, self._clock.monotonic()
        if now < self._plain.get(name, now):
            return None
        try:
            async with connection.reached(worker):
                seen = await self._results.look(
                    connection, worker, request, prepared, seconds=_OTHER_SECONDS
                )
        except HpccError as error:
            self._failed(connection, worker, error)
            if isinstance(error, CallerError):
                self._plain[name] = self._clock.monotonic() + _PLAIN_SECONDS
            return None
        if isinstance(seen, Known):
            trail.asked.add(name)
            trail.claims += tuple(c for c in seen.claims if c not in trail.claims)
        return seen

    async def _found_elsewhere(
        self,
        connection: FarmConnection,
        worker: RoutedWorker,
        request: RemoteRequest,
        prepared: PreparedAction,
        trail: Trail,
    ) -> RemoteResult | None:
        """Look at all workers that may have the result; the first one that has it ends that."""
        now, others = self._clock.monotonic(), await connection.places.others(worker)
        asked = {
            other.route.worker_id: other
            for other in (*others, *([worker] if others else ()))
            if other.route.worker_id not in trail.asked
            and not self._others.is_silent(other.route.worker_id, now)
        }
        if not asked:
            return None
        found = await _first(
            {
                name: self._cached_at_other(connection, other, request, prepared)
                for name, other in asked.items()
            }
        )
        self._others.note(is_found=found is not None)
        if found is None:
            trail.asked.update(asked)
            return None
        self.made(connection, asked[found[0]], prepared, trail, found[1])
        return found[1]

    async def _cached_at_other(
        self,
        connection: FarmConnection,
        worker: RoutedWorker,
        request: RemoteRequest,
        prepared: PreparedAction,
    ) -> RemoteResult | None:
        """Look at one of several workers; what is wrong there is the same as a miss."""
        try:
            async with connection.reached(worker):
                return await self._results.cached(
                    connection, worker, request, prepared, seconds=_OTHER_SECONDS
                )
        except HpccError as error:
            self._failed(connection, worker, error)
        return None

    def _failed(self, connection: FarmConnection, worker: RoutedWorker, error: HpccError) -> None:
        """Do not ask a worker again that let a question wait, or is gone."""
        name = worker.route.worker_id
        _log.info("worker %s was asked in vain: %s", name, error)
        if isinstance(error, DeadlineError):
            self._others.was_silent(name, self._clock.monotonic())
        elif isinstance(error, UnavailableError):
            connection.give_up(worker.route, error)
        else:
            return
        connection.places.drop(name)


async def _first(
    looks: dict[str, Coroutine[None, None, RemoteResult | Known | None]],
) -> tuple[str, RemoteResult] | None:
    """Return the first result and the worker that has it, and end the other questions."""
    async with asyncio.TaskGroup() as group:
        names = {group.create_task(look): name for name, look in looks.items()}
        left = set(names)
        found: tuple[str, RemoteResult] | None = None
        while left and found is None:
            ended, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                result = task.result()
                if result is not None and not isinstance(result, Known):
                    found = names[task], result
        for task in left:
            task.cancel()
    return found
