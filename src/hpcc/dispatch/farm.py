"""The dispatcher's view of a farm: a session, routes to workers, and a channel to each.

`FarmConnection.lease` gives a compile its place at a worker. There are as many workers as the build
needs and the farm grants: while compiles wait, the scheduler is asked for more routes, at once when
it announces new workers, else less and less often.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from hpcc.config.farm import Farm
from hpcc.config.farm_session import FarmSession
from hpcc.core import HpccError, ImageRef, Isolation, TenantId, Toolchain
from hpcc.core.build_summary import BuildSummary
from hpcc.dispatch.calls import WorkerCalls, ended
from hpcc.dispatch.channels import RoutedWorker, WorkerChannels
from hpcc.dispatch.lanes import LaneQueue, MoreRoutes
from hpcc.dispatch.local_slots import Chance
from hpcc.dispatch.login import RENEW_BEFORE_SECONDS, FarmLogin, known_certificates
from hpcc.dispatch.meeting import MeetingPlaces, report_uses
from hpcc.dispatch.memory.uses import PackUses
from hpcc.dispatch.routes import RouteBook
from hpcc.identity.known_certificates import KnownCertificates
from hpcc.identity.result_keys import ResultKeys
from hpcc.ports import Clock
from hpcc.rpc.base.errors import BusyError, UnauthenticatedError, UnavailableError
from hpcc.rpc.scheduler.api import ASK_AGAIN, MAX_SLOTS, WATCHING, Route, RouteAsk
from hpcc.rpc.scheduler.builds import send_build
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc.rpc.scheduler.schedulers import Schedulers, open_schedulers

_log: Final = logging.getLogger(__name__)
# How long the scheduler has to confirm that it will report deaths.
_WATCH_SECONDS: Final = 2.0
# Pause before a broken watch is opened again, while calls are under way.
_REWATCH_SECONDS: Final = 1.0


class FarmConnection:
    """The session, route and channels that belong to one content of farm.json."""

    def __init__(
        self,
        farm: Farm,
        schedulers: Schedulers,
        clock: Clock,
        version: str,
        *,
        known: KnownCertificates | None = None,
        session_file: Path | None = None,
    ) -> None:
        self.farm = farm
        self.tenant = TenantId(farm.tenant)
        self.image = ImageRef.parse(farm.image)
        self._schedulers, self._client = schedulers, SchedulerClient(schedulers)
        self._clock = clock
        self._login = FarmLogin(farm, self._client, clock, version, session_file, known)
        self.has_news = self._login.has_news
        self._channels = WorkerChannels(self.tenant, clock)
        self.result_keys = ResultKeys(self._result_key, clock)
        self._lock = asyncio.Lock()
        self._book, self._queue = RouteBook(), LaneQueue(clock, lambda: self._more.is_asking)
        # Its guests may be warm for us. Any scheduler gets it as a hint.
        self._last_worker = ""
        self._watcher: asyncio.Task[None] | None = None
        self._more = MoreRoutes(
            clock, is_short=lambda: self._queue.is_short(self._book), ask=self._ask_more
        )
        # The last request for a first route that failed, and how many did.
        self._failure: HpccError | None = None
        self._failures = 0
        # `_is_watching`: a watch is open. `_is_told`: it delivers deaths, or has ended.
        self._is_watching = False
        self._is_told = asyncio.Event()
        self._calls = WorkerCalls()
        self.uses = PackUses(clock, partial(report_uses, version, self.reached))
        self.places = MeetingPlaces(
            clock, version, worker=self._channels.worker, reached=self.reached,
            is_good=lambda r: self._book.is_good(r, clock.monotonic()), ask=self._ask_all,
        )  # fmt: skip

    @property
    def has_others(self) -> bool:
        """Whether there is a route beside the first."""
        return len(self._book.lanes) > 1

    @property
    def is_full(self) -> bool:
        """Whether each worker in use has refused for want of room a moment ago."""
        now = self._clock.monotonic()
        return not self.has_others or all(x.paused_until > now for x in self._book.lanes)

    def may_have_others(self, first: RoutedWorker) -> bool:
        """Whether workers beside the first may have results that the first cannot find."""
        return first.route.has_others and not first.route.store

    @property
    def said(self) -> FarmSession | None:
        """The scheduler's answer to the last login; None before the first."""
        return self._login.said

    def host(self, text: str) -> Toolchain | None:
        """Parse the compiler that a request carries, and add it to the next login's report."""
        return self._login.host(text)

    async def worker(self) -> RoutedWorker:
        """Return the first worker, with a token that stays valid for at least a minute.

        It is for calls that need no place, such as a look into the action cache.

        Raises:
            HpccError: the scheduler is unreachable, refuses us, or knows no worker.
        """
        return self._channels.worker(await self._first(0))

    async def granted(self) -> int:
        """Return how many compiles at once the farm takes of us now; 0 if it says no number.

        Raises:
            HpccError: see `worker`.
        """
        await self._ask_all()
        return self._book.slots if all(x.route.slots for x in self._book.lanes) else 0

    @asynccontextmanager
    async def lease(
        self, failed_generation: int = 0, chance: Chance | None = None
    ) -> AsyncGenerator[RoutedWorker]:
        """Yield a worker that has a place for a compile, and keep the place during the block.

        `failed_generation` is the one on which the compile failed before; 0 for none. A second
        attempt goes to a worker that has answered, and does not wait for a place.

        Raises:
            HpccError: see `worker`. A route that was given up is not used while it is shunned.
            RunHereError: no worker has a place, and by `chance` it gets a local slot.
        """
        lane = self._queue.retry(self._book) if failed_generation else None
        while lane is None:
            await self._first(failed_generation)
            place = self._queue.join(self._book, chance)
            self._more.want()
            lane = await self._queue.wait(self._book, place)
        try:
            yield self._channels.worker(lane.route, lane)
        finally:
            self._queue.leave(self._book, lane)

    def opened(self, worker: RoutedWorker) -> None:
        """Note that a worker has the inputs of a compile: others may follow."""
        if worker.lane is not None and not worker.lane.is_open:
            worker.lane.opened()
            self._queue.wake(self._book)

    def expected(self, worker: RoutedWorker) -> int:
        """Return how many compiles a worker may get of us at once, by what is known now."""
        lane = worker.lane
        return 0 if lane is None else min(lane.in_flight + self._queue.waiting, lane.slots)

    def waited(self, worker: RoutedWorker, seconds: float, run_seconds: float) -> None:
        """Note how long a compile waited for its guest, and how long it ran there."""
        if worker.lane is not None:
            worker.lane.waited(seconds, run_seconds)
            self._queue.ran(run_seconds)
            self._queue.wake(self._book)

    async def _first(self, failed_generation: int) -> Route:
        """Return the first route; ask for routes if there is none, or if they end soon."""
        # A request for more routes, which may wait for a scheduler, does not hold up compiles.
        if (route := self._valid()) is not None:
            return route
        failures = self._failures
        async with self._lock:
            if (route := self._valid()) is not None:
                return route
            if self._failure is not None and self._failures != failures:
                # Asked while this compile waited. One wait for a scheduler is enough for all.
                raise self._failure.with_traceback(None)
            try:
                return await self._ask(failed_generation)
            except HpccError as error:
                self._failure, self._failures = error, self._failures + 1
                raise

    def _valid(self) -> Route | None:
        route = self._book.current
        is_due = route and route.token_expires_at - RENEW_BEFORE_SECONDS < self._clock.now()
        return None if is_due else route

    def give_up(self, failed: Route, error: HpccError) -> None:
        """Drop a route that failed; all compiles that used it share the next route request."""
        now = self._clock.monotonic()
        if isinstance(error, BusyError):
            for lane in self._book.lanes:
                if lane.route is failed:
                    self._book.pause(lane, now + error.retry_after_seconds)
        elif isinstance(error, UnauthenticatedError):
            # The same holds for the tokens that came with this one.
            if failed in [lane.route for lane in self._book.lanes]:
                self._book.silent()
        else:
            is_fault = error.reason != "not-ready"
            self._book.give_up(failed, now, is_workers_fault=is_fault)
        self._queue.wake(self._book)

    async def _ask_all(self) -> None:
        async with self._lock:
            await self._ask(0, MAX_SLOTS)

    async def _ask_more(self) -> bool:
        before = self._book.slots
        try:
            async with self._lock:
                await self._ask(0)
        except HpccError as error:
            _log.info("more routes: %s", error)
        return self._book.slots > before

    @asynccontextmanager
    async def reached(self, worker: RoutedWorker) -> AsyncGenerator[None]:
        """Dial a worker and run the block; see `WorkerCalls.reached`."""
        if self._watcher is None or self._watcher.done():
            # The watch broke while this route was requested.
            self._start_watch(None)
        async with self._calls.reached(worker):
            yield

    async def report_build(self, summary: BuildSummary) -> None:
        """Tell a scheduler of a build, in the session that compiles opened; see `send_build`."""
        if not (session := self._login.current):
            # Compiles log in. One of them must not wait for a login that a report began.
            raise UnavailableError("no compile is logged in now", reason="no-session")
        await send_build(self._schedulers, session, self.tenant, summary)

    async def close(self) -> None:
        """Send what waits, end the watch and all probes, and close the channels."""
        await self.uses.close()
        await self.places.close()
        if self._watcher is not None:
            await ended(self._watcher)
        await self._more.close()
        await self._calls.close()
        await self._channels.close()

    async def _ask(self, failed_generation: int, wanted: int = 1) -> Route:
        """Request routes of which one is neither dead nor shunned; a second time if all are."""
        for _ in range(2):
            route = await self._answer(failed_generation, wanted)
            await self._login.note_route(route)
            if wanted == MAX_SLOTS:
                self.places.take((route, *route.more))
            is_good = self._book.take((route, *route.more), self._clock.monotonic())
            self._queue.wake(self._book)
            if is_good and self._book.current is not None:
                self._last_worker = self._book.current.worker_id
                return self._book.current
            failed_generation = route.generation
        raise UnavailableError("the scheduler knows no other worker", reason="worker-gone")

    async def _answer(self, failed_generation: int, wanted: int) -> Route:
        book = self._book
        ask = RouteAsk(
            tenant=self.tenant,
            image=self.image,
            minimum_isolation=_minimum(self.farm.isolation),
            failed_generation=failed_generation,
            client_key=self._channels.public_key,
            last_worker=self._last_worker,
            # Granted places that a worker proved not to have are asked for again.
            wanted=max(self._queue.wanted(book) + book.slots - book.limits, wanted),
            warm_workers=tuple(book.in_use(self._clock.monotonic())),
        )
        session = await self._watched_session()
        try:
            return await self._client.route(session, ask)
        except UnauthenticatedError:
            self._login.forget()  # the scheduler ended it, or revoked its key
            return await self._client.route(await self._watched_session(), ask)

    async def _result_key(self, tenant: TenantId, key_id: str) -> bytes | None:
        async with self._lock:
            session = await self._watched_session()
        try:
            return await self._client.result_key(session, tenant, key_id)
        except UnauthenticatedError:
            async with self._lock:
                self._login.forget(session)
                session = await self._watched_session()
            return await self._client.result_key(session, tenant, key_id)

    async def _watched_session(self) -> str:
        """Return a session, after the watch for deaths has begun."""
        session = await self._login.session()
        if not self._is_watching:
            if self._watcher is not None:
                await ended(self._watcher)
            self._start_watch(session)
        if not self._is_told.is_set():
            # A death between the route's answer and the first news would never be reported.
            with suppress(TimeoutError):
                async with asyncio.timeout(_WATCH_SECONDS):
                    await self._is_told.wait()
        return session

    def _start_watch(self, session: str | None) -> None:
        self._is_watching = session is not None
        self._is_told.clear()
        self._watcher = asyncio.Task(self._keep_watch(session), name="routes")

    async def _keep_watch(self, session: str | None) -> None:
        """Watch for deaths, and reopen the watch while calls are under way.

        Without calls the watch ends; the next login starts it again.
        """
        if session is not None:
            await self._watch(session)
        while self._calls:
            await self._clock.sleep(_REWATCH_SECONDS)
            try:
                async with self._lock:
                    session = await self._login.session()
            except HpccError as error:
                _log.info("route watch: %s", error)
                continue
            self._is_watching = True
            self._is_told.clear()
            await self._watch(session)

    async def _watch(self, session: str) -> None:
        """Drop the route when the scheduler reports its death, or when the stream ends.

        The next compile then requests a new route instead of dialling a dead worker.
        """
        try:
            async with aclosing(self._client.watch(session, self.tenant)) as changes:
                async for change in changes:
                    self._is_told.set()
                    if change == ASK_AGAIN:
                        self._more.news()
                        continue
                    count = len(self._book.lanes)
                    self._book.told(change)
                    self._queue.wake(self._book)
                    if len(self._book.lanes) < count:
                        self._more.news()
                    if change == WATCHING:
                        # Deaths before this were not delivered, so workers in use are asked.
                        self._calls.suspect(lambda _: True)
                    self._calls.suspect(lambda w: self._book.is_dead(w.route))
        except HpccError as error:
            _log.info("route watch: %s", error)
            if isinstance(error, UnauthenticatedError):
                self._login.forget(session)
        finally:
            # Wakes `_watched_session`, which must not wait for a stream that has ended.
            self._is_told.set()
            self._is_watching = False
        self._book.silent()
        self._queue.wake(self._book)
        self._calls.suspect(lambda _: True)


def _minimum(label: str) -> Isolation | None:
    """Return the isolation that the farm came up with; a weaker one is not accepted."""
    try:
        return Isolation(label)
    except ValueError:
        return None


@asynccontextmanager
async def connect_farm(
    farm: Farm, clock: Clock, version: str, *, session_file: Path | None = None
) -> AsyncGenerator[FarmConnection]:
    """Open the connection to a farm; nothing is sent before the first compile.

    Raises:
        CallerError: farm.json holds no certificate.
    """
    known = await asyncio.to_thread(known_certificates, farm, session_file)
    peer = known.peer
    async with open_schedulers(
        farm.scheduler, certificate_pem=peer.certificate_pem, name=peer.name, clock=clock
    ) as schedulers:
        connection = FarmConnection(
            farm, schedulers, clock, version, known=known, session_file=session_file
        )
        try:
            yield connection
        finally:
            await connection.close()
